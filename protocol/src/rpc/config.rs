//! The instance's configuration: one JSON object, made of all TOML tables.

use crate::methods;
use crate::payload::{Empty, Object};

methods! {
    /// The whole object; with the streaming flag again on every change.
    Get: "config.get", User, OneOrStream, Empty => Object;
    /// Replace the whole object. EINVAL: somebody refused it (text), or this is not rank 0.
    Load: "config.load", Owner, One, Object => Empty;
    /// Read the files again. EINVAL: the text says where it went wrong.
    Reload: "config.reload", Owner, One, Empty => Empty;
    Disconnect: "config.disconnect", User, Never, Empty => Empty;
}

//! Archives of the key value store: tar files, compressed as their names say.
//!
//! They are those of flux-core: a key `a.b` is the file `a/b`, a symbolic link is one, directories
//! are not in it. Either program reads what the other wrote.

pub(crate) mod compression;
pub(crate) mod progress;
pub(crate) mod tar;

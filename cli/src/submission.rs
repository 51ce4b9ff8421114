//! What `flux run`, `submit`, `bulksubmit`, `batch` and `alloc` have in common.
//!
//! ```text
//! options -> (bulksubmit: substitute) -> jobspec: resources (build, nest), then what is said about
//! the job in general (apply) -> send -> attach, or follow
//! ```

pub(crate) mod apply;
pub(crate) mod build;
pub(crate) mod bulk;
pub(crate) mod conf;
pub(crate) mod constraint;
pub(crate) mod directives;
pub(crate) mod env;
pub(crate) mod files;
pub(crate) mod follow;
pub(crate) mod mutable;
pub(crate) mod nest;
pub(crate) mod options;
pub(crate) mod progress;
pub(crate) mod rlimit;
pub(crate) mod send;
pub(crate) mod shell_words;
pub(crate) mod uri;

use std::fmt::Display;

use crate::failure::Failure;

/// A complaint as these commands print it: `flux-run: ERROR: TEXT`.
pub(crate) fn refuse(text: impl Display) -> Failure {
    Failure::new(format_args!("ERROR: {text}"))
}

//! An instance of one user's, with guests: who may do what, as whom, with whose jobs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod instance {
    mod access;
    mod captured;
    mod cost;
    mod flood;
    mod host;
    mod jobs;
    mod perilog;
    mod private;
    mod requests;
    mod site;
}

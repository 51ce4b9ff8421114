//! Brokers on hosts of their own: how they find each other, and what a failing network, host or
//! administrator does to them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod hosts {
    mod cable;
    mod joining;
    mod routers;
}

//! What the state machine has to know of the other brokers.

use std::future::Future;
use std::pin::Pin;

use flux_protocol::idset::Idset;

/// A future on the broker's one thread.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// The overlay, as the state machine sees it.
pub trait Peers {
    /// Resolves when the parent has let this broker in, or with the reason why it never will.
    fn joined(&self) -> LocalFuture<Result<(), String>>;
    /// Resolves, with the reason, when the parent is lost after that.
    fn parent_lost(&self) -> LocalFuture<String>;
    /// Ranks of the children that have not left.
    fn children(&self) -> Idset;
    /// Resolves when no child is connected any more.
    fn children_gone(&self) -> LocalFuture<()>;
    /// Let nobody in from now on.
    fn close(&self);
    /// Tell the parent that this broker leaves, and wait for its answer.
    fn goodbye(&self) -> LocalFuture<()>;
}

/// A broker that is alone.
#[derive(Debug, Clone, Copy)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn joined(&self) -> LocalFuture<Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn parent_lost(&self) -> LocalFuture<String> {
        Box::pin(std::future::pending())
    }
    fn children(&self) -> Idset {
        Idset::new()
    }
    fn children_gone(&self) -> LocalFuture<()> {
        Box::pin(std::future::ready(()))
    }
    fn close(&self) {}
    fn goodbye(&self) -> LocalFuture<()> {
        Box::pin(std::future::ready(()))
    }
}

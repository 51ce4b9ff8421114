//! Connect to a Flux broker: typed RPC, streams of responses, events, and services of one's own.
//!
//! ```no_run
//! use flux_client::Client;
//! use flux_protocol::message::Nodeid;
//! use flux_protocol::rpc::attr;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let flux = Client::open(None).await?;
//! let request = attr::GetRequest { name: "size".to_owned() };
//! let size = flux.rpc::<attr::Get>(Nodeid::ANY, &request).await?.value;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is a cheap handle: its clones share one connection, which closes when the last of
//! them is dropped. One task moves bytes and hands each message to whoever waits for it; nothing
//! here is ever dropped for lack of room, so a caller that opens a stream should also read it.
#![forbid(unsafe_code)]

pub mod archive;
mod client;
mod connect;
mod error;
mod events;
pub mod kvs;
pub mod locale;
mod pending;
mod pump;
mod service;
mod tags;
mod uri;

pub use client::{Client, Request};
pub use connect::{OpenError, connect, default_uri};
pub use error::{Disconnect, RpcError};
pub use events::Events;
pub use pending::{Pending, RawPending, RawStream, Stream};
pub use service::Service;
pub use uri::{Uri, UriError};

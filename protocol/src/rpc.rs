//! The table of RPC topics, one file per service.
//!
//! Each row names the topic, who may call it, how it is answered, and the types of request and
//! response; broker and clients both use these rows, so that they cannot disagree. Error numbers
//! stand in the documentation of the row.

use crate::credential::{Credential, Rolemask};
use crate::payload::Payload;

pub mod attr;
pub mod broker;
pub mod common;
pub mod config;
pub mod connector_local;
pub mod content;
pub mod content_backing;
pub mod cron;
pub mod event;
pub mod groups;
pub mod heaptrace;
pub mod heartbeat;
pub mod job_exec;
pub mod job_info;
pub mod job_ingest;
pub mod job_list;
pub mod job_manager;
pub mod kvs;
pub mod kvs_watch;
pub mod log;
pub mod module;
pub mod overlay;
pub mod resource;
pub mod rexec;
pub mod sched;
pub mod service;
pub mod shutdown;
pub mod state_machine;

/// Who may call a method. Handlers may add checks of their own, such as job ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The instance owner only.
    Owner,
    /// The owner and guests.
    User,
    /// Any role, also none.
    Anyone,
}

impl Who {
    pub fn admits(self, cred: Credential) -> bool {
        match self {
            Who::Owner => cred.is_owner(),
            Who::User => cred.rolemask.intersects(Rolemask::OWNER.union(Rolemask::USER)),
            Who::Anyone => true,
        }
    }

    /// The text of the EPERM response.
    pub fn refusal(self) -> &'static str {
        match self {
            Who::Owner => "Request requires owner credentials",
            Who::User | Who::Anyone => "Request rejected due to insufficient privilege",
        }
    }
}

/// How a method is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// One response.
    One,
    /// Responses until an error; ENODATA is the normal end. The request must have the streaming
    /// flag, else EPROTO.
    Stream,
    /// One response, or a stream when the request has the streaming flag.
    OneOrStream,
    /// The request is sent with the no-response flag.
    Never,
}

/// One row of the table.
pub trait Method: 'static {
    const TOPIC: &'static str;
    const WHO: Who;
    const REPLY: Reply;
    type Request: Payload;
    type Response: Payload;
}

/// Declare rows: `/// doc` `Name: "service.method", Who, Reply, Request => Response;`
#[macro_export]
macro_rules! methods {
    ($(
        $(#[$meta:meta])*
        $name:ident: $topic:literal, $who:ident, $reply:ident, $request:ty => $response:ty;
    )*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, Copy)]
            pub struct $name;

            impl $crate::rpc::Method for $name {
                const TOPIC: &'static str = $topic;
                const WHO: $crate::rpc::Who = $crate::rpc::Who::$who;
                const REPLY: $crate::rpc::Reply = $crate::rpc::Reply::$reply;
                type Request = $request;
                type Response = $response;
            }
        )*

        /// Topic, caller and reply of every row in this file.
        pub const METHODS: &[(&str, $crate::rpc::Who, $crate::rpc::Reply)] = &[
            $(($topic, $crate::rpc::Who::$who, $crate::rpc::Reply::$reply),)*
        ];
    };
}

//! What this broker knows of its parent.
//!
//! ```text
//!              hello answered            goodbye answered
//!   Joining ------------------> Joined ------------------> Left
//!      |                          |
//!      | hello refused            | link broken, or told to leave
//!      v                          v
//!   Refused                     Lost
//! ```
//!
//! A parent that is lost does not come back: the broker exits, and starts again as a new peer.

use std::time::Instant;

use bytes::Bytes;

use super::tracker::Tracker;
use crate::boot::ParentLink;

/// The link to the parent, as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uplink {
    /// Not let in yet.
    Joining,
    Joined,
    /// The parent said why it does not let this broker in.
    Refused(String),
    /// With the reason.
    Lost(String),
    /// The parent knows that this broker leaves.
    Left,
}

#[derive(Debug)]
pub(super) struct Parent {
    pub(super) rank: u32,
    pub(super) link: ParentLink,
    /// Empty until the hello is answered.
    pub(super) uuid: Bytes,
    pub(super) last_sent: Instant,
    /// Nothing more is sent.
    pub(super) goodbye_sent: bool,
    pub(super) tracker: Tracker,
}

// === impl Parent ===

impl Parent {
    pub(super) fn new(rank: u32, link: ParentLink, now: Instant) -> Parent {
        Parent {
            rank,
            link,
            uuid: Bytes::new(),
            last_sent: now,
            goodbye_sent: false,
            tracker: Tracker::default(),
        }
    }
}

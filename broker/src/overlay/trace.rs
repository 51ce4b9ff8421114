//! Copies of the messages on the links, for `overlay.trace`.

use std::time::SystemTime;

use flux_protocol::message::Message;

use super::{News, Overlay};
use crate::trace::{Direction, Traced};

/// What carries a trace is not traced: that would never end.
const UNTRACED: [&str; 2] = ["overlay.trace", "module.trace"];

impl Overlay {
    /// Tell observers, while somebody traces. No peer: all children.
    pub(super) fn trace(&self, direction: Direction, peer: Option<u32>, message: &Message) {
        if !self.tracing.get() || UNTRACED.contains(&message.topic.as_str()) {
            return;
        }
        let (time, message) = (SystemTime::now(), message.clone());
        self.tell(&News::Message(Traced { time, direction, peer, module: None, message }));
    }
}

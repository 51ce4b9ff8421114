//! Requests that went over a link and are not answered yet, so that they can be when it breaks.

use std::collections::HashMap;

use bytes::Bytes;
use flux_protocol::errno::Errno;
use flux_protocol::message::{Flags, Kind, Matchtag, Message};

/// Open requests by sender and matchtag; each with the error response that it may get.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    open: HashMap<Bytes, HashMap<u32, Message>>,
    count: usize,
}

impl Tracker {
    /// Note a request that was sent.
    ///
    /// Those without a matchtag can't be told apart; their senders notice a loss by other means.
    pub(super) fn sent(&mut self, request: &Message) {
        let Some(sender) = request.first_route() else { return };
        if request.wants_response() && request.matchtag() != Matchtag::NONE {
            let failure = Message::response(request, Errno::EHOSTUNREACH.0, None);
            let of_sender = self.open.entry(sender.clone()).or_default();
            if of_sender.insert(request.matchtag().0, failure).is_none() {
                self.count += 1;
            }
        } else if request.flags.contains(Flags::NORESPONSE)
            && request.topic.ends_with(".disconnect")
            && let Some(gone) = self.open.remove(sender)
        {
            self.count -= gone.len();
        }
    }

    /// Note a response that came; a stream goes on until an error.
    pub(super) fn received(&mut self, response: &Message) {
        let Kind::Response { errnum, matchtag } = response.kind else { return };
        if response.is_streaming() && errnum == 0 {
            return;
        }
        let Some(sender) = response.first_route() else { return };
        let Some(of_sender) = self.open.get_mut(sender) else { return };
        if of_sender.remove(&matchtag.0).is_some() {
            self.count -= 1;
        }
        if of_sender.is_empty() {
            self.open.remove(sender);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The link broke: the EHOSTUNREACH responses that are due, with routes as on the link.
    pub(super) fn drain(&mut self) -> Vec<Message> {
        self.count = 0;
        std::mem::take(&mut self.open).into_values().flat_map(HashMap::into_values).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_protocol::message::Nodeid;

    fn request(sender: &'static str, tag: u32) -> Message {
        let mut message = Message::request("a.b", Nodeid(3), Matchtag(tag));
        message.routes.push(Bytes::from_static(sender.as_bytes()));
        message.routes.push(Bytes::from_static(b"hop"));
        message
    }

    fn streaming(sender: &'static str, tag: u32) -> Message {
        request(sender, tag).with_flags(Flags::STREAMING)
    }

    #[test]
    fn answered_requests_are_forgotten_and_streams_go_on() {
        let mut tracker = Tracker::default();
        tracker.sent(&request("x", 1));
        tracker.sent(&streaming("x", 2));
        tracker.sent(&request("y", 1));
        tracker.received(&Message::response(&request("x", 1), 0, None));
        tracker.received(&Message::response(&streaming("x", 2), 0, None));
        assert_eq!(tracker.len(), 2);
        tracker.received(&Message::response(&streaming("x", 2), Errno::ENODATA.0, None));
        assert_eq!(tracker.len(), 1);
        let left = tracker.drain();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].errnum(), Errno::EHOSTUNREACH.0);
        assert_eq!(left[0].routes, request("y", 1).routes);
        assert_eq!(tracker.len(), 0);
    }

    #[test]
    fn requests_of_a_sender_that_disconnects_are_forgotten() {
        let mut tracker = Tracker::default();
        tracker.sent(&request("x", 1));
        tracker.sent(&request("x", 2));
        tracker.sent(&request("y", 1));
        let mut disconnect = request("x", 1).with_flags(Flags::NORESPONSE);
        disconnect.topic = "a.disconnect".into();
        tracker.sent(&disconnect);
        assert_eq!(tracker.len(), 1);
    }

    #[test]
    fn requests_that_nobody_waits_for_are_not_kept() {
        let mut tracker = Tracker::default();
        tracker.sent(&request("x", 0));
        tracker.sent(&request("x", 1).with_flags(Flags::NORESPONSE));
        assert_eq!(tracker.len(), 0);
    }
}

//! The exchange of what tasks have put between shells: gathered up a tree of shells, and sent
//! back down. It has no I/O of its own.
//!
//! ```text
//!   enter() --+                       +--> Done: answer children, release tasks
//!             +-- all there --> root? |
//!   request()-+                       +--> Ask the parent --> answered() --> Done or Failed
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use flux_client::{Client, Request};
use flux_protocol::errno::Errno;
use flux_protocol::message::{Message, Nodeid};
use flux_protocol::payload::{decode_json, encode_json};

use crate::job::Job;
use crate::log::Log;

const FANOUT: usize = 2;

pub(super) type Pairs = BTreeMap<String, String>;

#[derive(Debug)]
pub(super) struct Exchange {
    /// Broker rank of the parent shell.
    parent: Option<Nodeid>,
    children: usize,
    topic: String,
    pairs: Pairs,
    /// Requests of children that wait for their answers.
    requests: Vec<Message>,
    /// All tasks of this shell are in the barrier.
    entered: bool,
    asked: bool,
}

/// What is to be done now.
#[derive(Debug)]
pub(super) enum Step {
    Wait,
    Ask { parent: Nodeid, topic: String, payload: Option<Bytes> },
    Done { pairs: Pairs, answers: Vec<Message> },
    Failed { answers: Vec<Message> },
}

// === impl Exchange ===

impl Exchange {
    /// `fanout` 0 is the default.
    pub(super) fn new(job: &Job, fanout: usize, log: &Log) -> Exchange {
        let (rank, size) = (job.shell_rank, job.size());
        let tell = |text: std::fmt::Arguments<'_>| {
            if job.is_leader() {
                log.warn(super::COMPONENT, text);
            }
        };
        let k = match fanout {
            0 => FANOUT,
            k if k > size => {
                tell(format_args!("requested exchange fanout too large, using k={size}"));
                size
            }
            k => {
                tell(format_args!("using k={k}"));
                k
            }
        };
        let first = k.saturating_mul(rank).saturating_add(1);
        let parent = rank.checked_sub(1).and_then(|before| job.layout.node(before / k));
        Exchange {
            parent: parent.map(|node| Nodeid(node.broker_rank)),
            children: size.saturating_sub(first).min(k),
            topic: format!("{}.pmi-exchange", job.service),
            pairs: Pairs::new(),
            requests: Vec::new(),
            entered: false,
            asked: false,
        }
    }

    /// The tasks of this shell are ready, with what they have put.
    pub(super) fn enter(&mut self, pairs: Pairs) -> Step {
        self.pairs.extend(pairs);
        self.entered = true;
        self.next()
    }

    /// A child is ready.
    pub(super) fn request(&mut self, request: &Message) -> Result<Step, (Errno, &'static str)> {
        let pairs: Pairs = decode_json(request.payload.as_ref()).map_err(|e| (e.errno(), ""))?;
        if self.requests.len() >= self.children {
            return Err((Errno::EINPROGRESS, "pmi-exchange received too many child requests"));
        }
        self.pairs.extend(pairs);
        self.requests.push(request.clone());
        Ok(self.next())
    }

    /// The parent has answered.
    pub(super) fn answered(&mut self, result: Result<Pairs, String>, log: &Log) -> Step {
        match result {
            Ok(pairs) => {
                self.pairs.extend(pairs);
                self.done()
            }
            Err(e) => {
                log.warn(super::COMPONENT, format_args!("pmi-exchange request: {e}"));
                let answers = self.reset().1;
                Step::Failed { answers }
            }
        }
    }

    fn next(&mut self) -> Step {
        if !self.entered || self.requests.len() < self.children || self.asked {
            return Step::Wait;
        }
        let Some(parent) = self.parent else { return self.done() };
        self.asked = true;
        let payload = encode_json(&self.pairs).unwrap_or_default();
        Step::Ask { parent, topic: self.topic.clone(), payload }
    }

    fn done(&mut self) -> Step {
        let (pairs, answers) = self.reset();
        Step::Done { pairs, answers }
    }

    fn reset(&mut self) -> (Pairs, Vec<Message>) {
        self.entered = false;
        self.asked = false;
        (std::mem::take(&mut self.pairs), std::mem::take(&mut self.requests))
    }
}

/// Send what has been gathered to the parent, and get everybody's.
pub(super) async fn ask(
    flux: &Client,
    parent: Nodeid,
    topic: &str,
    payload: Option<Bytes>,
) -> Result<Pairs, String> {
    let request = Request::new(topic).to(parent).payload(payload);
    let response = flux.rpc_raw(request).await.map_err(|e| e.to_string())?;
    decode_json(response.payload.as_ref()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::job;
    use flux_protocol::message::Matchtag;
    use serde_json::json;

    fn pairs(key: &str) -> Pairs {
        [(key.to_owned(), "v".to_owned())].into()
    }

    fn request(key: &str) -> Message {
        let payload = encode_json(&pairs(key)).unwrap();
        Message::request("s.pmi-exchange", Nodeid(3), Matchtag(7)).with_payload(payload)
    }

    #[test]
    fn the_leader_is_done_when_its_tasks_and_children_are_there() {
        let mut leader = Exchange::new(&job(0, json!({})), 0, &Log::new());
        assert!(matches!(leader.request(&request("b")), Ok(Step::Wait)));
        assert!(leader.request(&request("c")).is_err());
        let Step::Done { pairs, answers } = leader.enter(pairs("a")) else { panic!() };
        assert_eq!(pairs.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(answers.len(), 1);
        // The next round begins with nothing.
        let Step::Wait = leader.enter(Pairs::new()) else { panic!() };
        let Ok(Step::Done { pairs, .. }) = leader.request(&request("d")) else { panic!() };
        assert_eq!(pairs.keys().collect::<Vec<_>>(), ["d"]);
    }

    #[test]
    fn another_shell_asks_its_parent() {
        let mut shell = Exchange::new(&job(1, json!({})), 0, &Log::new());
        let Step::Ask { parent, topic, .. } = shell.enter(pairs("a")) else { panic!() };
        assert_eq!((parent, topic.as_str()), (Nodeid(3), "0-shell-fswiKeF.pmi-exchange"));
        let Step::Done { pairs, .. } = shell.answered(Ok(pairs("b")), &Log::new()) else {
            panic!()
        };
        assert_eq!(pairs.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert!(matches!(shell.enter(Pairs::new()), Step::Ask { .. }));
        let failed = shell.answered(Err("gone".to_owned()), &Log::new());
        assert!(matches!(failed, Step::Failed { .. }));
    }
}

//! Copies of messages for those who trace them (`overlay.trace`, `module.trace`).

use std::time::SystemTime;

use flux_protocol::message::{Kind, Message};
use flux_protocol::payload::text;
use flux_protocol::rpc::module::TraceResponse;
use serde_json::value::RawValue;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Received,
    Sent,
}

/// Which messages somebody wants to see.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Bits of [`flux_protocol::message::typemask`]; 0 for all.
    pub typemask: u32,
    /// Shell pattern; empty or `*` for all.
    pub topic_glob: String,
    /// With payloads and error texts.
    pub full: bool,
}

/// A message that went by.
#[derive(Debug, Clone)]
pub struct Traced {
    pub time: SystemTime,
    pub direction: Direction,
    /// The rank of the other end of an overlay link; none for an event to all children, and where
    /// no link was crossed.
    pub peer: Option<u32>,
    /// The module that sent or received it, where no link was crossed.
    pub module: Option<String>,
    pub message: Message,
}

// === impl Filter ===

impl Filter {
    /// The response to the tracer, unless it does not want to see this.
    pub fn apply(&self, traced: &Traced) -> Option<TraceResponse> {
        let mask = u32::from(traced.message.typemask());
        let wanted = self.typemask == 0 || self.typemask & mask != 0;
        (wanted && self.matches_topic(&traced.message)).then(|| traced.describe(self.full))
    }

    fn matches_topic(&self, message: &Message) -> bool {
        match self.topic_glob.as_str() {
            "" | "*" => true,
            // A message without a topic matches no other pattern.
            pattern => !message.topic.is_empty() && glob(pattern, &message.topic),
        }
    }
}

// === impl Traced ===

impl Traced {
    fn describe(&self, full: bool) -> TraceResponse {
        let Message { kind, payload, .. } = &self.message;
        let errnum = self.message.errnum();
        let size = payload.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let failed = errnum > 0;
        let json = || serde_json::from_str::<Box<RawValue>>(text(payload.as_ref()).ok()?).ok();
        TraceResponse {
            timestamp: crate::time::unix_seconds(self.time),
            prefix: match self.direction {
                Direction::Received => "rx".to_owned(),
                Direction::Sent => "tx".to_owned(),
            },
            rank: self.peer.map_or(-1, i64::from),
            name: self.module.clone(),
            kind: u32::from(self.message.typemask()),
            topic: match kind {
                Kind::Control { kind, status } => control_topic(*kind, *status),
                _ => self.message.topic.to_string(),
            },
            payload_size: if failed { 0 } else { size },
            payload: if full && !failed && size > 0 { json() } else { None },
            errnum,
            errstr: match text(payload.as_ref()) {
                Ok(text) if full && failed => text.to_owned(),
                _ => String::new(),
            },
        }
    }
}

fn control_topic(kind: u32, status: u32) -> String {
    let name = match kind {
        0 => "heartbeat",
        1 => "status",
        2 => "disconnect",
        _ => "unknown",
    };
    format!("{name} {status}")
}

/// Shell pattern matching: `*`, `?`, `[a-z]`, `[!a-z]`, `\` before a character that means itself.
pub fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut pattern, mut text) = (pattern.as_slice(), text.as_slice());
    // Where to go on, with one character more for it, when the last star took too little.
    let mut star: Option<(&[char], &[char])> = None;
    loop {
        match (pattern.split_first(), text.split_first()) {
            (Some(('*', rest)), _) => {
                star = Some((rest, text));
                pattern = rest;
                continue;
            }
            (Some(_), Some((c, text_rest))) => {
                if let Some(rest) = match_one(pattern, *c) {
                    (pattern, text) = (rest, text_rest);
                    continue;
                }
            }
            (None, None) => return true,
            _ => {}
        }
        match star {
            Some((after, from)) if !from.is_empty() => {
                let from = from.get(1..).unwrap_or_default();
                star = Some((after, from));
                (pattern, text) = (after, from);
            }
            _ => return false,
        }
    }
}

/// What is left of the pattern when its first element matches `c`.
fn match_one(pattern: &[char], c: char) -> Option<&[char]> {
    let (first, rest) = pattern.split_first()?;
    match first {
        '?' => Some(rest),
        '\\' if !rest.is_empty() => {
            let (literal, rest) = rest.split_first()?;
            (*literal == c).then_some(rest)
        }
        '[' => match match_set(rest, c) {
            Some((matched, rest)) => matched.then_some(rest),
            // Without its end a bracket means itself.
            None => (c == '[').then_some(rest),
        },
        literal => (*literal == c).then_some(rest),
    }
}

/// Is `c` in the set, and what follows its closing bracket?
fn match_set(set: &[char], c: char) -> Option<(bool, &[char])> {
    let (negated, mut rest) = match set.split_first()? {
        ('!' | '^', rest) => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    let mut first = true;
    loop {
        match rest {
            [']', after @ ..] if !first => return Some((found != negated, after)),
            [lo, '-', hi, after @ ..] if *hi != ']' => {
                found |= (*lo..=*hi).contains(&c);
                rest = after;
            }
            [one, after @ ..] => {
                found |= *one == c;
                rest = after;
            }
            [] => return None,
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_protocol::errno::Errno;
    use flux_protocol::message::{Matchtag, Nodeid, text_payload};

    #[test]
    fn patterns_are_those_of_the_shell() {
        for (pattern, text, expected) in [
            ("kvs.*", "kvs.lookup", true),
            ("kvs.*", "kvs-watch.lookup", false),
            ("*.get", "attr.get", true),
            ("*a*b", "xaxxbab", true),
            ("*a*b", "xaxxba", false),
            ("k?s", "kvs", true),
            ("k?s", "ks", false),
            ("[a-k]vs", "kvs", true),
            ("[!a-k]vs", "kvs", false),
            ("[]x]", "]", true),
            ("[ab", "[ab", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("", "a", false),
            ("***", "", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    fn traced(message: Message) -> Traced {
        let time = SystemTime::now();
        Traced { time, direction: Direction::Sent, peer: Some(3), module: None, message }
    }

    fn filter(typemask: u32, topic_glob: &str, full: bool) -> Filter {
        Filter { typemask, topic_glob: topic_glob.to_owned(), full }
    }

    #[test]
    fn request_is_described_with_its_payload_when_asked_for() {
        let message = Message::request("kvs.lookup", Nodeid::ANY, Matchtag(1))
            .with_payload(Some(text_payload("{\"key\":\"a\"}")));
        let traced = traced(message);
        assert!(filter(2, "*", true).apply(&traced).is_none());
        let seen = filter(15, "kvs.*", true).apply(&traced).unwrap();
        assert_eq!((seen.prefix.as_str(), seen.rank, seen.kind), ("tx", 3, 1));
        assert_eq!((seen.payload_size, seen.payload.unwrap().get()), (12, "{\"key\":\"a\"}"));
        assert!(filter(1, "", false).apply(&traced).unwrap().payload.is_none());
    }

    #[test]
    fn error_and_control_are_described_in_words() {
        let request = Message::request("a.b", Nodeid::ANY, Matchtag(1));
        let payload = Some(text_payload("no such thing"));
        let error = traced(Message::response(&request, Errno::ENOENT.0, payload));
        let seen = filter(0, "a.b", true).apply(&error).unwrap();
        assert_eq!((seen.errnum, seen.errstr.as_str(), seen.payload_size), (2, "no such thing", 0));
        let control = traced(Message::control(1, 2));
        assert_eq!(filter(8, "*", false).apply(&control).unwrap().topic, "status 2");
        assert!(filter(8, "a*", false).apply(&control).is_none());
    }
}

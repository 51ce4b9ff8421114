//! A signed request counts once.
//!
//! RFC 39 has MUNGE's own verdict on replays ignored, since ingest and the IMP of each node decode
//! the same credential. So it is here, where all ranks' submissions come together, that a request
//! which somebody hands in again is told from a new one. The memory lasts as long as the
//! signature does, and no longer than the instance: until then no other user can use what he has
//! seen of a request, because its signer must be its sender.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use flux_protocol::rpc::job_manager::Signed;

/// First half of a SHA-256 digest, which nobody finds a second text for.
type Key = [u8; 16];

/// The requests that became jobs.
#[derive(Debug, Default)]
pub struct Replay {
    taken: HashSet<Key>,
    /// By the second after which their signature is not believed any more.
    ends: BinaryHeap<Reverse<(u64, Key)>>,
}

impl Replay {
    /// `now` is in seconds since 1970. An error is the reason for a refusal.
    pub fn take(&mut self, request: &Signed, now: f64) -> Result<(), String> {
        self.forget_ended(now);
        let key = key(request).ok_or("the digest of the signed request is malformed")?;
        if !self.taken.insert(key) {
            let text = "this signed job request was submitted before (replayed): sign it anew";
            return Err(text.to_owned());
        }
        self.ends.push(Reverse((request.ends, key)));
        Ok(())
    }

    /// It did not become a job, and may be handed in again.
    pub fn forget(&mut self, request: &Signed) {
        if let Some(key) = key(request) {
            self.taken.remove(&key);
        }
    }

    fn forget_ended(&mut self, now: f64) {
        while let Some(Reverse((ends, key))) = self.ends.peek()
            && (*ends as f64) < now
        {
            self.taken.remove(key);
            self.ends.pop();
        }
    }
}

fn key(request: &Signed) -> Option<Key> {
    let digits = request.digest.get(..32)?;
    u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(first: char, ends: u64) -> Signed {
        Signed { digest: first.to_string().repeat(64), ends }
    }

    #[test]
    fn a_request_counts_once_as_long_as_its_signature_is_believed() {
        let mut replay = Replay::default();
        assert_eq!(replay.take(&signed('a', 100), 50.0), Ok(()));
        assert_eq!(replay.take(&signed('b', 200), 50.0), Ok(()));
        assert!(replay.take(&signed('a', 100), 100.0).unwrap_err().contains("replayed"));
        // The verifier refuses it from here on.
        assert_eq!(replay.take(&signed('c', 300), 100.5), Ok(()));
        assert_eq!((replay.taken.len(), replay.ends.len()), (2, 2));
        assert!(replay.take(&signed('b', 200), 100.5).is_err());
    }

    #[test]
    fn what_was_refused_for_another_reason_may_come_again() {
        let mut replay = Replay::default();
        assert_eq!(replay.take(&signed('a', 100), 1.0), Ok(()));
        replay.forget(&signed('a', 100));
        assert_eq!(replay.take(&signed('a', 100), 2.0), Ok(()));
        assert!(replay.take(&signed('a', 100), 3.0).is_err());
        // The first end does not take the second away before its own.
        assert_eq!(replay.take(&signed('b', 200), 101.0), Ok(()));
        assert_eq!((replay.taken.len(), replay.ends.len()), (1, 1));
    }

    #[test]
    fn a_digest_that_is_none_is_refused() {
        let mut replay = Replay::default();
        for digest in ["", "12", &"x".repeat(64), &"\u{e9}".repeat(20)] {
            let request = Signed { digest: digest.to_owned(), ends: 10 };
            assert!(replay.take(&request, 1.0).is_err(), "{digest}");
            replay.forget(&request);
        }
    }
}

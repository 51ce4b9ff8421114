//! A signed request counts once.
//!
//! RFC 39 has MUNGE's own verdict on replays ignored, since ingest and the IMP of each node decode
//! the same credential. So it is here, where all ranks' submissions come together, that a request
//! which somebody hands in again is told from a new one. The memory lasts as long as the
//! signature does, and no longer than the instance: until then no other user can use what he has
//! seen of a request, because its signer must be its sender.
//!
//! What is kept is bounded by time, and not by number. A request takes about 60 bytes here, and is
//! here only if it became a job, which takes kilobytes, of which its user may have as many as the
//! site allows. Beyond a number there would be two things to do: forget some of them, which is a
//! replay let in; or refuse new ones, which is what one user could do to all others by handing in
//! enough. A million jobs a day for the two weeks that signatures usually last are 0.8 GB; who
//! minds sets `[sign] max-ttl` to what jobs wait at most.

use std::collections::{BTreeMap, HashSet};

use flux_protocol::rpc::job_manager::Signed;

/// First half of a SHA-256 digest, which nobody finds a second text for.
type Key = [u8; 16];

/// The requests that became jobs.
#[derive(Debug, Default)]
pub struct Replay {
    taken: HashSet<Key>,
    /// By the second after which their signature is not believed any more.
    ends: BTreeMap<u64, Vec<Key>>,
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
        self.ends.entry(request.ends).or_default().push(key);
        Ok(())
    }

    /// It did not become a job, and may be handed in again. Nothing of it is left: else whoever
    /// hands in over and over what is refused would fill the memory.
    pub fn forget(&mut self, request: &Signed) {
        let Some(key) = key(request) else { return };
        if !self.taken.remove(&key) {
            return;
        }
        if let Some(keys) = self.ends.get_mut(&request.ends) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.ends.remove(&request.ends);
            }
        }
    }

    fn forget_ended(&mut self, now: f64) {
        while let Some(first) = self.ends.first_entry()
            && (*first.key() as f64) < now
        {
            for key in first.remove() {
                self.taken.remove(&key);
            }
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

    /// In both tables.
    fn kept(replay: &Replay) -> (usize, usize) {
        (replay.taken.len(), replay.ends.values().map(Vec::len).sum())
    }

    #[test]
    fn a_request_counts_once_as_long_as_its_signature_is_believed() {
        let mut replay = Replay::default();
        assert_eq!(replay.take(&signed('a', 100), 50.0), Ok(()));
        assert_eq!(replay.take(&signed('b', 200), 50.0), Ok(()));
        assert!(replay.take(&signed('a', 100), 100.0).unwrap_err().contains("replayed"));
        // The verifier refuses it from here on.
        assert_eq!(replay.take(&signed('c', 300), 100.5), Ok(()));
        assert_eq!(kept(&replay), (2, 2));
        assert!(replay.take(&signed('b', 200), 100.5).is_err());
    }

    #[test]
    fn what_was_refused_for_another_reason_may_come_again() {
        let mut replay = Replay::default();
        assert_eq!(replay.take(&signed('a', 100), 1.0), Ok(()));
        replay.forget(&signed('a', 100));
        assert_eq!(replay.take(&signed('a', 100), 2.0), Ok(()));
        assert!(replay.take(&signed('a', 100), 3.0).is_err());
        assert_eq!(replay.take(&signed('b', 100), 4.0), Ok(()));
        replay.forget(&signed('b', 100));
        assert_eq!(kept(&replay), (1, 1));
        assert_eq!(replay.take(&signed('b', 200), 101.0), Ok(()));
        assert_eq!(kept(&replay), (1, 1));
        for _ in 0..10 {
            replay.forget(&signed('b', 200));
            assert_eq!((kept(&replay), replay.ends.len()), ((0, 0), 0));
            assert_eq!(replay.take(&signed('b', 200), 102.0), Ok(()));
        }
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

//! Making job ids that are unique across brokers and restarts.

use super::{GENERATOR_BITS, JobId, SEQUENCE_BITS};

const TIMESTAMP_BITS: u32 = 40;

/// Hands out ascending job ids for one generator (one broker rank).
///
/// It owns no clock: the caller passes a monotonic time. When more than 1024 ids are asked for in
/// one millisecond the generator runs ahead of the clock instead of making the caller wait.
#[derive(Clone, Debug)]
pub struct Generator {
    id: u16,
    clock_zero_ms: u64,
    start_ms: u64,
    timestamp_ms: u64,
    next_sequence: u16,
}

/// No further id can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    #[error("generator id {0} is not below 16384")]
    GeneratorId(u32),
    #[error("the job id timestamp has reached its 40 bits")]
    Timestamp,
}

// === impl Generator ===

impl Generator {
    /// A generator whose clock reads `now_ms` now and whose ids begin at `start_ms`, which must be
    /// greater than the timestamp of every id that this generator made before a restart.
    pub fn new(id: u32, start_ms: u64, now_ms: u64) -> Result<Self, Exhausted> {
        let short = u16::try_from(id).ok().filter(|&id| id < 1 << GENERATOR_BITS);
        Ok(Self {
            id: short.ok_or(Exhausted::GeneratorId(id))?,
            clock_zero_ms: now_ms,
            start_ms,
            timestamp_ms: start_ms,
            next_sequence: 0,
        })
    }

    /// The next id at monotonic time `now_ms`.
    pub fn generate(&mut self, now_ms: u64) -> Result<JobId, Exhausted> {
        self.advance(now_ms);
        if u32::from(self.next_sequence) >= 1 << SEQUENCE_BITS {
            self.timestamp_ms += 1;
            self.next_sequence = 0;
        }
        if self.timestamp_ms >= 1 << TIMESTAMP_BITS {
            return Err(Exhausted::Timestamp);
        }
        let id = self.timestamp_ms << (GENERATOR_BITS + SEQUENCE_BITS)
            | u64::from(self.id) << SEQUENCE_BITS
            | u64::from(self.next_sequence);
        self.next_sequence += 1;
        Ok(JobId(id))
    }

    /// The timestamp that ids made at `now_ms` carry: what a successor must start above.
    pub fn timestamp_ms(&mut self, now_ms: u64) -> u64 {
        self.advance(now_ms);
        self.timestamp_ms
    }

    fn advance(&mut self, now_ms: u64) {
        let timestamp = self.start_ms.saturating_add(now_ms.saturating_sub(self.clock_zero_ms));
        if timestamp > self.timestamp_ms {
            self.timestamp_ms = timestamp;
            self.next_sequence = 0;
        }
    }
}

//! Job ids: FLUIDs, RFC 19. 40 bits of milliseconds, 14 bits of generator, 10 bits of sequence.

mod emoji;
mod generator;
mod text;
mod words;

pub use generator::{Exhausted, Generator};
pub use text::{Encoding, FluidError, UnknownEncoding, set_plain_f58, with_local_f58};

use serde::{Deserialize, Serialize};

const SEQUENCE_BITS: u32 = 10;
const GENERATOR_BITS: u32 = 14;

/// A job id. On the wire it is a number; people see [`JobId::f58`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

// === impl JobId ===

impl JobId {
    /// Milliseconds since the generator's epoch.
    pub fn timestamp_ms(self) -> u64 {
        self.0 >> (SEQUENCE_BITS + GENERATOR_BITS)
    }

    pub fn generator(self) -> u16 {
        ((self.0 >> SEQUENCE_BITS) & ((1 << GENERATOR_BITS) - 1)) as u16
    }

    pub fn sequence(self) -> u16 {
        (self.0 & ((1 << SEQUENCE_BITS) - 1)) as u16
    }
}

impl From<u64> for JobId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

impl From<JobId> for u64 {
    fn from(id: JobId) -> Self {
        id.0
    }
}

//! Limits of the cache, which module arguments can change.

use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Options {
    /// Clean blobs are removed while the cache is larger, in bytes,
    pub(super) purge_target: usize,
    /// unless they were used within this time.
    pub(super) purge_age: Duration,
    /// Blobs that are on their way to the broker above, or to the backing store, at a time.
    pub(super) flush_batch: usize,
    /// Larger blobs are refused, in bytes.
    pub(super) blob_limit: usize,
    /// On rank 0, who stores has to wait while more than this is dirty, in bytes.
    pub(super) dirty_limit: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            purge_target: 16 << 20,
            purge_age: Duration::from_secs(10),
            flush_batch: 1024,
            blob_limit: 1 << 30,
            dirty_limit: 64 << 20,
        }
    }
}

impl Options {
    /// EINVAL: an unknown name, or a value that is no number.
    pub(super) fn from_args(args: &[String]) -> Result<Options, Failure> {
        let mut options = Options::default();
        for arg in args {
            let number = |text: &str| {
                text.parse::<u32>()
                    .map(|n| n as usize)
                    .map_err(|_| Failure::new(Errno::EINVAL, format!("error parsing {arg}")))
            };
            match arg.split_once('=') {
                Some(("purge-target-size", n)) => options.purge_target = number(n)?,
                Some(("purge-old-entry", n)) => {
                    options.purge_age = Duration::from_secs(number(n)? as u64);
                }
                Some(("flush-batch-limit", n)) => options.flush_batch = number(n)?.max(1),
                Some(("blob-size-limit", n)) => options.blob_limit = number(n)?,
                Some(("dirty-limit", n)) => options.dirty_limit = number(n)?,
                _ => {
                    let text = format!("unknown module option: {arg}");
                    return Err(Failure::new(Errno::EINVAL, text));
                }
            }
        }
        Ok(options)
    }
}

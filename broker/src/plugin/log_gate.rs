//! Log lines of plugins: bounded in length and rate, then handed on.

use super::v1::types::Level;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest line, bytes.
const LINE_MAX: usize = 2048;
/// Lines a second, and how many may come at once.
const RATE: f64 = 100.0;
const BURST: f64 = 200.0;
/// How often it is said that lines were dropped, which is a line as well.
const TOLD: Duration = Duration::from_secs(1);

/// Where lines go: plugin, level, text without a newline. Called on the plugin's thread.
pub type LogSink = Arc<dyn Fn(&str, Level, &str) + Send + Sync>;

/// The gate of one plugin.
#[derive(Clone)]
pub(super) struct LogGate {
    sink: LogSink,
    bucket: Arc<Mutex<Bucket>>,
    dropped: Arc<AtomicU64>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
    muted: u64,
    told: Option<Instant>,
}

impl fmt::Debug for LogGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogGate").finish_non_exhaustive()
    }
}

impl LogGate {
    /// A gate in front of `sink`.
    pub(super) fn new(sink: LogSink) -> Self {
        let bucket = Bucket { tokens: BURST, filled: Instant::now(), muted: 0, told: None };
        LogGate { sink, bucket: Arc::new(Mutex::new(bucket)), dropped: Arc::default() }
    }

    /// Passes a text on, line by line, or drops it.
    pub(super) fn line(&self, plugin: &str, level: Level, text: &str) {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match self.take() {
                Some(0) => {}
                Some(muted) => {
                    let text = format!("{muted} lines dropped: logging too fast");
                    (self.sink)(plugin, Level::Warning, &text);
                }
                None => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            }
            let end = line.floor_char_boundary(LINE_MAX);
            (self.sink)(plugin, level, line.get(..end).unwrap_or(line));
        }
    }

    /// Lines dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Whether a line may pass, and how many dropped ones are to be told of before it.
    fn take(&self) -> Option<u64> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gained = now.duration_since(bucket.filled).as_secs_f64() * RATE;
        bucket.tokens = (bucket.tokens + gained).min(BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            bucket.muted += 1;
            return None;
        }
        bucket.tokens -= 1.0;
        if bucket.muted == 0 || bucket.told.is_some_and(|told| now.duration_since(told) < TOLD) {
            return Some(0);
        }
        bucket.told = Some(now);
        Some(std::mem::take(&mut bucket.muted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let start = Instant::now();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = lines.clone();
        let gate = LogGate::new(Arc::new(move |_, _, text| {
            seen.lock().unwrap().push(text.to_owned());
        }));
        for i in 0..10_000 {
            gate.line("p", Level::Info, &format!("line {i}\n"));
        }
        let lines = lines.lock().unwrap();
        let told = lines.iter().filter(|line| line.ends_with("dropped: logging too fast")).count();
        assert!(told as u64 <= 1 + start.elapsed().as_secs(), "{told}");
        let passed = lines.len();
        assert!((200..2000).contains(&passed), "{passed}");
        assert!(gate.dropped() > 8000);
    }
}

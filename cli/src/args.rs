//! Values of options that many commands have.

use std::time::Duration;

use flux_protocol::fsd;

/// A duration in Flux's notation (`1.5s`, `2m`, `inf` is none), for clap.
pub fn duration(text: &str) -> Result<Duration, String> {
    let seconds = fsd::parse(text).map_err(|_| format!("Invalid duration '{text}'"))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("Invalid duration '{text}'"))
}

/// Wait for `future`, without limit where there is none.
pub async fn within<T>(limit: Option<Duration>, future: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, future).await.ok(),
        None => Some(future.await),
    }
}

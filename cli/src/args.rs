//! Values of options that many commands have.

use std::time::Duration;

use flux_protocol::fsd;

/// A duration in Flux's notation (`1.5s`, `2m`, `inf` is none), for clap.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = fsd::parse(text).map_err(|_| format!("Invalid duration '{text}'"))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("Invalid duration '{text}'"))
}

/// Wait for `future`, without limit where there is none.
pub(crate) async fn within<T>(
    limit: Option<Duration>,
    future: impl Future<Output = T>,
) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, future).await.ok(),
        None => Some(future.await),
    }
}

/// A number of bytes, with a factor of 1024 per letter of `KMGTPE`, for clap.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("invalid size '{text}'");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let power = match unit.to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        "E" => 6,
        _ => return Err(bad()),
    };
    let number: f64 = digits.parse().map_err(|_| bad())?;
    let bytes = number * 1024f64.powi(power);
    if !(0.0..=u64::MAX as f64).contains(&bytes) {
        return Err(bad());
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(size("300"), Ok(300));
        assert_eq!(size("4k"), Ok(4096));
        assert_eq!(size("1.5M"), Ok(1_572_864));
        assert!(size("-1").is_err() && size("1X").is_err() && size("").is_err());
    }

    #[test]
    fn durations_are_flux_durations() {
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("bad").is_err());
    }
}

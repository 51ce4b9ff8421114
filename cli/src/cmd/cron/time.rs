//! Times as `flux cron` reads and writes them.

use serde_json::Value;

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;

/// Seconds since 1970.
pub(super) fn now() -> f64 {
    jiff::Timestamp::now().as_microsecond() as f64 / 1e6
}

/// A number and one of `s m h d` in either case, seconds without one.
pub(super) fn parse_time(text: &str) -> Result<f64, String> {
    let unit = text.chars().last().filter(char::is_ascii_alphabetic);
    let scale = match unit.map(|unit| unit.to_ascii_lowercase()) {
        None | Some('s') => Some(1.0),
        Some('m') => Some(MINUTE),
        Some('h') => Some(HOUR),
        Some('d') => Some(DAY),
        Some(_) => None,
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = digits.parse::<f64>().ok().filter(|_| plain);
    match (number, scale, text.len() - digits.len()) {
        (Some(number), Some(scale), 0 | 1) => Ok(number * scale),
        _ => Err(format!("Invalid duration '{text}'")),
    }
}

/// The five fields of a line of crontab(5), and its command.
pub(super) fn crontab(line: &str) -> Option<(Vec<(&'static str, Value)>, String)> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let mut rest = line;
    let mut args = Vec::new();
    for name in ["minute", "hour", "mday", "month", "weekday"] {
        let (field, after) = rest.split_once(char::is_whitespace)?;
        args.push((name, Value::from(field)));
        rest = after.trim_start();
    }
    args.push(("second", Value::from(0)));
    (!rest.is_empty()).then(|| (args, rest.to_owned()))
}

/// How long ago something was, roughly.
pub(super) fn ago(time: f64) -> String {
    let seconds = now() - time;
    if seconds < 0.0 {
        return "in the future".to_owned();
    }
    if seconds < 2.0 {
        return "a second ago".to_owned();
    }
    if seconds < 90.0 {
        return format!("{} seconds ago", (seconds + 0.5).floor());
    }
    let minutes = seconds / MINUTE;
    if minutes < 2.0 {
        return "a minute ago".to_owned();
    }
    if minutes < 90.0 {
        return format!("{} minutes ago", (minutes + 0.5).floor());
    }
    let hours = seconds / HOUR;
    if hours < 36.0 {
        return format!("{hours:.1} hours ago");
    }
    let days = seconds / DAY;
    match days {
        days if days < 14.0 => format!("{days:.1} days ago"),
        days if days < 70.0 => format!("{} weeks ago", ((days + 3.0) / 7.0).floor()),
        days if days < 365.0 => format!("{} months ago", ((days + 15.0) / 30.0).floor()),
        days => format!("{:.1} years ago", days / 365.0),
    }
}

/// How long something took.
pub(super) fn took(seconds: f64) -> String {
    match seconds {
        s if s > DAY => format!("{:.3}d", s / DAY),
        s if s > HOUR => format!("{:.3}h", s / HOUR),
        s if s > MINUTE => format!("{:.3}m", s / MINUTE),
        s if s > 1.0 => format!("{s:.3}s"),
        s => format!("{:.2}ms", s * 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_take_one_unit() {
        assert_eq!(parse_time("30s"), Ok(30.0));
        assert_eq!(parse_time("1.5M"), Ok(90.0));
        assert_eq!(parse_time("2d"), Ok(172_800.0));
        for bad in ["", "bad", "-1s", "1ms", "1x", "1 s"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn crontab_lines_have_five_fields_and_a_command() {
        let (args, command) = crontab("0 * 1,2 * *  hostname -f # comment").unwrap();
        assert_eq!(command, "hostname -f");
        assert!(args.contains(&("mday", Value::from("1,2"))));
        assert!(args.contains(&("second", Value::from(0))));
        assert_eq!(crontab("0 * * * *"), None);
    }
}

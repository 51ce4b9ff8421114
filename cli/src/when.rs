//! Points in time as users write them: `now`, `-2h`, `+30m`, `2026-11-22 15:00`, `14:30`,
//! `yesterday`, `3 hours ago`.

use flux_protocol::fsd;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Zoned};

/// Text that means no point in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid datetime: \"{0}\"")]
pub(crate) struct BadTime(String);

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    Timestamp::now().as_microsecond() as f64 / 1e6
}

/// Seconds since 1970; what is relative is to `now`, what has no zone is local time.
pub(crate) fn parse(text: &str, now: f64) -> Result<f64, BadTime> {
    let bad = || BadTime(text.to_owned());
    if text == "now" {
        return Ok(now);
    }
    let offset = |text: &str| fsd::python_parse(text).map_err(|_| bad());
    if let Some(duration) = text.strip_prefix('+') {
        return Ok(now + offset(duration)?);
    }
    if let Some(duration) = text.strip_prefix('-') {
        return Ok(now - offset(duration)?);
    }
    let here = Timestamp::from_microsecond((now * 1e6) as i64)
        .map_err(|_| bad())?
        .to_zoned(TimeZone::system());
    let found = words(text, &here).or_else(|| calendar(text, &here)).ok_or_else(bad)?;
    Ok(found.timestamp().as_microsecond() as f64 / 1e6)
}

/// `today`, `tomorrow at 8am`, `noon`, `2 days ago`, `in 5 minutes`.
fn words(text: &str, now: &Zoned) -> Option<Zoned> {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().filter(|word| *word != "at").collect();
    match words.as_slice() {
        [count, unit, "ago"] => now.checked_sub(span(count, unit)?).ok(),
        ["in", count, unit] | [count, unit, "from", "now"] => {
            now.checked_add(span(count, unit)?).ok()
        }
        [day] => day_word(day, now)?.start_of_day().ok().or(None),
        [day, time] => day_word(day, now)?.with().time(clock(time)?).build().ok(),
        _ => None,
    }
}

fn day_word(word: &str, now: &Zoned) -> Option<Zoned> {
    match word {
        "today" => Some(now.clone()),
        "yesterday" => now.checked_sub(1.day()).ok(),
        "tomorrow" => now.checked_add(1.day()).ok(),
        _ => None,
    }
}

fn span(count: &str, unit: &str) -> Option<Span> {
    let count: i64 = match count {
        "a" | "an" | "one" => 1,
        count => count.parse().ok().filter(|count| (0..1_000_000).contains(count))?,
    };
    Some(match unit.trim_end_matches('s') {
        "sec" | "second" => count.seconds(),
        "min" | "minute" => count.minutes(),
        "hr" | "hour" => count.hours(),
        "day" => count.days(),
        "week" => count.weeks(),
        "month" => count.months(),
        "year" => count.years(),
        _ => return None,
    })
}

/// `15:00`, `15:00:30`, `3pm`, `3:30pm`, `noon`, `midnight`.
fn clock(text: &str) -> Option<Time> {
    match text {
        "noon" => return Some(Time::constant(12, 0, 0, 0)),
        "midnight" => return Some(Time::midnight()),
        _ => {}
    }
    let (digits, half) = match (text.strip_suffix("am"), text.strip_suffix("pm")) {
        (Some(digits), _) => (digits, Some(0)),
        (_, Some(digits)) => (digits, Some(12)),
        _ => (text, None),
    };
    let mut parts = digits.trim().split(':');
    let hour: i8 = parts.next()?.parse().ok()?;
    let minute = parts.next().map(str::parse);
    if half.is_none() && minute.is_none() {
        return None;
    }
    let hour = match half {
        Some(half) => (1..=12).contains(&hour).then_some(hour % 12 + half)?,
        None => hour,
    };
    let second = parts.next().map_or(Ok(0), str::parse).ok()?;
    if parts.next().is_some() {
        return None;
    }
    Time::new(hour, minute.unwrap_or(Ok(0)).ok()?, second, 0).ok()
}

/// Dates and times of day.
fn calendar(text: &str, now: &Zoned) -> Option<Zoned> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.to_zoned(TimeZone::system()));
    }
    if let Some(time) = clock(&text.to_lowercase()) {
        return now.with().time(time).build().ok();
    }
    if let Ok(datetime) = text.parse::<DateTime>() {
        return datetime.to_zoned(TimeZone::system()).ok();
    }
    ["%m/%d/%Y", "%m/%d/%Y %H:%M", "%Y-%m-%d %H:%M", "%b %d %Y", "%b %d %Y %H:%M"].iter().find_map(
        |format| {
            let parsed = jiff::fmt::strtime::parse(format, text).ok()?;
            let time = parsed.to_time().unwrap_or_else(|_| Time::midnight());
            parsed.to_date().ok()?.to_datetime(time).to_zoned(TimeZone::system()).ok()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: f64 = 1_700_000_000.0;

    fn delta(text: &str) -> f64 {
        parse(text, NOW).unwrap() - NOW
    }

    #[test]
    fn offsets_are_flux_durations() {
        assert_eq!(delta("now"), 0.0);
        assert_eq!(delta("+1.5h"), 5400.0);
        assert_eq!(delta("-2m"), -120.0);
        assert!(parse("+x", NOW).is_err());
    }

    #[test]
    fn people_count_backwards_and_forwards() {
        assert_eq!(delta("3 hours ago"), -10_800.0);
        assert_eq!(delta("in 5 minutes"), 300.0);
        assert_eq!(delta("2 min from now"), 120.0);
        assert_eq!(delta("a week ago"), -7.0 * 86_400.0);
    }

    #[test]
    fn dates_are_local_unless_they_have_a_zone() {
        assert_eq!(parse("2023-11-14T22:13:20Z", 0.0), Ok(NOW));
        let local = parse("2023-11-14 22:13", NOW).unwrap();
        assert_eq!(parse("2023-11-14T22:13:00", NOW), Ok(local));
        assert_eq!(parse("11/14/2023 22:13", NOW), Ok(local));
        let noon = parse("12:00", NOW).unwrap();
        assert_eq!(parse("noon", NOW).or(parse("today noon", NOW)), Ok(noon));
        assert_eq!(parse("today at 12pm", NOW), Ok(noon));
        assert_eq!(parse("yesterday 12:00:00", NOW), Ok(noon - 86_400.0));
        for bad in ["", "soon", "25:00", "13pm", "3 moons ago", "1"] {
            assert_eq!(parse(bad, NOW), Err(BadTime(bad.to_owned())));
        }
    }
}

//! Points in time as people write them: `now`, `-2h`, `+30m`, `2026-11-22 15:00`, `3pm`,
//! `tomorrow noon`, `3 hours ago`, `in 5 minutes`.

use flux_protocol::fsd;
use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan as _, Zoned};

const WEEKDAYS: [(&str, Weekday); 7] = [
    ("monday", Weekday::Monday),
    ("tuesday", Weekday::Tuesday),
    ("wednesday", Weekday::Wednesday),
    ("thursday", Weekday::Thursday),
    ("friday", Weekday::Friday),
    ("saturday", Weekday::Saturday),
    ("sunday", Weekday::Sunday),
];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Text that means no point in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadTime {
    #[error("Invalid datetime: \"{0}\"")]
    Time(String),
    #[error("invalid Flux standard duration")]
    Duration,
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    Timestamp::now().as_microsecond() as f64 / 1e6
}

/// Seconds since 1970; what is relative is to `now`, what has no zone is local time.
pub(crate) fn parse(text: &str, now: f64) -> Result<f64, BadTime> {
    let bad = || BadTime::Time(text.to_owned());
    let now = Timestamp::from_microsecond((now * 1e6) as i64).map_err(|_| bad())?;
    parse_at(text, &now.to_zoned(TimeZone::system()))
}

/// The local zone is that of `now`.
fn parse_at(text: &str, now: &Zoned) -> Result<f64, BadTime> {
    let seconds = |time: Timestamp| time.as_microsecond() as f64 / 1e6;
    if text == "now" {
        return Ok(seconds(now.timestamp()));
    }
    let offset = |text: &str| fsd::python_parse(text).map_err(|_| BadTime::Duration);
    if let Some(duration) = text.strip_prefix('+') {
        return Ok(seconds(now.timestamp()) + offset(duration)?);
    }
    if let Some(duration) = text.strip_prefix('-') {
        return Ok(seconds(now.timestamp()) - offset(duration)?);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(seconds(time));
    }
    let found = Words::read(text, now).and_then(|words| words.resolve(now));
    Ok(seconds(found.ok_or_else(|| BadTime::Time(text.to_owned()))?.timestamp()))
}

/// What the words have said so far.
#[derive(Debug, Default)]
struct Words {
    date: Option<Date>,
    time: Option<Time>,
    /// From now.
    offset: Option<Span>,
    /// The offset is one to the past.
    ago: bool,
}

impl Words {
    fn read(text: &str, now: &Zoned) -> Option<Words> {
        let text = text.to_lowercase().replace(',', " ");
        let parts: Vec<&str> = text.split_whitespace().collect();
        let mut words = Words::default();
        let mut at = 0;
        while let Some(rest) = parts.get(at..).filter(|rest| !rest.is_empty()) {
            at += words.take(rest, now)?;
        }
        Some(words)
    }

    fn resolve(&self, now: &Zoned) -> Option<Zoned> {
        if let Some(offset) = self.offset {
            let time = if self.ago { now.checked_sub(offset) } else { now.checked_add(offset) };
            return time.ok();
        }
        if self.ago {
            return None;
        }
        let date = match (self.date, self.time) {
            (None, None) => return None,
            (date, _) => date.unwrap_or_else(|| now.date()),
        };
        let time = self.time.unwrap_or(Time::midnight());
        DateTime::from_parts(date, time).to_zoned(now.time_zone().clone()).ok()
    }

    /// Understand what `words` begin with; the number of words that it took.
    fn take(&mut self, words: &[&str], now: &Zoned) -> Option<usize> {
        let (first, rest) = words.split_first()?;
        match *first {
            "at" | "on" | "next" | "in" => {}
            "from" if rest.first() == Some(&"now") => return Some(2),
            "ago" => self.ago = true,
            "a" | "an" | "one" => {
                self.add(span(1, rest.first()?)?)?;
                return Some(2);
            }
            "today" => self.date = Some(now.date()),
            "tomorrow" => self.date = Some(now.date().checked_add(1.day()).ok()?),
            "yesterday" => self.date = Some(now.date().checked_sub(1.day()).ok()?),
            "noon" => self.time = Some(Time::new(12, 0, 0, 0).ok()?),
            "midnight" => self.time = Some(Time::midnight()),
            word => {
                if let Some(day) = weekday(word) {
                    self.date = Some(now.date().nth_weekday(1, day).ok()?);
                } else if let Some(month) = month(word) {
                    return self.take_month_and_day(month, rest, now);
                } else if let Some((date, time)) = word.split_once('t')
                    && let Some(date) = calendar_date(date)
                {
                    self.date = Some(date);
                    self.time = Some(clock(time)?);
                } else if let Some(date) = calendar_date(word) {
                    self.date = Some(date);
                } else {
                    return self.take_number(word, rest);
                }
            }
        }
        Some(1)
    }

    /// `dec 24 2026`, the year of today if there is none.
    fn take_month_and_day(&mut self, month: i8, rest: &[&str], now: &Zoned) -> Option<usize> {
        let day = rest.first()?.trim_end_matches(|c: char| c.is_alphabetic()).parse().ok()?;
        let year = rest.get(1).filter(|word| word.len() == 4).and_then(|word| word.parse().ok());
        self.date = Some(Date::new(year.unwrap_or(now.date().year()), month, day).ok()?);
        Some(if year.is_some() { 3 } else { 2 })
    }

    /// `15:30`, `3pm`, `3 pm`, `5 minutes`, `2h`.
    fn take_number(&mut self, word: &str, rest: &[&str]) -> Option<usize> {
        if let Some(time) = clock(word) {
            let half = rest.first().filter(|word| matches!(**word, "am" | "pm"));
            self.time = Some(match half {
                Some(half) => clock(&format!("{word}{half}"))?,
                None => time,
            });
            return Some(1 + usize::from(half.is_some()));
        }
        let digits = word.trim_end_matches(|c: char| c.is_alphabetic());
        let (unit, used) = match word.get(digits.len()..).unwrap_or_default() {
            "" => (*rest.first()?, 2),
            unit => (unit, 1),
        };
        if matches!(unit, "am" | "pm") {
            self.time = Some(clock(&format!("{digits}{unit}"))?);
            return Some(used);
        }
        self.add(span(digits.parse().ok()?, unit)?)?;
        Some(used)
    }

    fn add(&mut self, offset: Span) -> Option<()> {
        // More than one would need rules for what months and hours add up to.
        self.offset.replace(offset).is_none().then_some(())
    }
}

fn weekday(word: &str) -> Option<Weekday> {
    let is_meant = |name: &str| word == name || (word.len() >= 3 && name.starts_with(word));
    WEEKDAYS.iter().find(|(name, _)| is_meant(name)).map(|(_, day)| *day)
}

fn month(word: &str) -> Option<i8> {
    if !word.chars().all(char::is_alphabetic) {
        return None;
    }
    let at = MONTHS.iter().position(|name| word.starts_with(name))?;
    i8::try_from(at + 1).ok()
}

/// `2026-12-24`, `12/24/2026`
fn calendar_date(word: &str) -> Option<Date> {
    let numbers = |by: char| {
        let parts: Option<Vec<i16>> = word.split(by).map(|part| part.parse().ok()).collect();
        <[i16; 3]>::try_from(parts?).ok()
    };
    let [year, month, day] = numbers('-').or_else(|| {
        let [month, day, year] = numbers('/')?;
        Some([year, month, day])
    })?;
    Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

/// `15:30`, `15:30:05`, `3pm`, `3:30pm`
fn clock(word: &str) -> Option<Time> {
    let digits = word.trim_end_matches(['a', 'p', 'm']);
    let half = word.get(digits.len()..)?;
    if half.is_empty() && !digits.contains(':') {
        return None;
    }
    let mut parts = digits.split(':').map(|part| part.parse::<i8>().ok());
    let hour = parts.next()??;
    let minute = parts.next().unwrap_or(Some(0))?;
    let second = parts.next().unwrap_or(Some(0))?;
    let hour = match (half, hour) {
        ("", hour) => hour,
        ("am", 12) => 0,
        ("am", hour @ 1..=11) | ("pm", hour @ 12) => hour,
        ("pm", hour @ 1..=11) => hour + 12,
        _ => return None,
    };
    Time::new(hour, minute, second, 0).ok()
}

fn span(count: i64, unit: &str) -> Option<Span> {
    if !(0..1_000_000).contains(&count) {
        return None;
    }
    Some(match unit.strip_suffix('s').filter(|unit| !unit.is_empty()).unwrap_or(unit) {
        "s" | "sec" | "second" => count.seconds(),
        "m" | "min" | "minute" => count.minutes(),
        "h" | "hr" | "hour" => count.hours(),
        "d" | "day" => count.days(),
        "week" => count.weeks(),
        "month" => count.months(),
        "year" => count.years(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Tuesday.
    fn at(text: &str) -> Option<String> {
        let now: Zoned = "2026-11-24T15:20:10[UTC]".parse().unwrap();
        let seconds = parse_at(text, &now).ok()?;
        let timestamp = Timestamp::from_second(seconds as i64).unwrap();
        Some(timestamp.to_string())
    }

    #[test]
    fn times_are_understood_as_people_write_them() {
        for (text, expected) in [
            ("now", "2026-11-24T15:20:10Z"),
            ("+1h", "2026-11-24T16:20:10Z"),
            ("-10s", "2026-11-24T15:20:00Z"),
            ("3pm", "2026-11-24T15:00:00Z"),
            ("3:30 pm", "2026-11-24T15:30:00Z"),
            ("12am", "2026-11-24T00:00:00Z"),
            ("15:45", "2026-11-24T15:45:00Z"),
            ("tomorrow", "2026-11-25T00:00:00Z"),
            ("noon tomorrow", "2026-11-25T12:00:00Z"),
            ("tomorrow at 4pm", "2026-11-25T16:00:00Z"),
            ("friday", "2026-11-27T00:00:00Z"),
            ("next mon 8:00", "2026-11-30T08:00:00Z"),
            ("2026-12-24 18:00", "2026-12-24T18:00:00Z"),
            ("2026-12-24T18:00:01", "2026-12-24T18:00:01Z"),
            ("dec 24, 2027 6pm", "2027-12-24T18:00:00Z"),
            ("12/24/2026", "2026-12-24T00:00:00Z"),
            ("in 5 minutes", "2026-11-24T15:25:10Z"),
            ("2026-12-24T18:00:01Z", "2026-12-24T18:00:01Z"),
            ("2026-12-24T18:00:01+02:00", "2026-12-24T16:00:01Z"),
            ("2 hours", "2026-11-24T17:20:10Z"),
        ] {
            assert_eq!(at(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", "soon", "25:00", "13pm", "+x", "2026-13-01", "5 parsecs", "at"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    const NOW: f64 = 1_700_000_000.0;

    fn delta(text: &str) -> f64 {
        parse(text, NOW).unwrap() - NOW
    }

    #[test]
    fn offsets_are_flux_durations() {
        assert_eq!(delta("now"), 0.0);
        assert_eq!(delta("+1.5h"), 5400.0);
        assert_eq!(delta("-2m"), -120.0);
        assert_eq!(parse("+x", NOW), Err(BadTime::Duration));
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
            assert_eq!(parse(bad, NOW), Err(BadTime::Time(bad.to_owned())));
        }
    }
}

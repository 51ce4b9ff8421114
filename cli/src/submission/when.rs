//! Times as people write them: `+1h`, `3pm`, `tomorrow noon`, `2026-12-24 18:00`, `in 5 minutes`.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::{SignedDuration, ToSpan as _, Zoned};

use super::refuse;
use crate::failure::Failure;

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

/// Seconds since the epoch of a time that is relative to `now`, or of this zone.
pub(crate) fn parse(text: &str, now: &Zoned) -> Result<f64, Failure> {
    let invalid = || refuse(format_args!("Invalid datetime: \"{text}\""));
    let now_seconds = now.timestamp().as_duration().as_secs_f64();
    if text == "now" {
        return Ok(now_seconds);
    }
    if let Some((sign, offset)) = text
        .strip_prefix('+')
        .map(|rest| (1.0, rest))
        .or_else(|| text.strip_prefix('-').map(|rest| (-1.0, rest)))
    {
        let seconds = flux_protocol::fsd::parse(offset)
            .map_err(|_| refuse("invalid Flux standard duration"))?;
        return Ok(now_seconds + sign * seconds);
    }
    let mut words = Words::default();
    let text = text.to_lowercase().replace(',', " ");
    let parts: Vec<&str> = text.split_whitespace().collect();
    let mut at = 0;
    while let Some(rest) = parts.get(at..).filter(|rest| !rest.is_empty()) {
        at += words.take(rest, now).ok_or_else(invalid)?;
    }
    let when = words.resolve(now).ok_or_else(invalid)?;
    Ok(when.timestamp().as_duration().as_secs_f64())
}

/// What the words have said so far.
#[derive(Debug, Default)]
struct Words {
    date: Option<Date>,
    time: Option<Time>,
    /// From now.
    offset: Option<SignedDuration>,
}

impl Words {
    fn resolve(&self, now: &Zoned) -> Option<Zoned> {
        if let Some(offset) = self.offset {
            return now.checked_add(offset).ok();
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
            "at" | "on" | "next" | "in" => return Some(1),
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
                    self.time = Some(clock(time.trim_end_matches('z'))?);
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
        let number: f64 = digits.parse().ok()?;
        let (unit, used) = match word.get(digits.len()..).unwrap_or_default() {
            "" => (*rest.first()?, 2),
            unit => (unit, 1),
        };
        if matches!(unit, "am" | "pm") {
            self.time = Some(clock(&format!("{digits}{unit}"))?);
            return Some(used);
        }
        let offset = SignedDuration::try_from_secs_f64(number * unit_seconds(unit)?).ok()?;
        self.offset = Some(self.offset.unwrap_or_default().checked_add(offset)?);
        Some(used)
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

fn unit_seconds(unit: &str) -> Option<f64> {
    match unit.strip_suffix('s').filter(|unit| !unit.is_empty()).unwrap_or(unit) {
        "s" | "sec" | "second" => Some(1.0),
        "m" | "min" | "minute" => Some(60.0),
        "h" | "hr" | "hour" => Some(3600.0),
        "d" | "day" => Some(86400.0),
        "week" => Some(7.0 * 86400.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Tuesday.
    fn at(text: &str) -> Option<String> {
        let now: Zoned = "2026-11-24T15:20:10[UTC]".parse().unwrap();
        let seconds = parse(text, &now).ok()?;
        let timestamp = jiff::Timestamp::from_second(seconds as i64).unwrap();
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
}

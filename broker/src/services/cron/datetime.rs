//! Sets of seconds, minutes, hours and so on, and the next time that is in all of them.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::idset::Idset;
use flux_protocol::payload::Object;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::Value;

/// Which times of the local clock are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Datetime {
    fields: [Field; 7],
}

/// A field, in the units of struct tm: months from 0, years from 1900, Sunday is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    unit: Unit,
    set: Idset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
    Mday,
    Month,
    Year,
    Weekday,
}

const WEEKDAYS: [&str; 7] =
    ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

// === impl Unit ===

impl Unit {
    const ALL: [Unit; 7] = [
        Unit::Second,
        Unit::Minute,
        Unit::Hour,
        Unit::Mday,
        Unit::Month,
        Unit::Year,
        Unit::Weekday,
    ];

    fn name(self) -> &'static str {
        match self {
            Unit::Second => "second",
            Unit::Minute => "minute",
            Unit::Hour => "hour",
            Unit::Mday => "mday",
            Unit::Month => "month",
            Unit::Year => "year",
            Unit::Weekday => "weekday",
        }
    }

    fn range(self) -> (u32, u32) {
        match self {
            Unit::Second => (0, 60),
            Unit::Minute => (0, 59),
            Unit::Hour => (0, 23),
            Unit::Mday => (1, 31),
            Unit::Month => (0, 11),
            Unit::Year => (0, 1100),
            Unit::Weekday => (0, 6),
        }
    }

    /// A number, or the beginning of a weekday's or month's name.
    fn number(self, text: &str) -> Option<u32> {
        if let Ok(number) = text.parse() {
            return Some(number);
        }
        let names: &[&str] = match self {
            Unit::Weekday => &WEEKDAYS,
            Unit::Month => &MONTHS,
            _ => return None,
        };
        let text = text.to_ascii_lowercase();
        let at = names.iter().position(|name| !text.is_empty() && name.starts_with(&text))?;
        u32::try_from(at).ok()
    }

    /// `*`, `3`, `1-5`, `*/10`, `mon,wed`.
    fn set(self, text: &str) -> Option<Idset> {
        let (min, max) = self.range();
        let mut set = Idset::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (range, stride) = match part.split_once('/') {
                Some((range, stride)) => (range, stride.parse().ok().filter(|n| *n > 0)?),
                None => (part, 1),
            };
            let (low, high) = match range.split_once('-') {
                _ if range == "*" => (min, max),
                Some((low, high)) => (self.number(low)?, self.number(high)?),
                None => (self.number(range)?, self.number(range)?),
            };
            if low < min || high > max || low > high {
                return None;
            }
            for id in (low..=high).step_by(stride) {
                set.insert(id);
            }
        }
        (!set.is_empty()).then_some(set)
    }
}

// === impl Datetime ===

impl Datetime {
    /// From the arguments of `cron.create`; what is not named is any. EINVAL.
    pub(super) fn parse(args: &Object) -> Result<Datetime, Failure> {
        let mut fields = Unit::ALL.map(|unit| {
            let (min, max) = unit.range();
            Field { unit, set: Idset::from_range(min, max) }
        });
        for field in &mut fields {
            let Some(value) = args.get(field.unit.name()) else { continue };
            let set = match value {
                Value::String(text) => field.unit.set(text),
                Value::Number(number) => field.unit.set(&number.to_string()),
                _ => None,
            };
            field.set = set.ok_or_else(|| {
                let text = format!("{}: {value} is no such time", field.unit.name());
                Failure::new(Errno::EINVAL, text)
            })?;
        }
        Ok(Datetime { fields })
    }

    /// As `typedata` shows the fields.
    pub(super) fn describe(&self) -> Object {
        let pair =
            |field: &Field| (field.unit.name().to_owned(), Value::from(field.set.to_string()));
        self.fields.iter().map(pair).collect()
    }

    /// The first time after `now` (seconds since 1970) that is in all fields.
    pub(super) fn next(&self, now: f64, zone: &TimeZone) -> Option<f64> {
        let after = Timestamp::from_second(now.floor() as i64).ok()?;
        let mut from = zone.to_datetime(after).checked_add(1.second()).ok()?;
        loop {
            let civil = self.first_from(from)?;
            let time = zone.to_ambiguous_timestamp(civil).compatible().ok()?;
            // In the hour that is there twice, the second time may be asked for.
            if time > after {
                return Some(time.as_second() as f64);
            }
            from = civil.checked_add(1.second()).ok()?;
        }
    }

    fn first_from(&self, from: DateTime) -> Option<DateTime> {
        // No day has a time for it.
        self.first_time(jiff::civil::Time::midnight())?;
        let mut date = from.date();
        let mut earliest = from.time();
        loop {
            match self.next_date(date)? {
                same if same == date => {}
                later => {
                    date = later;
                    earliest = jiff::civil::Time::midnight();
                }
            }
            if let Some(time) = self.first_time(earliest) {
                return Some(date.to_datetime(time));
            }
            date = date.tomorrow().ok()?;
            earliest = jiff::civil::Time::midnight();
        }
    }

    /// The first day from `date` on that is in the sets of days, months and years.
    fn next_date(&self, mut date: Date) -> Option<Date> {
        let last = self.set(Unit::Year)?.last()?;
        loop {
            let year = u32::try_from(date.year().checked_sub(1900)?).ok()?;
            if year > last {
                return None;
            }
            if !self.has(Unit::Year, year) {
                date = Date::new(date.year().checked_add(1)?, 1, 1).ok()?;
            } else if !self.has(Unit::Month, u32::try_from(date.month()).ok()? - 1) {
                date = date.last_of_month().tomorrow().ok()?;
            } else if self.has(Unit::Mday, u32::try_from(date.day()).ok()?)
                && self.has(Unit::Weekday, weekday(date.weekday()))
            {
                return Some(date);
            } else {
                date = date.tomorrow().ok()?;
            }
        }
    }

    fn first_time(&self, earliest: jiff::civil::Time) -> Option<jiff::civil::Time> {
        let number = |n: i8| u32::try_from(n).unwrap_or(0);
        let start = (number(earliest.hour()), number(earliest.minute()), number(earliest.second()));
        for hour in self.set(Unit::Hour)?.iter().filter(|hour| *hour >= start.0) {
            for minute in self.set(Unit::Minute)?.iter() {
                if (hour, minute) < (start.0, start.1) {
                    continue;
                }
                let mut seconds = self.set(Unit::Second)?.iter().filter(|second| *second < 60);
                if let Some(second) = seconds.find(|second| (hour, minute, *second) >= start) {
                    let small = |n: u32| i8::try_from(n).ok();
                    return jiff::civil::Time::new(small(hour)?, small(minute)?, small(second)?, 0)
                        .ok();
                }
            }
        }
        None
    }

    fn set(&self, unit: Unit) -> Option<&Idset> {
        self.fields.iter().find(|field| field.unit == unit).map(|field| &field.set)
    }

    fn has(&self, unit: Unit, value: u32) -> bool {
        self.set(unit).is_some_and(|set| set.contains(value))
    }
}

fn weekday(day: Weekday) -> u32 {
    u32::try_from(day.to_sunday_zero_offset()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn datetime(args: Value) -> Result<Datetime, Failure> {
        Datetime::parse(&serde_json::from_value(args).unwrap())
    }

    /// The next time after another one, both in UTC.
    fn next(args: Value, after: &str) -> Option<String> {
        let now = after.parse::<Timestamp>().unwrap().as_second() as f64;
        let next = datetime(args).unwrap().next(now, &TimeZone::UTC)?;
        Some(Timestamp::from_second(next as i64).unwrap().to_string())
    }

    #[test]
    fn crontab_fields_name_the_next_time() {
        let half_past = json!({"second": 0, "minute": "30"});
        assert_eq!(
            next(half_past.clone(), "2026-11-24T16:30:00Z").unwrap(),
            "2026-11-24T17:30:00Z"
        );
        assert_eq!(next(half_past, "2026-12-31T23:45:00Z").unwrap(), "2027-01-01T00:30:00Z");
        let mondays = json!({"second": 0, "minute": "0", "hour": "9-17/4", "weekday": "mon"});
        assert_eq!(next(mondays.clone(), "2026-11-24T16:30:00Z").unwrap(), "2026-11-30T09:00:00Z");
        assert_eq!(next(mondays, "2026-11-30T09:00:01Z").unwrap(), "2026-11-30T13:00:00Z");
        let leap = json!({"second": 0, "minute": 0, "hour": 0, "mday": 29, "month": "feb"});
        assert_eq!(next(leap, "2026-11-24T16:30:00Z").unwrap(), "2028-02-29T00:00:00Z");
    }

    #[test]
    fn time_that_never_comes_has_no_next() {
        let past = json!({"second": 0, "year": 120});
        assert_eq!(next(past, "2026-11-24T16:30:00Z"), None);
        assert_eq!(next(json!({"mday": 30, "month": 1}), "2026-11-24T16:30:00Z"), None);
        assert_eq!(next(json!({"second": 60}), "2026-11-24T16:30:00Z"), None);
    }

    #[test]
    fn hours_that_a_clock_change_leaves_out_or_repeats_are_passed() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let daily = datetime(json!({"second": 0, "minute": "30", "hour": 2})).unwrap();
        let mut now = "2026-03-28T12:00:00Z".parse::<Timestamp>().unwrap().as_second() as f64;
        for expected in ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"] {
            now = daily.next(now, &zone).unwrap();
            assert_eq!(Timestamp::from_second(now as i64).unwrap().to_string(), expected);
        }
        let mut now = "2026-10-24T12:00:00Z".parse::<Timestamp>().unwrap().as_second() as f64;
        for expected in ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"] {
            now = daily.next(now, &zone).unwrap();
            assert_eq!(Timestamp::from_second(now as i64).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn fields_are_shown_as_idsets() {
        let shown = datetime(json!({"minute": "*/15", "weekday": "sat,sun", "month": 3})).unwrap();
        let shown = shown.describe();
        assert_eq!(shown["minute"], "0,15,30,45");
        assert_eq!(shown["weekday"], "0,6");
        assert_eq!((&shown["month"], &shown["year"]), (&json!("3"), &json!("0-1100")));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            json!({"minute": "60"}),
            json!({"minute": "5-1"}),
            json!({"minute": "x"}),
            json!({"minute": ""}),
            json!({"minute": "*/0"}),
            json!({"mday": 0}),
            json!({"hour": -1}),
            json!({"hour": [1]}),
        ] {
            assert_eq!(datetime(bad.clone()).unwrap_err().errno, Errno::EINVAL, "{bad}");
        }
    }
}

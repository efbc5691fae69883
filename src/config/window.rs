//! A window: the times of a week at which something may run, in one time zone, and a condition on the server's state.
//!
//! The only file that names the library of time zones. It owns no clock: the time comes in, as seconds since 1970. It keeps true:
//!
//! - Hours are those of the wall clock. On the day on which clocks go forward, hours that no clock shows are left out; on the day on which
//!   clocks go back, hours that come twice are open twice.
//! - Hours that go over midnight belong to the day on which they begin.

use jiff::Timestamp;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use std::fmt;

/// A named window of `[[window]]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Window {
    pub name: String,
    /// The line of `[[window]]` in the file, from 1.
    pub line: usize,
    pub hours: Vec<Hours>,
    pub days: Days,
    pub zone: Zone,
    /// A condition in SQL that has to be true, too. Who asks the server is not here.
    pub condition: Option<String>,
}

/// Hours of a day, in seconds since midnight. The end is not in them. If the end is before the start, they go over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    start: i32,
    end: i32,
}

/// Days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days([bool; 7]);

/// A time zone of the IANA database.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone(TimeZone);

const DAY: i32 = 86_400;

/// How many days ahead an opening is looked for. A week is enough, unless clocks leave out the hours of that week.
const HORIZON: i32 = 22;

const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Hours {
    /// The hours that are allowed, as an error names them.
    pub const ALLOWED: &'static str =
        "one or more of \"HH:MM-HH:MM\", such as \"22:00-06:00\" (24:00 is the end of a day)";

    /// Reads `22:00-06:00`. `None`: it is no such text, or the hours are empty.
    pub fn new(text: &str) -> Option<Self> {
        let (start, end) = text.split_once('-')?;
        let hours = Self { start: seconds(start)?, end: seconds(end)? };
        (hours.start != hours.end && hours.start < DAY).then_some(hours)
    }

    fn goes_over_midnight(self) -> bool {
        self.end < self.start
    }
}

fn seconds(text: &str) -> Option<i32> {
    let (hour, minute) = text.trim().split_once(':')?;
    let number = |text: &str| Some(text).filter(|text| text.len() == 2).and_then(|text| text.parse::<u8>().ok());
    let (hour, minute) = (i32::from(number(hour)?), i32::from(number(minute)?));
    let seconds = hour * 3600 + minute * 60;
    (minute < 60 && seconds <= DAY).then_some(seconds)
}

impl Days {
    /// The days that are allowed, as an error names them.
    pub const ALLOWED: &'static str = "one or more of \"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\", or ranges of them such as \"mon-fri\"";

    /// Reads `mon` or `sat-mon`.
    pub fn new(text: &str) -> Option<Self> {
        let day = |text: &str| NAMES.iter().position(|name| text.trim().eq_ignore_ascii_case(name));
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (day(first)?, day(last)?);
        let mut days = [false; 7];
        let length = (last + 7 - first) % 7;
        days.iter_mut().enumerate().for_each(|(at, day)| *day = (at + 7 - first) % 7 <= length);
        Some(Self(days))
    }

    /// The days that are in any of these.
    pub fn of_all(all: Vec<Self>) -> Self {
        let mut days = [false; 7];
        all.iter().for_each(|some| days.iter_mut().zip(some.0).for_each(|(day, there)| *day |= there));
        Self(days)
    }

    fn has(self, day: Weekday) -> bool {
        let at = usize::try_from(day.to_monday_zero_offset()).unwrap_or_default();
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// Every day.
impl Default for Days {
    fn default() -> Self {
        Self([true; 7])
    }
}

impl Zone {
    /// The zones that are allowed, as an error names them.
    pub const ALLOWED: &'static str = "a time zone of the IANA database, such as \"Europe/Berlin\" or \"UTC\"";

    /// The zone of this name. `None`: neither the system nor this program knows it.
    pub fn new(name: &str) -> Option<Self> {
        TimeZone::get(name).ok().filter(|zone| zone.iana_name().is_some()).map(Self)
    }

    fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl Window {
    /// Whether the hours of the window are open at this time (seconds since 1970).
    pub fn is_open(&self, now: i64) -> bool {
        Timestamp::from_second(now).is_ok_and(|now| self.is_open_at(now))
    }

    /// When the hours of the window begin next, after this time. `None`: not within three weeks.
    pub fn next_opening(&self, now: i64) -> Option<i64> {
        let now = Timestamp::from_second(now).ok()?;
        let today = self.zone.0.to_datetime(now).date();
        let mut openings = Vec::new();
        let mut day = today.yesterday().ok()?;
        for _ in 0..HORIZON {
            openings.extend(self.hours.iter().flat_map(|hours| self.starts(day, *hours)));
            day = day.tomorrow().ok()?;
        }
        // Where clocks go forward over the start, the window opens at that moment.
        let end = self.zone.0.to_timestamp(day.to_datetime(Time::midnight())).ok()?;
        let changes = self.zone.0.following(now).map(|change| change.timestamp());
        openings.extend(changes.take_while(|change| *change <= end));
        openings.retain(|opening| *opening > now && self.is_open_at(*opening));
        openings.into_iter().min().map(Timestamp::as_second)
    }

    /// A time (seconds since 1970) in the window's zone, for people.
    pub fn clock(&self, time: i64) -> String {
        let Ok(time) = Timestamp::from_second(time) else { return "an unknown time".to_owned() };
        let local = self.zone.0.to_datetime(time);
        format!("{} {:02}:{:02} {}", local.date(), local.hour(), local.minute(), self.zone.name())
    }

    /// When these hours begin on a day: never, once or twice.
    fn starts(&self, day: Date, hours: Hours) -> Vec<Timestamp> {
        let (hour, minute) = (hours.start / 3600, hours.start / 60 % 60);
        let time = i8::try_from(hour).ok().zip(i8::try_from(minute).ok());
        let Some(time) = time.and_then(|(hour, minute)| Time::new(hour, minute, 0, 0).ok()) else { return Vec::new() };
        let start = self.zone.0.to_ambiguous_timestamp(day.to_datetime(time));
        [start.earlier(), start.later()].into_iter().flatten().collect()
    }

    fn is_open_at(&self, now: Timestamp) -> bool {
        let local = self.zone.0.to_datetime(now);
        let time = i32::from(local.hour()) * 3600 + i32::from(local.minute()) * 60 + i32::from(local.second());
        let (today, yesterday) = (local.weekday(), local.weekday().previous());
        self.hours.iter().any(|hours| match hours.goes_over_midnight() {
            false => self.days.has(today) && (hours.start..hours.end).contains(&time),
            true => (self.days.has(today) && time >= hours.start) || (self.days.has(yesterday) && time < hours.end),
        })
    }
}

/// The hours, as they are written.
impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |seconds: i32| (seconds / 3600, seconds / 60 % 60);
        let ((from, from_minute), (to, to_minute)) = (clock(self.start), clock(self.end));
        write!(f, "{from:02}:{from_minute:02}-{to:02}:{to_minute:02}")
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == [true; 7] {
            return f.write_str("every day");
        }
        let days: Vec<&str> = NAMES.iter().zip(self.0).filter(|(_, there)| *there).map(|(name, _)| *name).collect();
        f.write_str(&days.join(", "))
    }
}

/// The window for people: `22:00-06:00, mon, tue, Europe/Berlin`.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours: Vec<String> = self.hours.iter().map(Hours::to_string).collect();
        write!(f, "{}, {}, {}", hours.join(" and "), self.days, self.zone.name())?;
        if self.condition.is_some() { f.write_str(", with a condition") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;

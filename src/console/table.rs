//! Rows of the console's answers, with PostgreSQL's types, as text and in binary form.
//!
//! It keeps true: a value is encoded by the type of its column. A value that does not fit the type is NULL, and never bytes that a client would
//! misread.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// `int4`
    Integer,
    /// `int8`
    Bigint,
    Boolean,
    /// `float8`
    Float,
    /// `timestamptz`
    Time,
    Oid,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Text(String),
    Integer(i64),
    Boolean(bool),
    Float(f64),
    Time(SystemTime),
}

impl Value {
    /// A text, or NULL if there is none.
    pub(super) fn maybe(text: Option<impl Into<String>>) -> Self {
        text.map_or(Self::Null, |text| Self::Text(text.into()))
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number that may be too large.
    pub(super) fn number(number: impl TryInto<i64>) -> Self {
        number.try_into().map_or(Self::Null, Self::Integer)
    }

    /// The value as text, in the format of `DateStyle = ISO` and `TimeZone = UTC`.
    pub(super) fn as_text(&self) -> Option<String> {
        Some(match self {
            Self::Null => return None,
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Boolean(true) => "t".to_owned(),
            Self::Boolean(false) => "f".to_owned(),
            Self::Float(number) => number.to_string(),
            Self::Time(time) => in_utc(*time),
        })
    }

    /// The value in the binary form of the type.
    fn as_binary(&self, kind: Kind) -> Option<Vec<u8>> {
        match (kind, self) {
            (Kind::Text, value) => value.as_text().map(String::into_bytes),
            (Kind::Integer, Self::Integer(number)) => Some(i32::try_from(*number).ok()?.to_be_bytes().to_vec()),
            (Kind::Oid, Self::Integer(number)) => Some(u32::try_from(*number).ok()?.to_be_bytes().to_vec()),
            (Kind::Bigint, Self::Integer(number)) => Some(number.to_be_bytes().to_vec()),
            (Kind::Boolean, Self::Boolean(flag)) => Some(vec![u8::from(*flag)]),
            (Kind::Float, Self::Float(number)) => Some(number.to_be_bytes().to_vec()),
            (Kind::Time, Self::Time(time)) => Some(since_2000(*time).to_be_bytes().to_vec()),
            _ => None,
        }
    }

    /// The bytes of the value in a DataRow. `None`: NULL.
    pub(super) fn encoded(&self, kind: Kind, binary: bool) -> Option<Vec<u8>> {
        if binary { self.as_binary(kind) } else { self.as_text().map(String::into_bytes) }
    }
}

/// Seconds between 1970 and 2000, from which PostgreSQL counts.
const EPOCH: Duration = Duration::from_secs(946_684_800);

fn since_2000(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH + EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// `2026-12-01 09:30:00.123456+00`
fn in_utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, rest) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}+00")
}

/// The date of a number of days since 1970-01-01, in the proleptic Gregorian calendar (Hinnant, *chrono-Compatible Low-Level Date Algorithms*).
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heading {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// Rows with their columns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    pub(super) columns: Vec<Heading>,
    pub(super) rows: Vec<Vec<Value>>,
}

impl Table {
    /// Keeps the rows in which a text matches the pattern of LIKE.
    pub(super) fn keep_like(&mut self, pattern: &str) {
        let pattern: Vec<char> = pattern.chars().collect();
        self.rows.retain(|row| row.iter().any(|value| matches!(value, Value::Text(text) if like(text, &pattern))));
    }
}

/// Whether a text matches a pattern of LIKE: `%` stands for any text, `_` for any character, `\` takes the next one as it is.
fn like(text: &str, pattern: &[char]) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut place) = (0, 0);
    // Where to go on if the rest does not match: behind the last `%`, one character later.
    let mut retry: Option<(usize, usize)> = None;
    while at < text.len() {
        let (wanted, width) = match pattern.get(place) {
            Some('\\') => (pattern.get(place + 1), 2),
            other => (other, 1),
        };
        let any = width == 1 && wanted == Some(&'_');
        if width == 1 && wanted == Some(&'%') {
            place += 1;
            retry = Some((at, place));
        } else if any || wanted == text.get(at) {
            at += 1;
            place += width;
        } else if let Some((from, behind)) = retry {
            (at, place) = (from + 1, behind);
            retry = Some((at, behind));
        } else {
            return false;
        }
    }
    pattern.get(place..).is_some_and(|rest| rest.iter().all(|c| *c == '%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let matches = |text: &str, pattern: &str| like(text, &pattern.chars().collect::<Vec<_>>());
        for (text, pattern) in
            [("locks.poll", "locks.%"), ("abc", "a_c"), ("", "%"), ("a%", r"a\%"), ("xaxbx", "%a%b%"), ("aab", "%ab")]
        {
            assert!(matches(text, pattern), "{text} {pattern}");
        }
        for (text, pattern) in [("locks.poll", "poll"), ("ab", "a"), ("ab", r"a\_"), ("", "_"), ("abc", "%d")] {
            assert!(!matches(text, pattern), "{text} {pattern}");
        }
        // No pattern takes exponential time.
        assert!(!matches(&"a".repeat(5000), &"%a".repeat(100).replace("%a%a%a", "%a%a%b")));
    }

    #[test]
    fn times_are_as_postgresql_writes_them() {
        let time = UNIX_EPOCH + Duration::from_micros(1_709_210_096_000_007);
        assert_eq!(Value::Time(time).as_text().unwrap(), "2024-02-29 12:34:56.000007+00");
        assert_eq!(Value::Time(UNIX_EPOCH + EPOCH).encoded(Kind::Time, true).unwrap(), [0; 8]);
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(20_788), (2026, 12, 1));
    }

    #[test]
    fn binary_values_have_the_width_of_their_type() {
        assert_eq!(Value::Integer(1).encoded(Kind::Integer, true).unwrap(), [0, 0, 0, 1]);
        assert_eq!(Value::Integer(1 << 40).encoded(Kind::Integer, true), None);
        assert_eq!(Value::text("x").encoded(Kind::Bigint, true), None);
        assert_eq!(Value::Boolean(true).encoded(Kind::Boolean, false).unwrap(), b"t");
    }
}

//! Times and sizes in the units of PostgreSQL's own settings: `200ms`, `1.5s`, `30min`, `64kB`, `4MB`.
//!
//! Invariant: a number needs a unit. A bare number means milliseconds in one setting of PostgreSQL and kilobytes in another,
//! so that a timeout of five seconds becomes one of five milliseconds.

use std::time::Duration;

/// The units, longest first, so that formatting finds the largest unit that divides a time.
const TIME_UNITS: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// The units of sizes. PostgreSQL's multiplier is 1024.
const SIZE_UNITS: [(&str, u64); 5] = [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10), ("B", 1)];

/// Reads a time with a unit. `0` needs no unit.
pub fn parse_time(text: &str) -> Option<Duration> {
    parse(text, &TIME_UNITS).map(Duration::from_micros)
}

/// Reads a size with a unit, in bytes. `0` needs no unit.
pub fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZE_UNITS)
}

/// Writes a time in the largest unit that gives a whole number. Less than a microsecond is not shown.
pub fn format_time(time: Duration) -> String {
    format(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), &TIME_UNITS, "s")
}

/// Writes a size in the largest unit that gives a whole number.
pub fn format_size(bytes: u64) -> String {
    format(bytes, &SIZE_UNITS, "B")
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    if text == "0" {
        return Some(0);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let &(_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().ok()?;
    // Nine digits are enough, since the result is rounded down to the smallest unit.
    let fraction_digits = fraction.get(..fraction.len().min(9))?;
    let fraction: u64 = fraction_digits.parse().ok()?;
    let part = u128::from(fraction) * u128::from(scale) / 10u128.pow(u32::try_from(fraction_digits.len()).ok()?);
    whole.checked_mul(scale)?.checked_add(u64::try_from(part).ok()?)
}

fn format(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    match units.iter().find(|(_, scale)| value >= *scale && value.is_multiple_of(*scale)) {
        Some((unit, scale)) => format!("{}{unit}", value / scale),
        None => format!("0{zero}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_postgresqls() {
        let cases = [
            ("0", 0),
            ("250us", 250),
            ("200ms", 200_000),
            ("1.5s", 1_500_000),
            ("30 min", 1_800_000_000),
            ("2h", 7_200_000_000),
            ("1d", 86_400_000_000),
            ("0.0001s", 100),
        ];
        for (text, micros) in cases {
            assert_eq!(parse_time(text), Some(Duration::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "50", "-1s", "s", "1 fortnight", "1S", "1m", "1.s", ".5s", "1..5s", "1e3s", "999999999999999d"]
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_count_in_1024() {
        assert_eq!(parse_size("64kB"), Some(65_536));
        assert_eq!(parse_size("1.5MB"), Some(1_572_864));
        assert_eq!(parse_size("12B"), Some(12));
        for text in ["64KB", "1mb", "10", "1 PB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn formatting_is_the_way_back() {
        for text in ["250us", "200ms", "1500ms", "30min", "2h", "1d"] {
            assert_eq!(format_time(parse_time(text).unwrap()), text);
        }
        assert_eq!(format_size(4 << 20), "4MB");
        assert_eq!(format_size(0), "0B");
    }
}

//! Tests of windows with a given clock: midnight, weekdays, and both changes of daylight saving time.

use super::{Days, Hours, Window, Zone};
use jiff::Timestamp;
use proptest::prelude::*;

fn window(hours: &[&str], days: &[&str], zone: &str) -> Window {
    Window {
        name: "w".to_owned(),
        line: 1,
        hours: hours.iter().map(|text| Hours::new(text).unwrap()).collect(),
        days: if days.is_empty() {
            Days::default()
        } else {
            Days::of_all(days.iter().map(|text| Days::new(text).unwrap()).collect())
        },
        zone: Zone::new(zone).unwrap(),
        condition: None,
    }
}

fn at(time: &str) -> i64 {
    time.parse::<Timestamp>().unwrap().as_second()
}

/// Whether the window is open at each of these times.
fn open<const N: usize>(window: &Window, times: [&str; N]) -> [bool; N] {
    times.map(|time| window.is_open(at(time)))
}

fn opens(window: &Window, now: &str) -> String {
    window
        .next_opening(at(now))
        .map_or_else(|| "never".to_owned(), |time| Timestamp::from_second(time).unwrap().to_string())
}

#[test]
fn hours_of_a_day() {
    let w = window(&["09:00-12:00", "13:00-17:30"], &["mon-fri"], "UTC");
    // 2026-11-30 is a Monday.
    let times = [
        "2026-11-30T08:59:59Z",
        "2026-11-30T09:00:00Z",
        "2026-11-30T11:59:59Z",
        "2026-11-30T12:00:00Z",
        "2026-11-30T17:29:00Z",
        "2026-11-30T17:30:00Z",
        "2026-11-29T10:00:00Z",
    ];
    assert_eq!(open(&w, times), [false, true, true, false, true, false, false]);
    assert_eq!(opens(&w, "2026-11-30T12:00:00Z"), "2026-11-30T13:00:00Z");
    assert_eq!(opens(&w, "2026-12-04T17:30:00Z"), "2026-12-07T09:00:00Z");
    assert_eq!(w.clock(at("2026-12-07T09:00:00Z")), "2026-12-07 09:00 UTC");
    assert_eq!(w.to_string(), "09:00-12:00 and 13:00-17:30, mon, tue, wed, thu, fri, UTC");
}

#[test]
fn hours_over_midnight_belong_to_the_day_on_which_they_begin() {
    let w = window(&["22:00-06:00"], &["fri"], "UTC");
    // 2026-12-04 is a Friday.
    let times = [
        "2026-12-04T05:00:00Z",
        "2026-12-04T22:00:00Z",
        "2026-12-05T05:59:59Z",
        "2026-12-05T06:00:00Z",
        "2026-12-05T23:00:00Z",
    ];
    assert_eq!(open(&w, times), [false, true, true, false, false]);
    assert_eq!(opens(&w, "2026-12-05T06:00:00Z"), "2026-12-11T22:00:00Z");
    let always = window(&["00:00-24:00"], &[], "UTC");
    assert!(always.is_open(at("2026-12-05T00:00:00Z")) && always.is_open(at("2026-12-05T23:59:59Z")));
    assert_eq!(always.to_string(), "00:00-24:00, every day, UTC");
}

/// In Berlin clocks go from 02:00 to 03:00 on 2026-03-29, which is 01:00 UTC.
#[test]
fn clocks_that_go_forward() {
    let w = window(&["02:00-03:00"], &[], "Europe/Berlin");
    assert_eq!(
        open(&w, ["2026-03-28T01:30:00Z", "2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]),
        [true, false, false, true]
    );
    assert_eq!(opens(&w, "2026-03-28T02:00:00Z"), "2026-03-30T00:00:00Z");
    // The start is left out, and the rest of the hours is there.
    let w = window(&["02:30-05:00"], &[], "Europe/Berlin");
    assert_eq!(opens(&w, "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00Z");
    assert_eq!(
        open(&w, ["2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "2026-03-29T02:59:59Z", "2026-03-29T03:00:00Z"]),
        [false, true, true, false]
    );
    // Midnight to six is five hours long.
    let w = window(&["00:00-06:00"], &[], "Europe/Berlin");
    assert_eq!(open(&w, ["2026-03-28T23:00:00Z", "2026-03-29T03:59:59Z", "2026-03-29T04:00:00Z"]), [true, true, false]);
}

/// In Berlin clocks go from 03:00 to 02:00 on 2026-10-25, which is 01:00 UTC.
#[test]
fn clocks_that_go_back() {
    let w = window(&["02:15-02:45"], &[], "Europe/Berlin");
    let times = [
        "2026-10-25T00:14:59Z",
        "2026-10-25T00:15:00Z",
        "2026-10-25T00:45:00Z",
        "2026-10-25T01:15:00Z",
        "2026-10-25T01:45:00Z",
    ];
    assert_eq!(open(&w, times), [false, true, false, true, false]);
    assert_eq!(opens(&w, "2026-10-25T00:45:00Z"), "2026-10-25T01:15:00Z");
    assert_eq!(opens(&w, "2026-10-25T01:45:00Z"), "2026-10-26T01:15:00Z");
}

#[test]
fn a_zone_whose_day_has_no_midnight() {
    // In Santiago the clocks of 2026-09-06 go from 00:00 to 01:00.
    let w = window(&["00:00-00:30"], &["sun"], "America/Santiago");
    assert_eq!(opens(&w, "2026-09-05T12:00:00Z"), "2026-09-13T03:00:00Z");
}

#[test]
fn what_is_no_window() {
    for wrong in ["", "9:00-12:00", "09:00", "09:00-09:00", "25:00-26:00", "09:60-10:00", "24:00-06:00", "09:00-24:01"]
    {
        assert_eq!(Hours::new(wrong), None, "{wrong}");
    }
    for wrong in ["", "monday", "mon-", "mon-fri-sun", "1"] {
        assert_eq!(Days::new(wrong), None, "{wrong}");
    }
    assert_eq!(Days::new("sat-mon").unwrap().to_string(), "mon, sat, sun");
    assert!(Zone::new("Europe/Berlni").is_none() && Zone::new("").is_none());
}

proptest! {
    /// The window is closed from now to the next opening, and open at it, whatever the clocks do.
    #[test]
    fn the_next_opening_is_the_first(
        start in 0..24 * 4, length in 1..24 * 4, now in 1_767_225_600_i64..1_798_761_600, day in 0..7_usize,
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"]),
    ) {
        let clock = |quarters: i32| format!("{:02}:{:02}", quarters / 4, quarters % 4 * 15);
        let end = (start + length) % 96;
        prop_assume!(start != end);
        let w = window(&[&format!("{}-{}", clock(start), clock(end))], &[super::NAMES[day]], zone);
        let opening = w.next_opening(now).unwrap();
        prop_assert!(opening > now && w.is_open(opening));
        // Windows open at quarters of an hour. What is open at `now` may stay open for a day.
        let first = (now / 900 + 1) * 900;
        let closed = (first..opening).step_by(900).skip_while(|time| w.is_open(*time));
        prop_assert!(closed.into_iter().all(|time| !w.is_open(time)));
    }
}

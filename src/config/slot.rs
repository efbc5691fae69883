//! The places of values in a [`Config`](super::Config), with the values that each of them allows.
//!
//! It owns nothing. It keeps true: a value that is not allowed sets nothing, and [`Slot::allowed`] says what would be.

use super::console::ConsoleUser;
use super::glob::Glob;
use super::secret::Secret;
use super::units::{format_size, format_time, parse_size, parse_time};
use super::window::{Days, Hours, Zone};
use super::words::{WebhookEvent, Word};
use super::{Address, Network, WebUrl};
use crate::pg::LockMode;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// The place of a value, with its bounds.
pub(super) enum Slot<'a> {
    Time(&'a mut Duration, RangeInclusive<Duration>),
    Bytes(&'a mut u64, RangeInclusive<u64>),
    Memory(&'a mut usize, RangeInclusive<usize>),
    Count(&'a mut usize, RangeInclusive<usize>),
    Share(&'a mut f64),
    Ratio(&'a mut f64, RangeInclusive<f64>),
    Flag(&'a mut bool),
    Word(&'a mut dyn Word),
    Address(&'a mut Address),
    Addresses(&'a mut Vec<Address>),
    Networks(&'a mut Vec<Network>),
    Text(&'a mut Option<String>),
    Name(&'a mut String),
    Secret(&'a mut Option<Secret>),
    Path(&'a mut Option<PathBuf>),
    Port(&'a mut Option<u16>),
    /// The users of the console. Their reader is in `console`, since its errors have places of their own.
    Users(&'a mut Vec<ConsoleUser>),
    /// A list of strings, or one string. An empty list: the key is not set.
    Texts(&'a mut Vec<String>),
    Globs(&'a mut Vec<Glob>),
    Locks(&'a mut Vec<LockMode>),
    Hours(&'a mut Vec<Hours>),
    Days(&'a mut Days),
    Zone(&'a mut Zone),
    /// An address of TCP. An empty string: none.
    OptionalAddress(&'a mut Option<Address>),
    /// A URL, which may hold a secret.
    Url(&'a mut Option<WebUrl>),
    Events(&'a mut Vec<WebhookEvent>),
    OptionalFlag(&'a mut Option<bool>),
    OptionalTime(&'a mut Option<Duration>, RangeInclusive<Duration>),
    OptionalBytes(&'a mut Option<u64>, RangeInclusive<u64>),
    OptionalCount(&'a mut Option<u64>, RangeInclusive<u64>),
}

impl Slot<'_> {
    /// Whether an error must not show the value.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self, Self::Secret(_) | Self::Url(_))
    }

    /// Sets the value. Returns false if the key does not allow it.
    pub(super) fn set(&mut self, value: &DeValue<'_>) -> bool {
        match self {
            Self::Time(slot, bounds) => put(slot, value.as_str().and_then(parse_time), |v| bounds.contains(v)),
            Self::Bytes(slot, bounds) => put(slot, value.as_str().and_then(parse_size), |v| bounds.contains(v)),
            Self::Memory(slot, bounds) => {
                let bytes = value.as_str().and_then(parse_size).and_then(|bytes| usize::try_from(bytes).ok());
                put(slot, bytes, |v| bounds.contains(v))
            }
            Self::Count(slot, bounds) => put(slot, integer(value), |v| bounds.contains(v)),
            Self::Share(slot) => put(slot, number(value), |v| (0.0..=1.0).contains(v)),
            Self::Ratio(slot, bounds) => put(slot, number(value), |v| bounds.contains(v)),
            Self::Flag(slot) => put(slot, value.as_bool(), |_| true),
            Self::Word(slot) => value.as_str().is_some_and(|word| slot.set(word)),
            Self::Address(slot) => put(slot, address(value), |_| true),
            Self::Addresses(slot) => {
                let all = value.as_array().and_then(|list| list.iter().map(|item| address(item.get_ref())).collect());
                put(slot, all, |list: &Vec<_>| !list.is_empty())
            }
            Self::Networks(slot) => {
                let network = |value: &DeValue<'_>| value.as_str().and_then(|text| text.parse().ok());
                let all = value.as_array().and_then(|list| list.iter().map(|item| network(item.get_ref())).collect());
                put(slot, all, |_: &Vec<_>| true)
            }
            Self::Text(slot) => put(slot, text(value).map(Some), |_| true),
            Self::Name(slot) => put(slot, text(value), |_| true),
            Self::Secret(slot) => put(slot, text(value).map(|text| Some(Secret::new(text))), |_| true),
            Self::Path(slot) => put(slot, text(value).map(|text| Some(PathBuf::from(text))), |_| true),
            Self::Port(slot) => put(slot, integer::<u16>(value).filter(|port| *port > 0).map(Some), |_| true),
            Self::Users(_) => false,
            Self::Texts(slot) => put(slot, list(value, |text| Some(text.to_owned())), |_| true),
            Self::Globs(slot) => put(slot, list(value, Glob::new), |_| true),
            Self::Locks(slot) => put(slot, list(value, lock_mode), |_| true),
            Self::Hours(slot) => put(slot, list(value, Hours::new), |_| true),
            Self::Days(slot) => put(slot, list(value, Days::new).map(Days::of_all), |_| true),
            Self::Zone(slot) => put(slot, value.as_str().and_then(Zone::new), |_| true),
            Self::OptionalAddress(slot) => {
                let tcp = |text: &str| text.parse().ok().filter(|address| matches!(address, Address::Tcp { .. }));
                let set =
                    value.as_str().and_then(|text| if text.is_empty() { Some(None) } else { tcp(text).map(Some) });
                put(slot, set, |_| true)
            }
            Self::Url(slot) => put(slot, value.as_str().and_then(WebUrl::new).map(Some), |_| true),
            Self::Events(slot) => put(slot, list(value, WebhookEvent::from_word), |_| true),
            Self::OptionalFlag(slot) => put(slot, value.as_bool().map(Some), |_| true),
            Self::OptionalTime(slot, bounds) => {
                put(slot, value.as_str().and_then(parse_time).filter(|time| bounds.contains(time)).map(Some), |_| true)
            }
            Self::OptionalBytes(slot, bounds) => {
                put(slot, value.as_str().and_then(parse_size).filter(|size| bounds.contains(size)).map(Some), |_| true)
            }
            Self::OptionalCount(slot, bounds) => {
                put(slot, integer::<u64>(value).filter(|count| bounds.contains(count)).map(Some), |_| true)
            }
        }
    }

    /// The value as `proxy.toml` would have it, without the quotes of a single string. Of a secret it is only said whether it is set.
    /// The values of `[[rule]]` and `[[window]]` are not shown here: the gate prints its rules.
    pub(super) fn shown(&self) -> String {
        let list = |items: Vec<String>| format!("[{}]", items.join(", "));
        match self {
            Self::Time(value, _) => format_time(**value),
            Self::Bytes(value, _) => format_size(**value),
            Self::Memory(value, _) => format_size(**value as u64),
            Self::Count(value, _) => value.to_string(),
            Self::Share(value) | Self::Ratio(value, _) => value.to_string(),
            Self::Flag(value) => value.to_string(),
            Self::Word(value) => value.word().to_owned(),
            Self::Address(value) => value.to_string(),
            Self::Addresses(value) => list(value.iter().map(|address| format!("\"{address}\"")).collect()),
            Self::Networks(value) => list(value.iter().map(|network| format!("\"{network}\"")).collect()),
            Self::Text(value) => (*value).clone().unwrap_or_default(),
            Self::Name(value) => (*value).clone(),
            Self::Secret(value) => if value.is_some() { "(not shown)" } else { "" }.to_owned(),
            Self::Path(value) => value.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            Self::Port(value) => value.map(|port| port.to_string()).unwrap_or_default(),
            Self::Users(value) => list(value.iter().map(|user| format!("\"{}\"", user.name)).collect()),
            Self::OptionalAddress(value) => value.as_ref().map(ToString::to_string).unwrap_or_default(),
            // A token may stand in its path.
            Self::Url(value) => value.as_ref().map(ToString::to_string).unwrap_or_default(),
            Self::Events(value) => list(value.iter().map(|event| format!("\"{}\"", event.word())).collect()),
            Self::Texts(_)
            | Self::Globs(_)
            | Self::Locks(_)
            | Self::Hours(_)
            | Self::Days(_)
            | Self::Zone(_)
            | Self::OptionalFlag(_)
            | Self::OptionalTime(..)
            | Self::OptionalBytes(..)
            | Self::OptionalCount(..) => String::new(),
        }
    }

    /// The values that this key allows, as an error names them.
    pub(super) fn allowed(&self) -> String {
        match self {
            Self::Time(_, bounds) | Self::OptionalTime(_, bounds) => {
                let (low, high) = (format_time(*bounds.start()), format_time(*bounds.end()));
                format!("a time from {low} to {high}, such as \"200ms\" (units: us ms s min h d)")
            }
            Self::Bytes(_, bounds) | Self::OptionalBytes(_, bounds) => allowed_sizes(*bounds.start(), *bounds.end()),
            Self::Memory(_, bounds) => allowed_sizes(*bounds.start() as u64, *bounds.end() as u64),
            Self::Count(_, bounds) => format!("a whole number from {} to {}", bounds.start(), bounds.end()),
            Self::Share(_) => "a number from 0 to 1".to_owned(),
            Self::Ratio(_, bounds) => format!("a number from {} to {}", bounds.start(), bounds.end()),
            Self::OptionalCount(_, bounds) => format!("a whole number from {} to {}", bounds.start(), bounds.end()),
            Self::Flag(_) | Self::OptionalFlag(_) => "true or false".to_owned(),
            Self::Word(slot) => {
                let words: Vec<String> = slot.words().iter().map(|word| format!("\"{word}\"")).collect();
                format!("one of {}", words.join(", "))
            }
            Self::Address(_) => format!("\"{}\"", Address::ALLOWED.replace(" or ", "\" or \"")),
            Self::Addresses(_) => {
                format!("a list of one or more of \"{}\"", Address::ALLOWED.replace(" or ", "\", \""))
            }
            Self::Networks(_) => "a list of networks, such as \"10.0.0.0/8\" or \"::1\"".to_owned(),
            Self::Text(_) | Self::Secret(_) | Self::Path(_) | Self::Name(_) => "a string that is not empty".to_owned(),
            Self::Users(_) => "a list of users".to_owned(),
            Self::Port(_) => "a whole number from 1 to 65535".to_owned(),
            Self::Texts(_) => "a string, or a list of one or more strings".to_owned(),
            Self::Globs(_) => Glob::ALLOWED.to_owned(),
            Self::Locks(_) => {
                let modes: Vec<String> = LockMode::ALL.iter().map(|mode| format!("\"{}\"", mode.sql())).collect();
                format!("one or more of {}", modes.join(", "))
            }
            Self::OptionalAddress(_) => "\"HOST:PORT\", or \"\" for none".to_owned(),
            Self::Url(_) => WebUrl::ALLOWED.to_owned(),
            Self::Events(_) => {
                let words: Vec<String> = WebhookEvent::WORDS.iter().map(|word| format!("\"{word}\"")).collect();
                format!("one or more of {}", words.join(", "))
            }
            Self::Hours(_) => Hours::ALLOWED.to_owned(),
            Self::Days(_) => Days::ALLOWED.to_owned(),
            Self::Zone(_) => Zone::ALLOWED.to_owned(),
        }
    }
}

fn allowed_sizes(low: u64, high: u64) -> String {
    format!("a size from {} to {}, such as \"64kB\" (units: B kB MB GB TB)", format_size(low), format_size(high))
}

fn put<T>(slot: &mut &mut T, value: Option<T>, allowed: impl FnOnce(&T) -> bool) -> bool {
    value.filter(allowed).map(|value| **slot = value).is_some()
}

fn integer<T: std::str::FromStr>(value: &DeValue<'_>) -> Option<T> {
    value.as_integer().filter(|integer| integer.radix() == 10).and_then(|integer| integer.as_str().parse().ok())
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    let float = value.as_float().map(|float| float.as_str());
    float.or_else(|| value.as_integer().map(|integer| integer.as_str()))?.parse().ok()
}

fn address(value: &DeValue<'_>) -> Option<Address> {
    value.as_str().and_then(|text| text.parse().ok())
}

fn text(value: &DeValue<'_>) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// One or more values: a string, or a list of strings that is not empty.
fn list<T>(value: &DeValue<'_>, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    if let Some(text) = value.as_str() {
        return Some(vec![read(text)?]).filter(|_| !text.is_empty());
    }
    let all = value.as_array()?.iter().map(|item| item.get_ref().as_str().filter(|text| !text.is_empty()));
    all.map(|text| text.and_then(&read)).collect::<Option<Vec<T>>>().filter(|all| !all.is_empty())
}

fn lock_mode(text: &str) -> Option<LockMode> {
    LockMode::ALL.into_iter().find(|mode| mode.sql().eq_ignore_ascii_case(text))
}

//! Fuzzes the reader of `proxy.toml`.

use pgsluice::config::{Config, Overrides};

/// Any text gives settings or says what is wrong with it, and neither ever shows the password.
pub fn config(data: &[u8]) {
    const SECRET: &str = "hunter2";
    let Ok(text) = std::str::from_utf8(data) else { return };
    check(text, |_| {});
    if text.contains(SECRET) || text.contains("operator") {
        return;
    }
    for (quote, close) in [("\"", "\""), ("[\"", "\"]"), ("", "")] {
        let text = format!("{text}\n[operator]\npassword = {quote}{SECRET}{close}\n");
        check(&text, |shown| assert!(!shown.contains(SECRET), "{shown}"));
    }
}

fn check(text: &str, look: impl Fn(&str)) {
    match Config::parse(text, Overrides::default()) {
        Ok(config) => {
            look(&format!("{config:?}"));
            assert!(!config.proxy.listen.is_empty());
            assert!((0.0..=1.0).contains(&config.locks.poll_jitter));
        }
        Err(error) => {
            assert!(!error.faults().is_empty());
            let lines = text.lines().count().max(1) + 1;
            assert!(error.faults().iter().all(|fault| fault.line.is_none_or(|line| (1..=lines).contains(&line))));
            look(&format!("{error} {error:?}"));
        }
    }
}

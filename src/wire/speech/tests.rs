//! Tests of the bytes that are sent for a text in each encoding.

use super::*;

fn speech(client: &str, server: &str) -> Speech {
    let mut speech = Speech::default();
    for (name, value) in [("server_version", "15.4 (Debian)"), ("client_encoding", client), ("server_encoding", server)]
    {
        speech.reported(name.as_bytes(), value.as_bytes());
    }
    speech
}

fn said(speech: &Speech, sql: &str) -> Option<String> {
    speech.say(sql).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[test]
fn what_can_be_said() {
    use Sayable::{All, Ascii, Escaped};
    for (client, server, sayable) in [
        ("UTF8", "UTF8", All),
        ("SQL_ASCII", "UTF8", All),
        ("UTF8", "LATIN1", All),
        ("LATIN1", "UTF8", Escaped),
        ("SJIS", "UTF8", Escaped),
        ("LATIN1", "LATIN1", Escaped),
        ("SQL_ASCII", "LATIN1", Escaped),
        ("UTF8", "SQL_ASCII", Ascii),
        ("SQL_ASCII", "SQL_ASCII", Ascii),
        ("UTF8", "EUC_JP", Ascii),
        ("SJIS", "EUC_JP", Ascii),
        ("UTF8", "MULE_INTERNAL", Ascii),
    ] {
        assert_eq!(speech(client, server).sayable(), sayable, "{client}, {server}");
    }
    let mut old = speech("LATIN1", "LATIN1");
    old.reported(b"server_version", b"12.22");
    assert_eq!(old.sayable(), Ascii);
    let mut escaping = speech("LATIN1", "UTF8");
    escaping.reported(b"standard_conforming_strings", b"off");
    assert_eq!((escaping.sayable(), escaping.conforming()), (Ascii, false));
}

#[test]
fn names_are_said_by_their_numbers() {
    let latin = speech("LATIN1", "UTF8");
    for (sql, wanted) in [
        (r#"LOCK TABLE "kind_é", "a""ü\b" NOWAIT"#, r#"LOCK TABLE U&"kind_\00E9", U&"a""\00FC\\b" NOWAIT"#),
        (r"SELECT 'é''x\', E'é\'\\', 'é'", r"SELECT U&'\00E9''x\\', E'\u00E9\'\\', U&'\00E9'"),
        ("SELECT $$é'\\$$, $a$ $$é$a$", "SELECT  U&'\\00E9''\\\\',  U&' $$\\00E9'"),
        ("/* é /* ü */ */ SELECT 1 -- é\n, \"é\"", "/* ? /* ? */ */ SELECT 1 -- ?\n, U&\"\\00E9\""),
        ("SELECT \"😀\", E'😀'", "SELECT U&\"\\+01F600\", E'\\U0001F600'"),
        ("SELECT a$1é$, 1", ""),
        ("SELECT é", ""),
        ("SELECT \"\u{FFFD}\"", ""),
        (r#"SELECT a - "é" / 'b'"#, r#"SELECT a - U&"\00E9" / 'b'"#),
    ] {
        assert_eq!(said(&latin, sql).unwrap_or_default(), wanted, "{sql}");
    }
    let (sql, parameters) = latin.say_with("SELECT $2::text, 'a$1', \"$1\", a$1, f($1)", &["é'", "\\"]).unwrap();
    assert!(parameters.is_empty());
    assert_eq!(String::from_utf8_lossy(&sql), r#"SELECT  U&'\\'::text, 'a$1', "$1", a$1, f( U&'\00E9''')"#);
}

#[test]
fn nothing_that_cannot_be_said_is_sent() {
    for (client, server) in [("UTF8", "SQL_ASCII"), ("EUC_JP", "EUC_JP"), ("SQL_ASCII", "SQL_ASCII")] {
        let speech = speech(client, server);
        assert_eq!(said(&speech, "LOCK TABLE \"é\""), None);
        assert!(speech.say_with("SELECT $1", &["é"]).is_none());
        assert!(speech.say_with("SELECT $1", &["e"]).is_some());
        assert_eq!(
            said(&speech, "/* waiting for é\u{FFFD} */ SELECT 1").as_deref(),
            Some("/* waiting for ?? */ SELECT 1")
        );
    }
}

#[test]
fn what_the_client_said_goes_back_as_it_came() {
    // In SJIS the second byte of the first character is a backslash, and that of the second character is a letter.
    let text = b"ALTER TABLE \"\x83\x5c\x83\x41\xb1\" ADD c text";
    for (client, server) in [("SJIS", "UTF8"), ("SJIS", "EUC_JP"), ("SQL_ASCII", "SQL_ASCII"), ("LATIN1", "UTF8")] {
        let speech = speech(client, server);
        let readable = String::from_utf8(speech.readable(text).into_owned()).unwrap();
        assert!(speech.is_in_private(&readable));
        assert_eq!(speech.say(&readable).unwrap().as_ref(), text, "{client}, {server}");
        assert_eq!(readable.contains('\\'), client != "SJIS");
    }
    let sjis = speech("SJIS", "UTF8");
    let readable = String::from_utf8(sjis.readable(text).into_owned()).unwrap();
    assert_eq!(readable.chars().filter(|c| !goes_on(*c)).count(), text.len() - 2);
    // A name that the server sent is never taken for bytes of the client's.
    let hexadecimal: String = "\u{10FF41}x".bytes().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sjis.deciphered(&hexadecimal), "\u{FFFD}x");
}

#[test]
fn a_server_with_one_byte_for_each_may_fold_and_cut() {
    let utf8 = speech("UTF8", "LATIN1");
    let is_understood = |text: &str| !utf8.is_in_private(&String::from_utf8_lossy(&utf8.readable(text.as_bytes())));
    assert!(is_understood("ALTER TABLE kind_é ADD c int"));
    assert!(!is_understood("ALTER TABLE KIND_É ADD c int"));
    assert!(!is_understood(&format!("ALTER TABLE {} ADD c int", "é".repeat(32))));
    assert!(!is_understood(&format!("ALTER TABLE \"{}\" ADD c int", "é ".repeat(22))));
    assert!(!is_understood("ALTER TABLE \u{10FF41} ADD c int"));
    assert!(is_understood("ALTER TABLE kind_\u{E9} ADD c int"));
}

#[test]
fn what_is_heard_in_another_encoding_is_marked() {
    let latin = speech("LATIN1", "UTF8");
    assert_eq!(latin.heard("é".as_bytes()), "\u{FFFD}\u{FFFD}");
    assert_eq!(speech("UTF8", "UTF8").heard("é".as_bytes()), "é");
    assert_eq!(latin.deciphered("c3a9"), "é");
    assert_eq!(speech("UTF8", "SQL_ASCII").deciphered("c3a9"), "\u{FFFD}");
}

const ENCODINGS: [&str; 14] = [
    "UTF8",
    "SQL_ASCII",
    "LATIN1",
    "WIN1251",
    "KOI8R",
    "EUC_JP",
    "EUC_TW",
    "EUC_KR",
    "SJIS",
    "BIG5",
    "GBK",
    "GB18030",
    "MULE_INTERNAL",
    "JOHAB",
];

proptest::proptest! {
    #[test]
    fn bytes_of_the_client_come_back_as_they_were(
        text in proptest::collection::vec(proptest::num::u8::ANY, 0..40), client in 0..14_usize, server in 0..14_usize,
    ) {
        let speech = speech(ENCODINGS[client], ENCODINGS[server]);
        if let Ok(readable) = std::str::from_utf8(&speech.readable(&text)) {
            assert_eq!(speech.say(readable).expect("what came can be said").as_ref(), text);
        }
    }

    #[test]
    fn what_is_escaped_is_ascii(sql in "[a-e$'\"\\\\ /*é世😀-]{0,40}", value in "[a'\\\\é😀]{0,5}") {
        for parameters in [&[][..], &[value.as_str()]] {
            if let Some(escaped) = escaped(&sql, parameters, true) {
                assert!(escaped.is_ascii(), "{escaped}");
            }
        }
    }

    /// Quoted names and strings mean the same after the escape, by the reading of the server's own parser.
    #[test]
    fn an_escaped_name_is_the_name(name in "[ab\"'\\\\ é世😀]{1,12}") {
        use crate::pg::relation::{quote_identifier, quote_literal};
        let sql = format!("COMMENT ON TABLE {} IS {}", quote_identifier(&name), quote_literal(&name));
        let said = speech("SJIS", "UTF8").say(&sql).expect("it can be said").into_owned();
        let said = String::from_utf8(said).expect("ASCII");
        assert!(said.is_ascii());
        let target = |sql: &str| match &crate::sql::parse(sql).expect("SQL")[0].class {
            crate::sql::Class::Ddl(ddl) => ddl.targets.clone(),
            _ => Vec::new(),
        };
        assert_eq!(target(&said), target(&sql), "{said}");
        assert_eq!(target(&said)[0].name, name);
    }
}

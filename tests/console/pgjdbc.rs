//! The messages of pgjdbc, one by one: its login, the statements that it sends on its own, and prepared statements with binary values.
//!
//! The driver itself needs a Java machine, which few who build this have.

use crate::Proxy;
use crate::common::raw::{close, describe, execute, frame, parse, sync};
use crate::hostile::Socket;

/// The types of parameters by which pgjdbc chooses the binary form.
const TYPES: [u32; 5] = [23, 1043, 20, 16, 701];

/// Its startup packet.
fn startup() -> Vec<u8> {
    let values = [
        ("user", "root of all"),
        ("database", "pgsluice"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("TimeZone", "Europe/Berlin"),
        ("extra_float_digits", "2"),
        ("application_name", "PostgreSQL JDBC Driver"),
    ];
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    values.iter().for_each(|(name, value)| body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat()));
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [length.to_be_bytes().to_vec(), body].concat()
}

/// Parse with the types of its parameters.
fn parse_typed(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = [name.as_bytes(), b"\0", sql.as_bytes(), b"\0"].concat();
    body.extend(u16::try_from(types.len()).unwrap().to_be_bytes());
    types.iter().for_each(|kind| body.extend(kind.to_be_bytes()));
    frame(b'P', &body)
}

/// Bind to the unnamed portal. A value in binary form has the format 1.
fn bind_binary(statement: &str, values: &[(u16, Option<&[u8]>)], results: &[u16]) -> Vec<u8> {
    let count = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
    let mut body = [b"\0", statement.as_bytes(), b"\0", &count(values.len())].concat();
    values.iter().for_each(|(format, _)| body.extend(format.to_be_bytes()));
    body.extend(count(values.len()));
    for (_, value) in values {
        match value {
            None => body.extend((-1_i32).to_be_bytes()),
            Some(value) => {
                body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                body.extend(*value);
            }
        }
    }
    body.extend(count(results.len()));
    results.iter().for_each(|format| body.extend(format.to_be_bytes()));
    frame(b'B', &body)
}

/// The values of a DataRow.
fn values(mut body: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut found = Vec::new();
    body = &body[2..];
    while let Some((length, rest)) = body.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        found.push(length.map(|length| rest[..length].to_vec()));
        body = &rest[length.unwrap_or(0)..];
    }
    found
}

/// Sends messages, and gives the tags of the answer and its rows.
fn ask(socket: &mut Socket, messages: &[Vec<u8>]) -> (String, Vec<Vec<Option<Vec<u8>>>>) {
    socket.send(&messages.concat());
    let answer = socket.read_to_ready();
    let rows = answer.iter().filter(|message| message.tag == b'D').map(|message| values(&message.body)).collect();
    (answer.iter().map(|message| char::from(message.tag)).collect(), rows)
}

/// A statement that is sent once, unnamed.
fn once(sql: &str) -> [Vec<u8>; 5] {
    [parse("", sql), bind_binary("", &[], &[]), describe(b'P', ""), execute("", 0), sync()]
}

#[test]
fn it_connects_and_asks_what_it_asks_of_every_server() {
    let proxy = Proxy::alone();
    let (mut socket, login) = Socket::after(&proxy, &startup());
    let parameter = |name: &str| {
        let found = login.iter().filter(|message| message.tag == b'S').find_map(|message| {
            let mut parts =
                message.body.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
            (parts.next()? == name).then(|| parts.next())?
        });
        found.unwrap_or_else(|| panic!("{name}: {login:?}"))
    };
    // The driver reads numbers off the front of the version, and gives up without them. It refuses other encodings and styles.
    let version = parameter("server_version");
    let number = version.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap();
    assert_eq!(number.split('.').map(|part| part.parse::<u32>().unwrap()).collect::<Vec<_>>(), [18, 0], "{version}");
    assert_eq!(parameter("client_encoding"), "UTF8");
    assert!(parameter("DateStyle").starts_with("ISO,"));
    assert_eq!((parameter("integer_datetimes"), parameter("standard_conforming_strings")), ("on".into(), "on".into()));
    for sql in ["SET extra_float_digits = 3", "SET application_name = 'PostgreSQL JDBC Driver'"] {
        let unnamed = [parse("", sql), bind_binary("", &[], &[]), execute("", 1), sync()];
        assert_eq!(ask(&mut socket, &unnamed).0, "12CZ", "{sql}");
    }
    let text = |text: &str| vec![vec![Some(text.as_bytes().to_vec())]];
    let isolation = ask(&mut socket, &once("SHOW TRANSACTION ISOLATION LEVEL"));
    assert_eq!(isolation, ("12TDCZ".to_owned(), text("read committed")));
    assert_eq!(ask(&mut socket, &once("SHOW extra_float_digits")).1, text("3"));
    // Connection.isValid, setReadOnly, and a pool's way to give a connection back.
    assert_eq!(ask(&mut socket, &[parse("", ""), bind_binary("", &[], &[]), execute("", 1), sync()]).0, "12IZ");
    for sql in ["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "DISCARD ALL"] {
        assert_eq!(ask(&mut socket, &once(sql)).0, "12nCZ", "{sql}");
    }
    // Without autocommit BEGIN goes in front, in the same round trip.
    let begin = [parse("", "BEGIN"), bind_binary("", &[], &[]), execute("", 0)];
    let (tags, rows) = ask(&mut socket, &[begin.concat(), once("SELECT current_database()").concat()]);
    assert_eq!((tags.as_str(), rows), ("12C12TDCZ", text("pgsluice")));
    assert_eq!(ask(&mut socket, &once("COMMIT")).0, "12nCZ");
}

/// A statement that is used for the fifth time gets a name, and its values go in binary form.
#[test]
fn its_prepared_statements_have_binary_values() {
    let proxy = Proxy::alone();
    let (mut socket, _) = Socket::after(&proxy, &startup());
    let sql = "SELECT $1::int4 AS n, $2 AS t, $3::int8 AS l, $4::bool AS b, $5::float8 AS f, '7'::oid AS o";
    assert_eq!(ask(&mut socket, &[parse_typed("S_1", sql, &TYPES), describe(b'S', "S_1"), sync()]).0, "1tTZ");
    let (n, l, f) = ((-7_i32).to_be_bytes(), i64::MAX.to_be_bytes(), 2.5_f64.to_be_bytes());
    let sent: [(u16, Option<&[u8]>); 5] =
        [(1, Some(&n)), (0, Some("ä".as_bytes())), (1, Some(&l)), (1, Some(&[1])), (1, Some(&f))];
    let bound = bind_binary("S_1", &sent, &[1, 0, 1, 1, 1, 1]);
    let (tags, rows) = ask(&mut socket, &[bound, execute("", 0), sync()]);
    assert_eq!(tags, "2DCZ");
    let expected: [&[u8]; 6] = [&n, "ä".as_bytes(), &l, &[1], &f, &[0, 0, 0, 7]];
    assert_eq!(rows, [expected.map(|value| Some(value.to_vec())).to_vec()]);
    // NULL, and results as text.
    let nothing = [(1, None), (0, None), (1, None), (1, None), (1, None)];
    let (_, rows) = ask(&mut socket, &[bind_binary("S_1", &nothing, &[]), execute("", 0), sync()]);
    assert_eq!(rows, [vec![None, None, None, None, None, Some(b"7".to_vec())]]);
    // What its DatabaseMetaData asks has columns, and no rows.
    let tables = "SELECT NULL AS TABLE_CAT, n.nspname AS TABLE_SCHEM, c.relname AS TABLE_NAME, c.oid FROM pg_catalog.pg_namespace n, \
                  pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname LIKE $1";
    assert_eq!(ask(&mut socket, &[parse_typed("S_2", tables, &[1043]), describe(b'S', "S_2"), sync()]).0, "1tTZ");
    let bound = bind_binary("S_2", &[(0, Some(b"%"))], &[0, 0, 0, 1]);
    assert_eq!(ask(&mut socket, &[bound, execute("", 100), sync()]).0, "2CZ");
    assert_eq!(ask(&mut socket, &[close(b'S', "S_1"), close(b'S', "S_2"), sync()]).0, "33Z");
}

//! The ways of sending a part, and the messages that come back.

use crate::common::{Client, Message};
use crate::script::Sent;
use bytes::BytesMut;
use pgsluice::wire::message::{put_frame, put_query};
use std::collections::VecDeque;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Each chunk a Query.
    Simple,
    /// The part one Query.
    Whole,
    /// Each chunk Parse, Bind, Describe, Execute, Sync.
    Extended,
    /// All chunks under one Sync.
    Pipeline,
    /// BEGIN, each chunk a Query, COMMIT.
    Block,
    /// The same by the extended protocol.
    BlockExtended,
    /// BEGIN and all chunks under one Sync, then COMMIT.
    BlockPipeline,
    /// Each chunk a Query in LATIN1, which is not the database's encoding. What has other characters is not sent.
    Latin1,
}

const SYNC: [u8; 5] = [b'S', 0, 0, 0, 4];

impl Way {
    pub(crate) const ALL: [Self; 8] = [
        Self::Simple,
        Self::Whole,
        Self::Extended,
        Self::Pipeline,
        Self::Block,
        Self::BlockExtended,
        Self::BlockPipeline,
        Self::Latin1,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Whole => "whole",
            Self::Extended => "extended",
            Self::Pipeline => "pipeline",
            Self::Block => "block",
            Self::BlockExtended => "block-extended",
            Self::BlockPipeline => "block-pipeline",
            Self::Latin1 => "latin1",
        }
    }

    /// Whether each chunk stands alone.
    pub(crate) fn alone(self) -> bool {
        matches!(self, Self::Simple | Self::Extended | Self::Latin1)
    }

    /// False: the connection was closed, or gave no answer.
    pub(crate) fn send(self, client: &mut Client, part: &Sent<'_>, lines: &mut Vec<String>) -> bool {
        let mut data = part.copy_data.clone();
        let text = part.chunks.concat();
        let mut alive = true;
        let mut out = BytesMut::new();
        let mut one = |client: &mut Client, sql: &str, extended: bool| {
            if !alive {
                return;
            }
            lines.push(format!("> {}", sql.trim_end()));
            if self == Self::Latin1 {
                let Some(bytes) = sql.chars().map(|c| u8::try_from(c).ok()).collect::<Option<Vec<u8>>>() else {
                    return;
                };
                put_query(&mut out, &bytes);
                client.send(&out.split());
            } else if extended {
                client.send(&Client::extended(sql));
                client.send(&SYNC);
            } else {
                client.send_query(sql);
            }
            alive = answers(client, &mut data, extended, lines);
        };
        match self {
            Self::Whole => one(client, &text, false),
            Self::Latin1 => {
                one(client, "SET client_encoding = LATIN1", false);
                part.chunks.iter().for_each(|chunk| one(client, chunk, false));
            }
            Self::Simple | Self::Extended => {
                part.chunks.iter().for_each(|chunk| one(client, chunk, self == Self::Extended));
            }
            Self::Block | Self::BlockExtended => {
                let extended = self == Self::BlockExtended;
                one(client, "BEGIN", extended);
                part.chunks.iter().for_each(|chunk| one(client, chunk, extended));
                one(client, "COMMIT", extended);
            }
            Self::Pipeline | Self::BlockPipeline => {
                let begin = (self == Self::BlockPipeline).then_some("BEGIN");
                let mut out = BytesMut::new();
                for chunk in begin.into_iter().chain(part.chunks.iter().copied()) {
                    out.extend_from_slice(&Client::extended(chunk));
                }
                out.extend_from_slice(&SYNC);
                lines.push(format!("> (pipeline) {}", text.trim_end()));
                client.send(&out);
                alive = answers(client, &mut data, true, lines);
                if begin.is_some() && alive {
                    lines.push("> COMMIT".to_owned());
                    client.send_query("COMMIT");
                    alive = answers(client, &mut data, false, lines);
                }
            }
        }
        alive
    }
}

/// Everything up to ReadyForQuery, a line per message; false: it did not come.
pub(crate) fn answers(
    client: &mut Client,
    data: &mut VecDeque<String>,
    extended: bool,
    lines: &mut Vec<String>,
) -> bool {
    loop {
        let Some(message) = client.try_read() else {
            lines.push("the connection was closed, or no answer came".to_owned());
            return false;
        };
        if message.tag == b'G' {
            client.send(&copy(data.pop_front(), extended));
        }
        lines.extend(line(&message));
        if message.tag == b'Z' {
            return true;
        }
    }
}

fn copy(data: Option<String>, extended: bool) -> BytesMut {
    let mut out = BytesMut::new();
    for row in data.iter().flat_map(|data| data.split('|')) {
        put_frame(&mut out, b'd', |b| b.extend_from_slice(format!("{row}\n").as_bytes()));
    }
    put_frame(&mut out, b'c', |_| {});
    if extended {
        // While it copies the server ignores Sync.
        out.extend_from_slice(&SYNC);
    }
    out
}

/// What the proxy itself may tell, and the server would not.
const OURS: [&str; 5] = [
    " may make the application wait, because ",
    "invalid index ",
    "waiting for ",
    "is invalid: no query uses it",
    "building ",
];

fn line(message: &Message) -> Option<String> {
    let tag = char::from(message.tag);
    Some(match message.tag {
        b'N' if message.field(b'M').is_some_and(|text| OURS.iter().any(|ours| text.contains(ours))) => return None,
        b'E' | b'N' => {
            // Severity, SQLSTATE, message, detail, hint, position, internal position and query, context, names.
            let fields = b"VCMDHPpqWstcdn".iter();
            let fields = fields.filter_map(|code| Some(format!("{}={}", char::from(*code), message.field(*code)?)));
            format!("{tag} {}", fields.collect::<Vec<_>>().join(" "))
        }
        b'C' => format!("{tag} {}", message.text()),
        b'D' => format!("{tag} {:?}", message.values()),
        b'T' => format!("{tag} {}", columns(&message.body).join(", ")),
        b'Z' => format!("{tag} {}", char::from(message.body[0])),
        // Channel and payload; the pid differs.
        b'A' => format!("{tag} {}", String::from_utf8_lossy(&message.body[4..])),
        // It may come at any time, and comes earlier where the proxy reads a ReadyForQuery of its own.
        b'S' => return None,
        _ => tag.to_string(),
    })
}

/// The names of a RowDescription; its oids differ.
fn columns(body: &[u8]) -> Vec<String> {
    let mut rest = &body[2..];
    let mut names = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
        rest = &rest[end + 1 + 18..];
    }
    names
}

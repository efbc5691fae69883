//! The messages that the proxy itself sends to a client as a backend. This is the only place that makes such messages.

use super::message::put_frame;
use crate::report::{Report, Severity};
use bytes::{BufMut, BytesMut};

/// ErrorResponse or NoticeResponse, by severity.
pub fn put_report(out: &mut BytesMut, report: &Report) {
    let tag = match report.severity {
        Severity::Notice | Severity::Warning => b'N',
        Severity::Error | Severity::Fatal => b'E',
    };
    put_frame(out, tag, |b| {
        field(b, b'S', report.severity.as_str());
        field(b, b'V', report.severity.as_str());
        field(b, b'C', report.sqlstate);
        field(b, b'M', &report.message);
        if let Some(detail) = &report.detail {
            field(b, b'D', detail);
        }
        if let Some(hint) = &report.hint {
            field(b, b'H', hint);
        }
        b.put_u8(0);
    });
}

fn field(b: &mut BytesMut, code: u8, text: &str) {
    b.put_u8(code);
    // A NUL would end the field early, and the bytes behind it would be read as another field.
    b.extend(text.bytes().filter(|byte| *byte != 0));
    b.put_u8(0);
}

pub fn put_command_complete(out: &mut BytesMut, tag: &str) {
    put_frame(out, b'C', |b| {
        b.extend(tag.bytes().filter(|byte| *byte != 0));
        b.put_u8(0);
    });
}

/// A ReadyForQuery with `status`: `I`, `T` or `E`.
pub fn put_ready(out: &mut BytesMut, status: u8) {
    put_frame(out, b'Z', |b| b.put_u8(status));
}

/// The frames of one report.
pub fn report(report: &Report) -> BytesMut {
    let mut out = BytesMut::new();
    put_report(&mut out, report);
    out
}

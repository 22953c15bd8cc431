//! gRPC over HTTP/2: message framing, status in headers and trailers, deadlines.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use tokio::time::Instant;

use crate::message::Rope;
use crate::status::{Code, Status};

/// Length of the prefix of each gRPC message: one flag byte, four bytes of length.
pub const PREFIX_LEN: usize = 5;
/// The code a call ended with.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The text of a status, percent-encoded.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// How long the client waits.
pub const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// How a message is compressed.
pub const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// How a response may be compressed.
pub const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// Tells gRPC clients how many milliseconds to wait before they retry.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// The content type of gRPC.
pub const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// What the gRPC specification percent-encodes in `grpc-message`, beside non-ASCII bytes.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');
/// A status text, percent-encoded, must fit into the header limit of ordinary clients, which is 8 KiB.
const MAX_MESSAGE_BYTES: usize = 6000;

/// One gRPC message, without its prefix.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The flag of the prefix: the body is compressed as `grpc-encoding` says.
    pub compressed: bool,
    /// The encoded message.
    pub body: Rope,
}

impl Message {
    /// A plain message.
    #[must_use]
    pub fn of(encoded: impl Into<Bytes>) -> Self {
        Self { compressed: false, body: Rope::from(encoded.into()) }
    }

    /// The prefix of this message.
    #[must_use]
    pub fn prefix(&self) -> [u8; PREFIX_LEN] {
        prefix(self.compressed, self.body.len())
    }
}

/// The prefix of a message of `len` bytes.
#[must_use]
pub fn prefix(compressed: bool, len: usize) -> [u8; PREFIX_LEN] {
    let [a, b, c, d] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    [u8::from(compressed), a, b, c, d]
}

/// The flag and length in the first bytes, once there are enough.
#[must_use]
pub fn parse_prefix(bytes: &[u8]) -> Option<(u8, usize)> {
    bytes.first_chunk::<PREFIX_LEN>().copied().map(read_prefix)
}

/// The flag and length of a prefix.
#[must_use]
pub fn read_prefix([flag, a, b, c, d]: [u8; PREFIX_LEN]) -> (u8, usize) {
    (flag, u32::from_be_bytes([a, b, c, d]) as usize)
}

/// `message` as one buffer with its prefix.
#[must_use]
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_LEN + message.len());
    framed.put_slice(&prefix(false, message.len()));
    framed.put_slice(message);
    framed.freeze()
}

/// Adds `grpc-status` and what belongs to it to headers or trailers.
pub fn write_status(headers: &mut HeaderMap, status: &Status) {
    headers.insert(STATUS, HeaderValue::from(status.code as u16));
    if !status.message.is_empty()
        && let Ok(value) = HeaderValue::from_str(&encoded(&status.message))
    {
        headers.insert(MESSAGE, value);
    }
    if let Some(pause) = status.retry_after {
        headers.insert(PUSHBACK, HeaderValue::from(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)));
    }
}

/// `message` percent-encoded, and cut where it is too long.
fn encoded(message: &str) -> String {
    let whole = utf8_percent_encode(message, ESCAPED).to_string();
    if whole.len() <= MAX_MESSAGE_BYTES {
        return whole;
    }
    let mut cut = String::with_capacity(MAX_MESSAGE_BYTES);
    for char in message.chars() {
        let char = utf8_percent_encode(char.encode_utf8(&mut [0; 4]), ESCAPED).to_string();
        if cut.len() + char.len() > MAX_MESSAGE_BYTES {
            break;
        }
        cut.push_str(&char);
    }
    cut + "..."
}

/// The status in headers or trailers; `None` where there is none.
#[must_use]
pub fn read_status(headers: &HeaderMap) -> Option<Status> {
    let number = headers.get(STATUS)?.to_str().ok()?.parse().ok().unwrap_or(usize::MAX);
    let message = headers
        .get(MESSAGE)
        .map_or(Cow::Borrowed(""), |raw| String::from_utf8_lossy(raw.as_bytes()).into_owned().into());
    let message = percent_decode_str(&message).decode_utf8_lossy().into_owned();
    let retry_after = headers.get(PUSHBACK).and_then(|raw| raw.to_str().ok()?.parse().ok());
    Some(Status {
        retry_after: retry_after.map(Duration::from_millis),
        ..Status::new(Code::from_number(number), message)
    })
}

/// The status that gRPC gives to an answer that is no gRPC answer.
#[must_use]
pub fn status_of_http(code: http::StatusCode) -> Status {
    let grpc = match code.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(grpc, format!("the server answered HTTP {}", code.as_u16()))
}

/// The head of an answer that is only a status ("Trailers-Only").
#[must_use]
pub fn status_head(status: &Status) -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    write_status(response.headers_mut(), status);
    response
}

/// The deadline that `grpc-timeout` sets, counted from now.
///
/// # Errors
/// `INVALID_ARGUMENT` if the header is not of the form `<at most 8 digits><H|M|S|m|u|n>`.
pub fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Status> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(parse_timeout);
    match timeout {
        Some(timeout) => Ok(Instant::now().checked_add(timeout)),
        None => Err(Status::invalid(format!("grpc-timeout {value:?} is not a number and a unit"))),
    }
}

fn parse_timeout(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The `grpc-timeout` of what is left until `deadline`.
#[must_use]
pub fn timeout_until(deadline: Instant) -> HeaderValue {
    let left = deadline.saturating_duration_since(Instant::now());
    let (count, unit) = match left.as_micros() {
        micros @ 0..=99_999_999 => (micros, 'u'),
        _ if left.as_millis() <= 99_999_999 => (left.as_millis(), 'm'),
        _ => (u128::from(left.as_secs()).min(99_999_999), 'S'),
    };
    HeaderValue::from_str(&format!("{count}{unit}")).unwrap_or(HeaderValue::from_static("0u"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_parsed_in_every_unit() {
        for (text, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("5S", Duration::from_secs(5)),
            ("99999999m", Duration::from_millis(99_999_999)),
            ("7u", Duration::from_micros(7)),
            ("8n", Duration::from_nanos(8)),
        ] {
            assert_eq!(parse_timeout(text), Some(expected), "{text}");
        }
        for text in ["", "S", "1", "123456789S", "-1S", "1s", "1 S", "1é"] {
            assert_eq!(parse_timeout(text), None, "{text}");
        }
    }

    #[test]
    fn a_status_survives_the_wire() {
        let status = Status {
            retry_after: Some(Duration::from_millis(250)),
            ..Status::new(Code::NotFound, "größer als 100 %\nmodel")
        };
        let mut headers = HeaderMap::new();
        write_status(&mut headers, &status);
        assert_eq!(read_status(&headers), Some(status));
    }

    #[test]
    fn a_long_status_text_is_cut_to_what_clients_accept_in_headers() {
        for text in ["ö€😀%", "a"] {
            let mut headers = HeaderMap::new();
            write_status(&mut headers, &Status::new(Code::Unknown, text.repeat(7000)));
            assert!(headers[MESSAGE].len() < 6100, "{}", headers[MESSAGE].len());
            let message = read_status(&headers).unwrap().message;
            assert!(message.starts_with(&text.repeat(200)), "{message}");
            assert!(message.ends_with("...") && !message.contains('\u{fffd}'), "{message}");
        }
    }
}

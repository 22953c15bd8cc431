//! gRPC over HTTP/2: framing of unary messages, status in headers and trailers.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use prost::Message;

/// The header, or trailer, of the code that a call ended with.
pub const STATUS: &str = "grpc-status";
/// The header, or trailer, of a status text, percent-encoded.
pub const MESSAGE: &str = "grpc-message";
/// The content type of gRPC.
pub const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
/// Bytes before each message: a flag, and the length.
const PREFIX_LEN: usize = 5;

/// What gRPC percent-encodes in a status text, beside what is not ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// The codes of gRPC, each at its number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A gRPC code by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(u8);

#[allow(missing_docs)] // the names are gRPC's
impl Code {
    pub const OK: Self = Self(0);
    pub const CANCELLED: Self = Self(1);
    pub const UNKNOWN: Self = Self(2);
    pub const INVALID_ARGUMENT: Self = Self(3);
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    pub const NOT_FOUND: Self = Self(5);
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    pub const FAILED_PRECONDITION: Self = Self(9);
    pub const ABORTED: Self = Self(10);
    pub const UNIMPLEMENTED: Self = Self(12);
    pub const INTERNAL: Self = Self(13);
    pub const UNAVAILABLE: Self = Self(14);
}

impl Code {
    /// The name in gRPC's documentation; `UNKNOWN` for a number that has none.
    #[must_use]
    pub fn name(self) -> &'static str {
        CODES.get(usize::from(self.0)).copied().unwrap_or("UNKNOWN")
    }

    /// The code of a name or a number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = CODES.iter().position(|name| *name == text).or_else(|| text.parse().ok())?;
        (number < CODES.len()).then(|| u8::try_from(number).ok().map(Self))?
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What kind of failure.
    pub code: Code,
    /// What happened.
    pub message: String,
}

impl Status {
    /// A status with a text.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Writes `grpc-status` and `grpc-message`.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(STATUS, HeaderValue::from(u16::from(self.code.0)));
        let text = utf8_percent_encode(&self.message, ESCAPED).to_string();
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(MESSAGE, value);
        }
    }

    /// Reads what `write` wrote; `None` where there is no status.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get(STATUS)?.to_str().ok().and_then(Code::parse).unwrap_or(Code::UNKNOWN);
        let text = headers.get(MESSAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Some(Self::new(code, percent_decode_str(text).decode_utf8_lossy()))
    }
}

impl From<h2::Error> for Status {
    fn from(error: h2::Error) -> Self {
        Self::new(Code::UNAVAILABLE, format!("the connection failed: {error}"))
    }
}

/// `message`, encoded, behind its prefix.
pub fn frame(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_LEN + len);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    message.encode_raw(&mut framed);
    framed.freeze()
}

/// Reads the body up to its end and returns its one message, without the prefix.
///
/// # Errors
/// `INTERNAL` where it is not one uncompressed message, and what the connection failed with.
pub async fn read_message(body: &mut RecvStream) -> Result<Bytes, Status> {
    let mut received = BytesMut::new();
    let mut first = Bytes::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        if first.is_empty() {
            first = data;
        } else {
            if received.is_empty() {
                received.put_slice(&first);
            }
            received.put_slice(&data);
        }
    }
    let mut message = if received.is_empty() { first } else { received.freeze() };
    let announced = message.first_chunk::<PREFIX_LEN>().copied();
    let Some([0, a, b, c, d]) = announced else {
        return Err(Status::new(Code::INTERNAL, "the body holds no uncompressed message"));
    };
    let body = message.split_off(PREFIX_LEN);
    if u32::from_be_bytes([a, b, c, d]) as usize == body.len() {
        Ok(body)
    } else {
        Err(Status::new(Code::INTERNAL, "the body is not one whole message"))
    }
}

/// Locks a mutex that guards plain data: what a panic left behind is still the data.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_by_name_and_by_number() {
        assert_eq!(Code::parse("UNAVAILABLE"), Some(Code::UNAVAILABLE));
        assert_eq!(Code::parse("5"), Some(Code::NOT_FOUND));
        assert_eq!(Code::parse("17"), None);
        assert_eq!(Code::parse("NO_CODE"), None);
        assert_eq!(Code::RESOURCE_EXHAUSTED.name(), "RESOURCE_EXHAUSTED");
    }

    #[test]
    fn a_status_survives_the_wire() {
        let status = Status::new(Code::FAILED_PRECONDITION, "größer als 100 %\nmodel");
        let mut headers = HeaderMap::new();
        status.write(&mut headers);
        assert_eq!(Status::read(&headers), Some(status));
        assert_eq!(Status::read(&HeaderMap::new()), None);
    }
}

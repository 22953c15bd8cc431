//! Answers that are read as a whole: those of REST, of several models at once, and what this instance asks.

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;

use crate::body::Answer;
use crate::compression;
use crate::grpc::{self, Message};
use crate::message::Rope;
use crate::status::{Code, Status};

/// The one message of a gRPC answer, without compression.
///
/// # Errors
/// The status that the answer ends with, unless it is OK; `RESOURCE_EXHAUSTED` if it is larger than `limit`
/// bytes; `INTERNAL` if it is not one message.
pub async fn message(response: Response<Answer>, limit: usize) -> Result<Bytes, Status> {
    let (head, body) = response.into_parts();
    let mut body = std::pin::pin!(body);
    let mut status = grpc::read_status(&head.headers);
    let mut rope = Rope::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::unavailable(format!("the answer broke off: {error}")))?;
        match frame.into_data() {
            Ok(data) => rope.receive(data),
            Err(frame) => status = frame.trailers_ref().and_then(grpc::read_status).or(status),
        }
        if rope.len() > limit.saturating_add(grpc::PREFIX_LEN) {
            return Err(too_large(limit));
        }
    }
    match status {
        Some(status) if status.code != Code::Ok => return Err(status),
        Some(_) => {}
        None => return Err(Status::new(Code::Internal, "the server ended its answer without a status")),
    }
    let (compressed, body) = unframed(rope)?;
    let message = Message { compressed, body };
    match compression::plain_aside(message, &head.headers, limit).await {
        Ok(message) => Ok(message.body.to_bytes()),
        Err(status) if status.code == Code::ResourceExhausted => Err(too_large(limit)),
        Err(status) => Err(Status::new(
            Code::Internal,
            format!("the server's answer cannot be read: {}", status.message),
        )),
    }
}

/// Whether the one message of an answer is compressed, and the message.
///
/// # Errors
/// `INTERNAL` if the answer is not exactly one message.
pub fn unframed(mut answer: Rope) -> Result<(bool, Rope), Status> {
    match answer.first().map(grpc::read_prefix) {
        Some((flag @ (0 | 1), len)) if answer.len() == grpc::PREFIX_LEN + len => {
            answer.advance(grpc::PREFIX_LEN);
            Ok((flag == 1, answer))
        }
        _ => Err(Status::new(Code::Internal, "the server's answer is not one message")),
    }
}

fn too_large(limit: usize) -> Status {
    Status { http: Some(500), ..Status::too_large("response message", limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_exactly_one_message() {
        let unframed = |bytes: &[u8]| {
            unframed(Bytes::copy_from_slice(bytes).into())
                .map(|(compressed, body)| (compressed, body.to_bytes()))
        };
        assert_eq!(unframed(&grpc::frame(b"12")), Ok((false, "12".into())));
        assert_eq!(unframed(&grpc::frame(b"")), Ok((false, "".into())));
        assert_eq!(unframed(&[1, 0, 0, 0, 1, b'x']), Ok((true, "x".into())));
        let two = [grpc::frame(b"1"), grpc::frame(b"2")].concat();
        for body in [&b""[..], b"\0\0\0\0", &grpc::frame(b"12")[..6], b"\x02\0\0\0\0", &two] {
            assert_eq!(unframed(body).unwrap_err().code, Code::Internal, "{body:?}");
        }
    }
}

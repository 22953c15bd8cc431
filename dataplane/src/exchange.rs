//! One call to one server, up to the beginning of the answer.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::body::{Answer, Held, Outgoing, Relay};
use crate::grpc::{self, Message};
use crate::headers;
use crate::status::{Code, Status};
use crate::upstream::{Unreachable, Upstream};

/// The beginning of a server's answer: enough to know whether it is one.
#[derive(Debug)]
pub struct Served {
    /// The head of the answer.
    pub head: response::Parts,
    first: Option<Frame<Bytes>>,
    rest: Incoming,
    /// The final status, where it is known already.
    pub status: Option<Status>,
}

impl Served {
    /// The final code, where it is known already.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        self.status.as_ref().map(|status| status.code)
    }

    /// The answer for the client.
    #[must_use]
    pub fn answer(mut self, deadline: Option<Instant>, held: Held) -> Response<Answer> {
        headers::clean_answer(&mut self.head.headers);
        let body = match self.first {
            None => {
                held.end(self.status.map_or(Code::Unknown, |status| status.code));
                Answer::empty()
            }
            first => Answer::Relay { relay: Relay::new(first, self.rest, deadline, held) },
        };
        Response::from_parts(self.head, body)
    }
}

/// Why a server gave no answer to a call.
#[derive(Debug)]
pub struct NoAnswer {
    /// What to tell the client.
    pub status: Status,
    /// Who may do better.
    pub remedy: Remedy,
}

/// What can be done about a call without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The server did not get the call: send it elsewhere, or again.
    Elsewhere,
    /// The server got the call and broke: it may do so again.
    OnceMore,
    /// Nobody: the answer itself is at fault.
    Nothing,
}

impl From<Unreachable> for NoAnswer {
    fn from(cause: Unreachable) -> Self {
        let remedy = if cause.sent { Remedy::OnceMore } else { Remedy::Elsewhere };
        Self { status: Status::unavailable(format!("no answer from the server: {cause}")), remedy }
    }
}

/// Sends a call to a server and waits for the first frame of the answer.
///
/// # Errors
/// [`NoAnswer`] if there is none, or one that is not gRPC, or one of more than `limit` bytes.
pub async fn exchange(
    upstream: &Arc<Upstream>,
    path: &PathAndQuery,
    headers: HeaderMap,
    message: &Message,
    limit: usize,
) -> Result<Served, NoAnswer> {
    let mut request = Request::new(Outgoing::message(message));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = upstream.uri(path);
    *request.headers_mut() = headers;
    let (head, mut rest) = upstream.send(request).await?.into_parts();
    if head.status != StatusCode::OK {
        let status = grpc::status_of_http(head.status);
        let remedy = if status.code == Code::Unavailable { Remedy::Elsewhere } else { Remedy::Nothing };
        return Err(NoAnswer { status, remedy });
    }
    if let Some(status) = grpc::read_status(&head.headers) {
        return Ok(Served { head, first: None, rest, status: Some(status) });
    }
    let first = loop {
        match rest.frame().await {
            Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
            Some(Ok(frame)) => break frame,
            Some(Err(error)) => return Err(upstream.broke_off(&error).into()),
            None => return Err(upstream.broke_off(&"it ended without a status").into()),
        }
    };
    if let Some((_, len)) = first.data_ref().and_then(|data| grpc::parse_prefix(data))
        && len > limit
    {
        let status = Status { http: Some(500), ..Status::too_large("response message", limit) };
        return Err(NoAnswer { status, remedy: Remedy::Nothing });
    }
    let status = first.trailers_ref().map(|trailers| {
        grpc::read_status(trailers).unwrap_or(Status::new(Code::Unknown, "the server gave no status"))
    });
    Ok(Served { head, first: Some(first), rest, status })
}

//! One call to one server, up to the beginning of the answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::body::{Answer, Held, Outgoing, Relay};
use crate::grpc;
use crate::headers;
use crate::messages::Rest;
use crate::status::{Code, Status};
use crate::upstream::{Unreachable, Upstream};

/// The beginning of a server's answer: enough to know whether it is one.
#[derive(Debug)]
pub struct Served {
    /// The head of the answer.
    pub head: response::Parts,
    first: Option<Frame<Bytes>>,
    /// `None` where the head is all there is.
    rest: Option<Incoming>,
    /// The final status, where it is known already.
    pub status: Option<Status>,
    limit: usize,
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
        let body = match self.rest {
            None => {
                held.end(self.status.map_or(Code::Unknown, |status| status.code));
                Answer::empty()
            }
            Some(rest) => Answer::Relay { relay: Relay::new(self.first, rest, self.limit, deadline, held) },
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

/// Sends a call to a server and waits for the first frame of the answer; where the client has more to send
/// (`client`), which may depend on the head of the answer, for the head only.
///
/// # Errors
/// [`NoAnswer`] if there is none, or one that is not gRPC, or one of more than `limit` bytes.
pub async fn exchange(
    upstream: &Arc<Upstream>,
    path: &PathAndQuery,
    headers: HeaderMap,
    body: Outgoing,
    client: Option<&Rest>,
    limit: usize,
) -> Result<Served, NoAnswer> {
    let mut request = Request::new(body);
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
        return Ok(Served { head, first: None, rest: None, status: Some(status), limit });
    }
    let has_more = client.is_some_and(|client| !client.is_ended());
    let first = first_frame(upstream, &mut rest, has_more).await?;
    if let Some((_, len)) = first.as_ref().and_then(Frame::data_ref).and_then(|data| grpc::parse_prefix(data))
        && len > limit
    {
        let status = Status { http: Some(500), ..Status::too_large("response message", limit) };
        return Err(NoAnswer { status, remedy: Remedy::Nothing });
    }
    let status = first.as_ref().and_then(Frame::trailers_ref).map(|trailers| {
        grpc::read_status(trailers).unwrap_or(Status::new(Code::Unknown, "the server gave no status"))
    });
    Ok(Served { head, first, rest: Some(rest), status, limit })
}

/// The first frame that says something; `None` where it is not there yet and `is_optional`.
async fn first_frame(
    upstream: &Upstream,
    rest: &mut Incoming,
    is_optional: bool,
) -> Result<Option<Frame<Bytes>>, Unreachable> {
    poll_fn(|context| {
        loop {
            return Poll::Ready(match Pin::new(&mut *rest).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(Bytes::is_empty) => continue,
                Poll::Ready(Some(Ok(frame))) => Ok(Some(frame)),
                Poll::Ready(Some(Err(error))) => Err(upstream.broke_off(&error)),
                Poll::Ready(None) => Err(upstream.broke_off(&"it ended without a status")),
                Poll::Pending if is_optional => Ok(None),
                Poll::Pending => return Poll::Pending,
            });
        }
    })
    .await
}

//! Unary calls that the policy makes: of its model server, and of its peers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::{BodyExt, Limited};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::body::{Held, Outgoing};
use crate::exchange::exchange;
use crate::grpc::{self, Message};
use crate::inbox::{Event, Inbox};
use crate::plane::Plane;
use crate::status::{Code, Status};
use crate::upstream::Upstream;
use crate::whole;

/// A call to make.
#[derive(Debug)]
pub struct Request {
    /// `/<package>.<Service>/<Method>`.
    pub path: PathAndQuery,
    /// Metadata of the caller.
    pub headers: HeaderMap,
    /// The encoded request.
    pub message: Bytes,
    /// How long to wait; `None`: for ever.
    pub timeout: Option<Duration>,
}

/// How a call ended.
#[derive(Debug)]
pub struct Reply {
    /// What [`send`] returned for the call.
    pub number: u64,
    /// The status; anything but `OK` is an error.
    pub status: Status,
    /// Metadata from before the message.
    pub headers: HeaderMap,
    /// Metadata from after the message.
    pub trailers: HeaderMap,
    /// The message is compressed, as `grpc-encoding` says: some servers do so unasked.
    pub compressed: bool,
    /// The encoded answer; empty in case of an error.
    pub message: Bytes,
}

impl Reply {
    fn failed(number: u64, status: Status) -> Self {
        Self::without_message(number, status, HeaderMap::new(), HeaderMap::new())
    }

    fn without_message(number: u64, status: Status, headers: HeaderMap, trailers: HeaderMap) -> Self {
        Self { number, status, headers, trailers, compressed: false, message: Bytes::new() }
    }
}

/// Puts a reply in, whatever happens to the call.
struct Pending {
    inbox: Arc<Inbox>,
    number: u64,
    reply: Option<Reply>,
}

impl Pending {
    fn end(mut self, reply: Reply) {
        self.reply = Some(reply);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let given_up = || Reply::failed(self.number, Status::unavailable("the call was given up"));
        self.inbox.push(Event::Reply(self.reply.take().unwrap_or_else(given_up)));
    }
}

/// Sends a call, and returns its number and, where it is on its way, what ends it. Its [`Reply`] comes by the
/// inbox, also where the byte path does not run.
pub fn send(plane: &Plane, upstream: &Arc<Upstream>, request: Request) -> (u64, Option<AbortHandle>) {
    let number = plane.inbox.number();
    let pending = Pending { inbox: Arc::clone(&plane.inbox), number, reply: None };
    let Some(executor) = plane.executor.get() else {
        pending.end(Reply::failed(number, Status::unavailable("the byte path does not run")));
        return (number, None);
    };
    let upstream = Arc::clone(upstream);
    let limit = plane.config.max_message_bytes;
    let task = executor.spawn(async move {
        let timeout = request.timeout;
        let work = call(&upstream, number, request, limit);
        let outcome = match timeout {
            Some(timeout) => {
                tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(Status::deadline()))
            }
            None => work.await,
        };
        pending.end(outcome.unwrap_or_else(|status| Reply::failed(number, status)));
    });
    (number, Some(task.abort_handle()))
}

async fn call(
    upstream: &Arc<Upstream>,
    number: u64,
    request: Request,
    limit: usize,
) -> Result<Reply, Status> {
    let mut headers = request.headers;
    headers.insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if let Some(deadline) = request.timeout.and_then(|timeout| Instant::now().checked_add(timeout)) {
        headers.insert(grpc::TIMEOUT, grpc::timeout_until(deadline));
    }
    let body = Outgoing::message(&Message::of(request.message));
    let served = exchange(upstream, &request.path, headers, body, None, limit).await;
    let served = served.map_err(|cause| cause.status)?;
    let headers = served.head.headers.clone();
    let status = served.status.clone();
    let body = Limited::new(served.answer(None, Held::default()).into_body(), limit + grpc::PREFIX_LEN);
    let collected =
        body.collect().await.map_err(|error| Status::new(Code::ResourceExhausted, error.to_string()))?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let status = status.or_else(|| grpc::read_status(&trailers));
    let status = status.unwrap_or(Status::new(Code::Unknown, "the server gave no status"));
    if status.code != Code::Ok {
        return Ok(Reply::without_message(number, status, headers, trailers));
    }
    let (compressed, message) = whole::unframed(collected.to_bytes().into())?;
    Ok(Reply { number, status, headers, trailers, compressed, message: message.to_bytes() })
}

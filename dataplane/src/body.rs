//! The bodies that go out: requests to servers, answers to clients.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use smallvec::SmallVec;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::compression;
use crate::grpc::{self, Message};
use crate::message;
use crate::messages::{Abandoned, Closing, Turn};
use crate::metrics::{ApiTimer, InvokeTimer};
use crate::rpcs::Methods;
use crate::status::{Code, Status};
use crate::table::{LocalUse, Model};
use crate::upstream::Occupied;

/// Messages up to this size go out in one buffer: copying them costs less than another frame.
const FLATTEN_BELOW: usize = 8192;

/// What is done to each message of a stream on its way to the model server.
#[derive(Debug)]
pub struct Injection {
    /// Where the server wants the concrete id.
    pub methods: Arc<Methods>,
    /// `<package>.<Service>/<Method>`.
    pub method: Box<str>,
    /// The model.
    pub model: Arc<Model>,
    /// The client's headers, which say how messages are compressed.
    pub headers: HeaderMap,
    /// Largest message, in bytes.
    pub limit: usize,
}

impl Injection {
    /// The message with the concrete id, where the server reads one.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` or `UNIMPLEMENTED` if the message cannot be read.
    pub fn apply(&self, message: Message) -> Result<Message, Status> {
        inject(&self.methods, &self.method, &self.model, message, &self.headers, self.limit)
    }
}

/// `message` with the id of `model`, where the model server reads one.
///
/// # Errors
/// `UNIMPLEMENTED` if the server does not offer the method or the message is compressed in a way not known
/// here; `INVALID_ARGUMENT` if it is malformed.
pub fn inject(
    methods: &Methods,
    method: &str,
    model: &Model,
    message: Message,
    headers: &HeaderMap,
    limit: usize,
) -> Result<Message, Status> {
    let path = methods.injection_path(method)?;
    if path.is_empty() {
        return Ok(message);
    }
    let message = compression::plain(message, headers, limit)?;
    let body = message::splice(&message.body, path, &model.id).map_err(Status::malformed)?;
    Ok(Message { compressed: false, body })
}

#[derive(Debug)]
struct Tail {
    turn: Turn,
    injection: Option<Injection>,
}

/// The body of a request to a server: gRPC messages, in pieces.
#[derive(Debug)]
pub struct Outgoing {
    /// The last piece is sent first.
    pieces: SmallVec<[Bytes; 2]>,
    tail: Option<Tail>,
}

impl Outgoing {
    /// The body that carries `message` alone.
    #[must_use]
    pub fn message(message: &Message) -> Self {
        Self { pieces: pieces(message), tail: None }
    }

    /// The body without a message.
    #[must_use]
    pub fn nothing() -> Self {
        Self { pieces: SmallVec::new(), tail: None }
    }

    /// The body that carries `first`, if there is one, and the messages that come by `turn`.
    #[must_use]
    pub fn stream(first: Option<&Message>, turn: Turn, injection: Option<Injection>) -> Self {
        Self { pieces: first.map(pieces).unwrap_or_default(), tail: Some(Tail { turn, injection }) }
    }
}

/// A message with its prefix, last piece first.
fn pieces(message: &Message) -> SmallVec<[Bytes; 2]> {
    let prefix = message.prefix();
    if message.body.len() < FLATTEN_BELOW {
        let mut flat = BytesMut::with_capacity(prefix.len() + message.body.len());
        flat.extend_from_slice(&prefix);
        for chunk in message.body.chunks() {
            flat.extend_from_slice(chunk);
        }
        return SmallVec::from_iter([flat.freeze()]);
    }
    let mut pieces: SmallVec<[Bytes; 2]> = message.body.chunks().iter().rev().cloned().collect();
    // A frame for the prefix alone would cost more than the copy.
    let is_small = pieces.last().is_some_and(|first| first.len() < FLATTEN_BELOW);
    let first = if is_small { pieces.pop() } else { None }.unwrap_or_default();
    pieces.push([&prefix, &*first].concat().into());
    pieces
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(piece) = this.pieces.pop() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Some(tail) = &this.tail else { return Poll::Ready(None) };
            let message = match ready!(tail.turn.poll_next(context)) {
                Ok(None) => {
                    this.tail = None;
                    return Poll::Ready(None);
                }
                Ok(Some(message)) => message,
                Err(Abandoned) => return Poll::Ready(Some(Err(h2::Reason::CANCEL.into()))),
            };
            let injected = match &tail.injection {
                Some(injection) => injection.apply(message),
                None => Ok(message),
            };
            match injected {
                Ok(message) => this.pieces = pieces(&message),
                Err(status) => {
                    tail.turn.fail(status);
                    return Poll::Ready(Some(Err(h2::Reason::CANCEL.into())));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.tail.is_none()
    }
}

/// What a request holds while its answer is on the way.
#[derive(Debug, Default)]
pub struct Held {
    /// The local copy.
    pub local: Option<LocalUse>,
    /// The turn at the model server.
    pub turn: Option<OwnedSemaphorePermit>,
    /// The peer.
    pub peer: Option<Occupied>,
    /// The measurement of the model server's call.
    pub invoke: Option<InvokeTimer>,
    /// The measurement of the client's request.
    pub api: Option<ApiTimer>,
    /// What the client still sends.
    pub closing: Option<Closing>,
}

impl Held {
    /// Ends what has no body to wait for.
    pub fn end(mut self, code: Code) {
        self.finish(code, 0);
    }

    fn finish(&mut self, code: Code, bytes: u64) {
        if let Some(timer) = self.invoke.take() {
            timer.finish(code);
        }
        if let Some(timer) = self.api.take() {
            timer.finish(code, bytes);
        }
        self.local = None;
        self.turn = None;
        self.peer = None;
        self.closing = None;
    }
}

/// Looks at the length of each message of an answer as it passes.
#[derive(Debug)]
struct Sizes {
    limit: usize,
    /// Bytes until the next prefix.
    left: usize,
    prefix: [u8; grpc::PREFIX_LEN],
    /// Bytes of the next prefix that have come.
    known: usize,
}

impl Sizes {
    fn new(limit: usize) -> Self {
        Self { limit, left: 0, prefix: [0; grpc::PREFIX_LEN], known: 0 }
    }

    /// False if a message begins in `data` that is larger than the limit.
    fn accept(&mut self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let passed = self.left.min(data.len());
            self.left -= passed;
            data = &data[passed..];
            if self.left > 0 {
                break;
            }
            let read = data.len().min(grpc::PREFIX_LEN - self.known);
            self.prefix[self.known..self.known + read].copy_from_slice(&data[..read]);
            self.known += read;
            data = &data[read..];
            if self.known == grpc::PREFIX_LEN {
                self.known = 0;
                self.left = grpc::read_prefix(self.prefix).1;
                if self.left > self.limit {
                    return false;
                }
            }
        }
        true
    }
}

pin_project! {
    /// An answer on its way from a server to the client: passed on as it comes, ended with a status whatever
    /// happens to the server, and measured.
    #[derive(Debug)]
    pub struct Relay {
        first: Option<Frame<Bytes>>,
        source: Option<Incoming>,
        sizes: Sizes,
        #[pin]
        deadline: Option<Sleep>,
        held: Held,
        bytes: u64,
    }
}

impl Relay {
    /// An answer whose `first` frame, if there is one, has been read from `source`; its messages may have
    /// `limit` bytes.
    #[must_use]
    pub fn new(
        first: Option<Frame<Bytes>>,
        source: Incoming,
        limit: usize,
        deadline: Option<Instant>,
        held: Held,
    ) -> Self {
        let deadline = deadline.map(tokio::time::sleep_until);
        Self { first, source: Some(source), sizes: Sizes::new(limit), deadline, held, bytes: 0 }
    }

    /// Measures the client's request until the end of this answer.
    pub fn measure(&mut self, timer: ApiTimer) {
        self.held.api = Some(timer);
    }

    /// Ends the reading of what the client still sends with this answer.
    pub fn close(&mut self, closing: Closing) {
        self.held.closing = Some(closing);
    }

    fn poll_source(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let this = self.project();
        if let Some(frame) = this.first.take() {
            // Its prefix has been looked at.
            if let Some(data) = frame.data_ref() {
                this.sizes.accept(data);
            }
            return Poll::Ready(Some(frame));
        }
        let Some(source) = this.source.as_mut() else { return Poll::Ready(None) };
        let failure = match Pin::new(source).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref() {
                Some(data) if !this.sizes.accept(data) => {
                    Status::too_large("response message", this.sizes.limit)
                }
                _ => return Poll::Ready(Some(frame)),
            },
            Poll::Ready(Some(Err(error))) => {
                this.held.closing.as_ref().and_then(Closing::failure).unwrap_or_else(|| {
                    Status::unavailable(format!("the server broke off its answer: {error}"))
                })
            }
            Poll::Ready(None) => Status::new(Code::Internal, "the server ended its answer without a status"),
            Poll::Pending => {
                let Some(deadline) = this.deadline.as_pin_mut() else { return Poll::Pending };
                ready!(deadline.poll(context));
                Status::deadline()
            }
        };
        let mut trailers = HeaderMap::new();
        grpc::write_status(&mut trailers, &failure);
        Poll::Ready(Some(Frame::trailers(trailers)))
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(frame) = ready!(self.as_mut().poll_source(context)) else { return Poll::Ready(None) };
        let this = self.project();
        if let Some(data) = frame.data_ref() {
            *this.bytes += data.len() as u64;
        } else if let Some(trailers) = frame.trailers_ref() {
            let code = grpc::read_status(trailers).map_or(Code::Unknown, |status| status.code);
            *this.source = None;
            this.held.finish(code, this.bytes.saturating_sub(grpc::PREFIX_LEN as u64));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.source.is_none()
    }
}

pin_project! {
    /// The body of an answer to a client.
    #[project = AnswerProjection]
    #[derive(Debug)]
    #[allow(missing_docs)] // the macro takes no documentation of a variant's fields
    pub enum Answer {
        /// A body known as a whole, and its trailers.
        Whole { data: Option<Bytes>, trailers: Option<HeaderMap> },
        /// A model's answer.
        Relay { #[pin] relay: Relay },
    }
}

impl Answer {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::Whole { data: None, trailers: None }
    }

    /// A body without trailers.
    #[must_use]
    pub fn bytes(data: impl Into<Bytes>) -> Self {
        Self::Whole { data: Some(data.into()), trailers: None }
    }

    /// A gRPC message with the status OK.
    #[must_use]
    pub fn message(message: &[u8]) -> Self {
        let mut trailers = HeaderMap::new();
        grpc::write_status(&mut trailers, &Status::new(Code::Ok, ""));
        Self::Whole { data: Some(grpc::frame(message)), trailers: Some(trailers) }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.project() {
            AnswerProjection::Whole { data, trailers } => {
                let frame = data.take().map(Frame::data).or_else(|| trailers.take().map(Frame::trailers));
                Poll::Ready(frame.map(Ok))
            }
            AnswerProjection::Relay { relay } => relay.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { data, trailers } => data.is_none() && trailers.is_none(),
            Self::Relay { relay } => relay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { data, trailers: None } => {
                SizeHint::with_exact(data.as_ref().map_or(0, Bytes::len) as u64)
            }
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_an_answer_is_measured_wherever_it_is_cut() {
        let answer =
            [grpc::frame(b"1"), grpc::frame(b""), grpc::frame(b"12345"), grpc::frame(b"123456")].concat();
        for size in 1..answer.len() {
            let mut sizes = Sizes::new(5);
            let refused = answer.chunks(size).position(|chunk| !sizes.accept(chunk)).unwrap();
            // The prefix of the fourth message ends at byte 26.
            assert_eq!(refused, 25 / size, "{size}");
            let mut sizes = Sizes::new(6);
            assert!(answer.chunks(size).all(|chunk| sizes.accept(chunk)));
        }
    }
}

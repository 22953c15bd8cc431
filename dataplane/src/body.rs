//! The bodies that go out: requests to servers, answers to clients.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use crate::grpc::{self, Message};
use crate::metrics::{ApiTimer, InvokeTimer};
use crate::status::{Code, Status};
use crate::table::LocalUse;
use crate::upstream::Occupied;

/// Messages up to this size go out in one buffer: copying them costs less than another frame.
const FLATTEN_BELOW: usize = 8192;

/// The body of a request to a server: one gRPC message, in pieces.
#[derive(Debug)]
pub struct Outgoing(VecDeque<Bytes>);

impl Outgoing {
    /// The body that carries `message`.
    #[must_use]
    pub fn message(message: &Message) -> Self {
        let prefix = message.prefix();
        if message.body.len() < FLATTEN_BELOW {
            let mut flat = BytesMut::with_capacity(prefix.len() + message.body.len());
            flat.extend_from_slice(&prefix);
            for chunk in message.body.chunks() {
                flat.extend_from_slice(chunk);
            }
            return Self(VecDeque::from([flat.freeze()]));
        }
        let mut pieces = VecDeque::with_capacity(1 + message.body.chunks().len());
        pieces.push_back(Bytes::copy_from_slice(&prefix));
        pieces.extend(message.body.chunks().iter().cloned());
        Self(pieces)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.get_mut().0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a request holds while its answer is on the way.
#[derive(Debug, Default)]
pub struct Held {
    /// The local copy.
    pub local: Option<LocalUse>,
    /// The peer.
    pub peer: Option<Occupied>,
    /// The measurement of the model server's call.
    pub invoke: Option<InvokeTimer>,
    /// The measurement of the client's request.
    pub api: Option<ApiTimer>,
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
        self.peer = None;
    }
}

pin_project! {
    /// An answer on its way from a server to the client: passed on as it comes, ended with a status whatever
    /// happens to the server, and measured.
    #[derive(Debug)]
    pub struct Relay {
        first: Option<Frame<Bytes>>,
        source: Option<Incoming>,
        #[pin]
        deadline: Option<Sleep>,
        held: Held,
        bytes: u64,
    }
}

impl Relay {
    /// An answer whose `first` frame has been read from `source`.
    #[must_use]
    pub fn new(first: Option<Frame<Bytes>>, source: Incoming, deadline: Option<Instant>, held: Held) -> Self {
        let deadline = deadline.map(tokio::time::sleep_until);
        Self { first, source: Some(source), deadline, held, bytes: 0 }
    }

    /// Measures the client's request until the end of this answer.
    pub fn measure(&mut self, timer: ApiTimer) {
        self.held.api = Some(timer);
    }

    fn poll_source(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let this = self.project();
        if let Some(frame) = this.first.take() {
            return Poll::Ready(Some(frame));
        }
        let Some(source) = this.source.as_mut() else { return Poll::Ready(None) };
        let failure = match Pin::new(source).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => return Poll::Ready(Some(frame)),
            Poll::Ready(Some(Err(error))) => {
                Status::unavailable(format!("the server broke off its answer: {error}"))
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

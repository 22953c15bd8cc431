//! The messages that a client sends, one by one, and how attempts at several servers share them.
//!
//! The first message is kept with the call, so that another copy can be tried with it. Those that follow are
//! handed on as they come and are not kept: once one of them was taken, no other copy can be tried.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use parking_lot::Mutex;

use crate::budget::{Budget, Holding};
use crate::grpc::{self, Message, PREFIX_LEN};
use crate::message::Rope;
use crate::status::{Code, Status};

/// Splits a body into gRPC messages. It holds at most one message and a frame.
#[derive(Debug)]
pub struct Messages<B> {
    body: B,
    received: Rope,
    limit: usize,
    ended: bool,
    /// The memory of `received`.
    holding: Holding,
}

impl<B: Body<Data = Bytes> + Unpin> Messages<B> {
    /// The messages of `body`, each of at most `limit` bytes, in the memory of `budget`.
    pub fn new(body: B, limit: usize, budget: &Arc<Budget>) -> Self {
        Self { body, received: Rope::default(), limit, ended: false, holding: Holding::new(budget) }
    }

    /// The next message; `None` after the last.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` if it is larger than the limit or there is no memory for it, `INVALID_ARGUMENT` if the body ends inside it,
    /// `CANCELLED` if the client goes away.
    pub async fn next(&mut self) -> Result<Option<Message>, Status> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Messages::next`].
    ///
    /// # Errors
    /// As [`Messages::next`].
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Message>, Status>> {
        loop {
            if let Some(prefix) = self.received.first::<PREFIX_LEN>() {
                let (flag, len) = grpc::read_prefix(prefix);
                if len > self.limit {
                    return Poll::Ready(Err(Status::too_large("request message", self.limit)));
                }
                if self.received.len() >= PREFIX_LEN + len {
                    self.received.advance(PREFIX_LEN);
                    let body = self.received.split_to(len);
                    self.holding.shrink(PREFIX_LEN + len);
                    return Poll::Ready(Ok(Some(Message { compressed: flag & 1 == 1, body })));
                }
            }
            if self.ended {
                return Poll::Ready(if self.received.is_empty() {
                    Ok(None)
                } else {
                    Err(Status::invalid("the request message is shorter than its prefix says"))
                });
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.holding.grow(data.len())?;
                        self.received.receive(data);
                    }
                }
                Some(Err(_)) => {
                    return Poll::Ready(Err(Status::new(Code::Cancelled, "the client went away")));
                }
                None => self.ended = true,
            }
        }
    }

    /// True if nothing of the next message has come.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.received.is_empty()
    }

    /// True if it is known that no message follows.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.received.is_empty() && (self.ended || self.body.is_end_stream())
    }
}

#[derive(Debug)]
struct State {
    /// `None` once nobody reads any more.
    messages: Option<Messages<Incoming>>,
    /// The number of the attempt that the messages go to.
    turn: u32,
    /// A message was handed to an attempt.
    taken: bool,
    /// What the client did wrong.
    failure: Option<Status>,
    waker: Option<Waker>,
}

/// What follows the first message of a stream.
#[derive(Debug)]
pub struct Rest(Mutex<State>);

impl Rest {
    /// What is left in `messages`.
    #[must_use]
    pub fn new(messages: Messages<Incoming>) -> Arc<Self> {
        let state = State { messages: Some(messages), turn: 0, taken: false, failure: None, waker: None };
        Arc::new(Self(Mutex::new(state)))
    }

    /// Begins an attempt: from now on the messages go to it, and to no earlier one.
    #[must_use]
    pub fn turn(self: &Arc<Self>) -> Turn {
        let mut state = self.0.lock();
        state.turn += 1;
        let turn = Turn { rest: Arc::clone(self), number: state.turn };
        wake(state.waker.take());
        turn
    }

    /// True if a message was handed on, so that no other copy can have it.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.0.lock().taken
    }

    /// True if no message follows.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.0.lock().messages.as_ref().is_none_or(Messages::is_ended)
    }

    /// What the client did wrong, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<Status> {
        self.0.lock().failure.clone()
    }

    /// The next message, for a call that is answered here.
    ///
    /// # Errors
    /// As [`Messages::next`].
    pub async fn next(&self) -> Result<Option<Message>, Status> {
        poll_fn(|context| match &mut self.0.lock().messages {
            Some(messages) => messages.poll_next(context),
            None => Poll::Ready(Ok(None)),
        })
        .await
    }

    fn close(&self) {
        let mut state = self.0.lock();
        state.messages = None;
        wake(state.waker.take());
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The messages do not reach the server that they were for: its stream is reset.
#[derive(Debug)]
pub struct Abandoned;

/// The attempt that the messages of a stream go to.
#[derive(Debug)]
pub struct Turn {
    rest: Arc<Rest>,
    number: u32,
}

impl Turn {
    /// The next message; `None` after the last.
    ///
    /// # Errors
    /// [`Abandoned`] where another attempt has begun, the call has ended, or the client made a mistake.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Result<Option<Message>, Abandoned>> {
        let mut state = self.rest.0.lock();
        if self.number != state.turn {
            return Poll::Ready(Err(Abandoned));
        }
        let Some(messages) = &mut state.messages else { return Poll::Ready(Err(Abandoned)) };
        match messages.poll_next(context) {
            Poll::Pending => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
            Poll::Ready(Ok(message)) => {
                state.taken |= message.is_some();
                Poll::Ready(Ok(message))
            }
            Poll::Ready(Err(status)) => {
                state.failure = Some(status);
                state.messages = None;
                Poll::Ready(Err(Abandoned))
            }
        }
    }

    /// Notes what the client did wrong.
    pub fn fail(&self, status: Status) {
        self.rest.0.lock().failure = Some(status);
    }
}

/// Ends the reading of a stream with the end of its call.
#[derive(Debug)]
pub struct Closing(Arc<Rest>);

impl Closing {
    /// Ends the reading of `rest` when dropped.
    #[must_use]
    pub fn new(rest: &Arc<Rest>) -> Self {
        Self(Arc::clone(rest))
    }

    /// What the client did wrong, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<Status> {
        self.0.failure()
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;
    use crate::grpc::frame;

    fn messages(bytes: impl Into<Bytes>, limit: usize) -> Messages<Full<Bytes>> {
        Messages::new(Full::new(bytes.into()), limit, &Budget::new(100, Arc::default()))
    }

    #[tokio::test]
    async fn a_message_is_read_up_to_the_limit() {
        let read = messages(frame(b"12345"), 5).next().await.unwrap().unwrap();
        assert_eq!(read.body.to_bytes(), "12345");
        let refused = messages(frame(b"12345"), 4).next().await.unwrap_err();
        assert_eq!((refused.code, refused.http()), (Code::ResourceExhausted, 413));
    }

    #[tokio::test]
    async fn a_message_without_room_is_refused_and_one_that_was_read_makes_room() {
        let budget = Budget::new(20, Arc::default());
        let two = |size| [frame(&vec![0; size]), frame(&vec![0; size])].concat();
        let mut fits = Messages::new(Full::new(Bytes::from(two(5))), 100, &budget);
        fits.next().await.unwrap();
        assert_eq!(budget.held(), 10);
        let mut other = Messages::new(Full::new(Bytes::from(two(1))), 100, &budget);
        assert_eq!(other.next().await.unwrap_err().code, Code::ResourceExhausted);
        fits.next().await.unwrap();
        drop(other);
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn each_message_of_a_stream_is_read_by_itself() {
        let mut three = messages([frame(b"1"), frame(b""), frame(b"23")].concat(), 100);
        for expected in ["1", "", "23"] {
            assert!(!three.is_ended());
            assert_eq!(three.next().await.unwrap().unwrap().body.to_bytes(), expected);
        }
        assert!(three.is_ended());
        assert!(three.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn half_a_message_is_refused() {
        for length in 1..8 {
            let mut half = messages(frame(b"123").slice(..length), 100);
            assert_eq!(half.next().await.unwrap_err().code, Code::InvalidArgument, "{length}");
        }
    }
}

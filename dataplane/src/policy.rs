//! Unary calls that the policy itself answers: the management API, and the loads that peers ask for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::body::Answer;
use crate::call::Call;
use crate::compression;
use crate::inbox::{Event, Inbox};
use crate::plane::Plane;
use crate::route::within;
use crate::service;
use crate::status::{Code, Status};

/// Largest request message, in bytes: gRPC's usual limit. What the registry takes is smaller.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// The policy's answer: a message, or a status and the metadata that goes with it.
type Outcome = Result<Bytes, (Status, HeaderMap)>;

/// A call that waits for the policy. It is answered once; dropped unanswered, it fails.
#[derive(Debug)]
pub struct Asked {
    /// Identifies the call in [`Event::Gone`].
    pub number: u64,
    /// `<package>.<Service>/<Method>`.
    pub method: Box<str>,
    /// The encoded request.
    pub message: Bytes,
    deadline: Option<Instant>,
    answer: Mutex<Option<oneshot::Sender<Outcome>>>,
}

impl Asked {
    /// How long the client still waits; `None`: for ever.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Answers, unless that has been done, or the client has gone.
    pub fn answer(&self, outcome: Outcome) {
        if let Some(answer) = self.answer.lock().take() {
            // A client that has gone needs no answer.
            let _ = answer.send(outcome);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let status = Status::new(Code::Internal, "the policy left the call unanswered");
        self.answer(Err((status, HeaderMap::new())));
    }
}

/// Tells the policy when nobody waits any more.
struct Waiting {
    inbox: Arc<Inbox>,
    number: u64,
    answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered {
            self.inbox.push(Event::Gone(self.number));
        }
    }
}

/// Has the policy answer a call. Its failures are answers, too.
///
/// # Errors
/// `UNIMPLEMENTED` if there are several messages, or one compressed in a way not known here, `DEADLINE_EXCEEDED` if the policy is late, `UNAVAILABLE` if
/// this instance is shutting down.
pub async fn ask(plane: &Plane, call: &Call) -> Result<Response<Answer>, Status> {
    let message = within(call.deadline, call.only_message()).await?.clone();
    let message = compression::plain_aside(message, &call.headers, MAX_MESSAGE_BYTES).await?;
    let shutting_down = || Status::unavailable("this instance is shutting down");
    if plane.inbox.is_closed() {
        return Err(shutting_down());
    }
    let (answer, mut answered) = oneshot::channel();
    let number = plane.inbox.number();
    plane.inbox.push(Event::Asked(Asked {
        number,
        method: call.method().into(),
        message: message.body.to_bytes(),
        deadline: call.deadline,
        answer: Mutex::new(Some(answer)),
    }));
    let mut waiting = Waiting { inbox: Arc::clone(&plane.inbox), number, answered: false };
    let outcome = tokio::select! {
        biased;
        outcome = &mut answered => outcome.map_err(|_| shutting_down())?,
        () = passed(call.deadline) => return Err(Status::deadline()),
        () = plane.inbox.closed() => return Err(shutting_down()),
    };
    waiting.answered = true;
    Ok(response(outcome))
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn response(outcome: Outcome) -> Response<Answer> {
    match outcome {
        Ok(message) => service::answer_bytes(&message),
        Err((status, metadata)) => {
            let mut response = service::failed(&status);
            response.headers_mut().extend(metadata);
            response
        }
    }
}

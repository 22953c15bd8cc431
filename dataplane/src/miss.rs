//! Requests for which no usable copy is known wait here for the policy.
//!
//! Requests that tell the policy the same thing about the same model wait together: the policy is asked
//! once, and its answer wakes them all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::inbox::{Event, Inbox};
use crate::status::{Code, Status};

/// Why the local copy of a model could not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The model server does not know the model (any more).
    NotFound,
    /// The model server cannot be reached, or says that it is not available.
    Unavailable,
}

impl Failure {
    /// The word for it in the Python face.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What the policy is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// The name that the client used.
    pub name: Box<str>,
    /// The name is an alias.
    pub is_alias: bool,
    /// The concrete model id; empty where the alias is not known.
    pub model: Box<str>,
    /// Instances whose copies failed since the policy last said that there is one.
    pub excluded: Vec<Arc<str>>,
    /// Why the local copy failed, if it did.
    pub failure: Option<Failure>,
}

type Outcome = Result<(), Status>;

#[derive(Debug)]
struct Group {
    question: Question,
    method: Box<str>,
    /// The latest deadline of those waiting; `None`: one of them waits without a deadline.
    deadline: Mutex<Option<Instant>>,
    /// When the latest of the requests was sent to the local copy that failed it.
    tried: Mutex<Option<Instant>>,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Group {
    fn waiting(&self) -> usize {
        self.outcome.receiver_count()
    }
}

/// All requests waiting for the policy.
#[derive(Debug)]
pub struct Misses {
    waiting: Mutex<HashMap<Question, Arc<Group>>>,
    inbox: Arc<Inbox>,
    most: usize,
}

impl Misses {
    /// An empty waiting room, whose questions go to the inbox. For each question at most `most` requests wait.
    #[must_use]
    pub fn new(inbox: Arc<Inbox>, most: usize) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), inbox, most })
    }

    /// Waits until the policy has put a route into the table. `tried` is when the local copy that failed was
    /// asked.
    ///
    /// # Errors
    /// What the policy says, `RESOURCE_EXHAUSTED` if too many wait; `DEADLINE_EXCEEDED` is left to the caller.
    pub async fn wait(
        self: &Arc<Self>,
        question: Question,
        tried: Option<Instant>,
        method: &str,
        deadline: Option<Instant>,
    ) -> Result<(), Status> {
        let group = self.join(question, tried, method, deadline);
        if group.waiting() >= self.most {
            let text = format!("{} requests wait for model {} already", self.most, group.question.name);
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        let mut outcome = group.outcome.subscribe();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => Err(Status::new(Code::Internal, "the waiting room is closed")),
        }
    }

    /// Tells the policy without waiting for it.
    pub fn notify(
        self: &Arc<Self>,
        question: Question,
        tried: Instant,
        method: &str,
        deadline: Option<Instant>,
    ) {
        self.join(question, Some(tried), method, deadline);
    }

    fn join(
        self: &Arc<Self>,
        question: Question,
        tried: Option<Instant>,
        method: &str,
        deadline: Option<Instant>,
    ) -> Arc<Group> {
        let mut waiting = self.waiting.lock();
        if let Some(group) = waiting.get(&question) {
            let mut latest = group.deadline.lock();
            *latest = latest.zip(deadline).map(|(one, other)| one.max(other));
            let mut last_tried = group.tried.lock();
            *last_tried = (*last_tried).max(tried);
            return Arc::clone(group);
        }
        let group = Arc::new(Group {
            question: question.clone(),
            method: method.into(),
            deadline: Mutex::new(deadline),
            tried: Mutex::new(tried),
            outcome: watch::Sender::new(None),
        });
        waiting.insert(question, Arc::clone(&group));
        drop(waiting);
        let ticket = Ticket {
            group: Arc::clone(&group),
            room: Arc::downgrade(self),
            answered: AtomicBool::new(false),
        };
        if self.inbox.is_closed() {
            ticket.answer(Err(Status::unavailable("this instance is shutting down")));
        } else {
            self.inbox.push(Event::Miss(ticket));
        }
        group
    }

    /// Fails all that wait. With the inbox closed nobody waits from then on.
    pub fn fail_all(&self, status: &Status) {
        for (_, group) in self.waiting.lock().drain() {
            group.outcome.send_replace(Some(Err(status.clone())));
        }
    }
}

/// A question to the policy. It is answered once; dropped unanswered, the requests fail.
#[derive(Debug)]
pub struct Ticket {
    group: Arc<Group>,
    room: Weak<Misses>,
    answered: AtomicBool,
}

impl Ticket {
    /// What is asked.
    #[must_use]
    pub fn question(&self) -> &Question {
        &self.group.question
    }

    /// The method of the first request.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.group.method
    }

    /// How long the most patient of the waiting requests still waits; `None`: for ever.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let deadline = *self.group.deadline.lock();
        deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// How long ago the latest of the requests was sent to the local copy that failed it.
    #[must_use]
    pub fn since_tried(&self) -> Option<Duration> {
        self.group.tried.lock().map(|tried| tried.elapsed())
    }

    /// Wakes those who wait: there is a route in the table, or an error for them.
    pub fn answer(&self, outcome: Outcome) {
        if self.answered.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(room) = self.room.upgrade() {
            room.waiting.lock().remove(&self.group.question);
        }
        self.group.outcome.send_replace(Some(outcome));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.answer(Err(Status::new(Code::Internal, "the policy left the request unanswered")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(model: &str) -> Question {
        Question {
            name: model.into(),
            is_alias: false,
            model: model.into(),
            excluded: Vec::new(),
            failure: None,
        }
    }

    fn room() -> (Arc<Misses>, Arc<Inbox>) {
        let inbox = Inbox::new().unwrap();
        (Misses::new(Arc::clone(&inbox), 10), inbox)
    }

    fn asked(inbox: &Inbox) -> Ticket {
        match inbox.take().pop() {
            Some(Event::Miss(ticket)) => ticket,
            other => panic!("{other:?} is no question"),
        }
    }

    #[tokio::test]
    async fn requests_for_one_model_ask_once_and_wait_together() {
        let (misses, inbox) = room();
        let soon = Instant::now() + Duration::from_secs(5);
        let waiters: Vec<_> = (0..10)
            .map(|number| {
                let misses = Arc::clone(&misses);
                let deadline = Some(soon + Duration::from_secs(number));
                let tried = Some(Instant::now() - Duration::from_secs(100 - number));
                tokio::spawn(async move { misses.wait(question("a"), tried, "m", deadline).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let ticket = asked(&inbox);
        assert!(ticket.time_left().unwrap() > Duration::from_secs(13));
        assert_eq!(ticket.since_tried().unwrap().as_secs(), 91);
        assert!(inbox.take().is_empty());
        ticket.answer(Ok(()));
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), Ok(()));
        }
        assert!(misses.waiting.lock().is_empty());
    }

    #[tokio::test]
    async fn more_than_the_bound_do_not_wait_for_one_model() {
        let (misses, inbox) = room();
        let mut waiters = tokio::task::JoinSet::new();
        for _ in 0..11 {
            let misses = Arc::clone(&misses);
            waiters.spawn(async move { misses.wait(question("a"), None, "m", None).await });
        }
        let refused = waiters.join_next().await.unwrap().unwrap().unwrap_err();
        assert_eq!(refused.code, Code::ResourceExhausted);
        asked(&inbox).answer(Ok(()));
        assert!(waiters.join_all().await.into_iter().all(|outcome| outcome.is_ok()));
    }

    #[tokio::test]
    async fn a_dropped_question_fails_the_request() {
        let (misses, inbox) = room();
        let waiter = {
            let misses = Arc::clone(&misses);
            tokio::spawn(async move { misses.wait(question("a"), None, "m", None).await })
        };
        tokio::task::yield_now().await;
        let ticket = asked(&inbox);
        assert_eq!((ticket.time_left(), ticket.since_tried()), (None, None));
        drop(ticket);
        assert_eq!(waiter.await.unwrap().unwrap_err().code, Code::Internal);
    }

    #[tokio::test]
    async fn without_a_policy_requests_fail_at_once() {
        let (misses, inbox) = room();
        inbox.close();
        let failed = misses.wait(question("a"), None, "m", None).await.unwrap_err();
        assert_eq!(failed.code, Code::Unavailable);
    }
}

//! The way of a request: from the name of a model to an answer of one of its copies.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant as Clock};

use http::Response;
use tokio::time::Instant;

use crate::attempt::{self, Attempt};
use crate::body::Answer;
use crate::call::Call;
use crate::exchange::Remedy;
use crate::headers::Name;
use crate::miss::{Failure, Question};
use crate::plane::Plane;
use crate::status::{Code, Status};
use crate::table::{Model, Pick};

/// Copies tried and questions asked for one request, together.
const MAX_ITERATIONS: usize = 8;
/// Servers that may break on one request; it could be the request that breaks them.
const MAX_BROKEN: usize = 2;
/// A model server that is down again after the policy said that it is up gets this long, and twice as long
/// each further time, up to the maximum.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// Why a hop was not served: the peer that sent it takes another copy.
#[derive(Debug)]
pub enum HopRefused {
    /// The copy is not here.
    NotHere,
    /// The copy cannot serve.
    Failed(Status),
    /// The request itself is at fault.
    Request(Status),
}

/// Serves a call by any copy of the model that `name` stands for, loading one if need be.
///
/// # Errors
/// What the client is told where no copy gives an answer.
pub async fn serve(plane: &Arc<Plane>, call: &Call, name: &Name) -> Result<Response<Answer>, Status> {
    within(call.deadline, Journey::new(plane, call, name).travel()).await
}

/// Serves a call that a peer has routed here, by the local copy only.
///
/// # Errors
/// Why another copy has to be tried.
pub async fn serve_hop(plane: &Arc<Plane>, call: &Call, name: &Name) -> Result<Response<Answer>, HopRefused> {
    let model = plane.table.model(name.as_str()).ok_or(HopRefused::NotHere)?;
    let Some(used) = plane.table.pick_local(&model) else { return Err(HopRefused::NotHere) };
    let tried = Instant::now();
    let attempt = async { Ok(attempt::local(plane, call, &model, used).await) };
    let (failure, status) = match within(call.deadline, attempt).await.map_err(HopRefused::Request)? {
        Attempt::Answer(response) | Attempt::Exhausted(response) => return Ok(response),
        Attempt::Refused(status) => return Err(HopRefused::Request(status)),
        Attempt::Lost(_) => (Failure::NotFound, Status::new(Code::NotFound, "the server lost the model")),
        Attempt::Failed(failure) => (Failure::Unavailable, failure.status),
    };
    plane.misses.notify(own_copy_failed(plane, &model, failure), tried, call.method(), call.deadline);
    Err(HopRefused::Failed(status))
}

/// Does `work`, but no longer than until `deadline`.
///
/// # Errors
/// `DEADLINE_EXCEEDED`, or what `work` fails with.
pub async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match deadline {
        Some(deadline) => match tokio::time::timeout_at(deadline, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Status::deadline()),
        },
        None => work.await,
    }
}

/// What the policy is told about a local copy that failed.
fn own_copy_failed(plane: &Plane, model: &Model, failure: Failure) -> Question {
    Question {
        name: model.id.clone(),
        is_alias: false,
        model: model.id.clone(),
        excluded: vec![Arc::clone(&plane.instance)],
        failure: Some(failure),
    }
}

struct Journey<'a> {
    plane: &'a Arc<Plane>,
    call: &'a Call,
    name: &'a Name,
    /// Instances whose copies failed since the policy was last asked.
    excluded: Vec<Arc<str>>,
    /// Why the local copy failed, since then, and when it was asked.
    failure: Option<(Failure, Instant)>,
    /// The local server said that it does not know the model.
    lost: bool,
    /// Times the policy was told that the local server is not available.
    unavailable: u32,
    /// A copy had no room.
    exhausted: bool,
    /// Servers that broke on the request.
    broken: usize,
}

impl<'a> Journey<'a> {
    fn new(plane: &'a Arc<Plane>, call: &'a Call, name: &'a Name) -> Self {
        Self {
            plane,
            call,
            name,
            excluded: Vec::new(),
            failure: None,
            lost: false,
            unavailable: 0,
            exhausted: false,
            broken: 0,
        }
    }

    async fn travel(mut self) -> Result<Response<Answer>, Status> {
        let mut last = Status::unavailable("no copy of it could be found");
        for _ in 0..MAX_ITERATIONS {
            let model = match self.resolve() {
                Ok(model) => model,
                Err(id) => {
                    self.ask(id).await?;
                    continue;
                }
            };
            let Some(pick) = self.plane.table.pick(&model, &self.plane.instance, &self.excluded) else {
                self.ask(model.id.clone()).await?;
                continue;
            };
            match self.attempt(&model, pick).await {
                Attempt::Answer(response) => return Ok(response),
                Attempt::Refused(status) => return Err(status),
                // No other server can have what this one has taken of the stream.
                Attempt::Exhausted(response) | Attempt::Lost(response) if self.call.is_spent() => {
                    return Ok(response);
                }
                Attempt::Failed(failure) if self.call.is_spent() => return Err(failure.status),
                Attempt::Exhausted(response) => {
                    if self.exhausted || !self.another(&model) {
                        return Ok(response);
                    }
                    self.exhausted = true;
                }
                Attempt::Lost(response) => {
                    if self.lost {
                        return Ok(response);
                    }
                    self.lost = true;
                }
                Attempt::Failed(failure) => {
                    self.broken += usize::from(failure.remedy == Remedy::OnceMore);
                    if self.broken >= MAX_BROKEN {
                        return Err(failure.status);
                    }
                    last = failure.status;
                }
            }
            self.plane.metrics.retries.fetch_add(1, Ordering::Relaxed);
        }
        let name = self.name.as_str();
        let message =
            format!("model {name} could not be served in {MAX_ITERATIONS} attempts: {}", last.message);
        Err(Status::unavailable(message))
    }

    /// The model, or its concrete id as far as that is known.
    fn resolve(&self) -> Result<Arc<Model>, Box<str>> {
        let (table, name) = (&self.plane.table, self.name.as_str());
        if self.name.is_alias { table.model_of(name) } else { table.model(name).ok_or_else(|| name.into()) }
    }

    /// True if there is a copy left to try.
    fn another(&self, model: &Model) -> bool {
        self.plane.table.has_copy(model, &self.plane.instance, &self.excluded)
    }

    async fn ask(&mut self, model: Box<str>) -> Result<(), Status> {
        let (failure, tried) = self.failure.take().unzip();
        if failure == Some(Failure::Unavailable) {
            if self.unavailable > 0 {
                let factor = 2u32.saturating_pow(self.unavailable - 1);
                tokio::time::sleep(FIRST_PAUSE.saturating_mul(factor).min(MAX_PAUSE)).await;
            }
            self.unavailable += 1;
        }
        let question = Question {
            name: self.name.as_str().into(),
            is_alias: self.name.is_alias,
            model,
            excluded: std::mem::take(&mut self.excluded),
            failure,
        };
        let since = Clock::now();
        let answer = self.plane.misses.wait(question, tried, self.call.method(), self.call.deadline).await;
        self.plane.metrics.missed(since);
        answer
    }

    /// Tries a copy, and excludes it unless it answers. That the server lost the model is told to the policy
    /// and believed once: who says it again after a reload means something else by it.
    async fn attempt(&mut self, model: &Arc<Model>, pick: Pick) -> Attempt {
        match pick {
            Pick::Peer(copy) => {
                self.plane.metrics.forwards.fetch_add(1, Ordering::Relaxed);
                let attempt = attempt::forward(self.plane, self.call, model, &copy).await;
                if !attempt.is_final() {
                    self.excluded.push(copy.instance);
                }
                attempt
            }
            Pick::Local(used) => {
                let tried = Instant::now();
                let attempt = attempt::local(self.plane, self.call, model, used).await;
                if !attempt.is_final() {
                    self.excluded.push(Arc::clone(&self.plane.instance));
                }
                let failure = match attempt {
                    Attempt::Lost(_) if !self.lost => Failure::NotFound,
                    Attempt::Failed(_) => Failure::Unavailable,
                    _ => return attempt,
                };
                self.failure = Some((failure, tried));
                if self.another(model) {
                    let question = own_copy_failed(self.plane, model, failure);
                    self.plane.misses.notify(question, tried, self.call.method(), self.call.deadline);
                }
                attempt
            }
        }
    }
}

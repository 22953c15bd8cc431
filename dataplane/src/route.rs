//! The way of a request: from the name of a model to an answer of one of its copies.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant as Clock;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::body::{Answer, Held, Outgoing, Relay};
use crate::grpc::{self, Message};
use crate::headers::{self, Name};
use crate::message;
use crate::metrics::{InvokeTimer, MethodMetrics};
use crate::miss::{Failure, Question};
use crate::plane::Plane;
use crate::status::{Code, Status};
use crate::table::{LocalUse, Model, PeerCopy, Pick};
use crate::upstream::Upstream;

/// Copies tried and questions asked for one request, together.
const MAX_ITERATIONS: usize = 8;

/// A unary call of a client, read as a whole.
#[derive(Debug)]
pub struct Call {
    /// `/<package>.<Service>/<Method>`.
    pub path: PathAndQuery,
    /// The client's headers.
    pub headers: HeaderMap,
    /// The request message.
    pub message: Message,
    /// When the client stops waiting.
    pub deadline: Option<Instant>,
    /// Where the call is measured.
    pub metrics: Arc<MethodMetrics>,
}

impl Call {
    /// `<package>.<Service>/<Method>`.
    #[must_use]
    pub fn method(&self) -> &str {
        self.path.path().trim_start_matches('/')
    }
}

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

/// Finds the model of a call: in the message, where the configuration says so, else in the headers.
///
/// # Errors
/// `INVALID_ARGUMENT` if there is no readable name, `UNIMPLEMENTED` if the message is compressed.
pub fn name(plane: &Plane, call: &Call) -> Result<Name, Status> {
    let rpcs = plane.rpcs.load();
    let rpc = rpcs.get(call.method())?;
    if rpc.path.is_empty() {
        return headers::name(&call.headers);
    }
    require_plain(&call.message)?;
    let found = message::extract(&call.message.body, &rpc.path);
    match found.map_err(|error| Status::invalid(format!("the request message is malformed: {error}")))? {
        Some(id) => Name::new(id, rpc.is_alias),
        None => headers::name(&call.headers),
    }
}

fn require_plain(message: &Message) -> Result<(), Status> {
    if message.compressed {
        let text = "the message is compressed, but carries the model id; send it without compression";
        return Err(Status::unimplemented(text));
    }
    Ok(())
}

/// Serves a call by any copy of the model that `name` stands for, loading one if need be.
///
/// # Errors
/// What the client is told where no copy gives an answer.
pub async fn serve(plane: &Arc<Plane>, call: &Call, name: &Name) -> Result<Response<Answer>, Status> {
    let journey =
        Journey { plane, call, name, excluded: Vec::new(), failure: None, lost: false, exhausted: false };
    within(call.deadline, journey.travel()).await
}

/// Serves a call that a peer has routed here, by the local copy only.
///
/// # Errors
/// Why another copy has to be tried.
pub async fn serve_hop(plane: &Arc<Plane>, call: &Call, name: &Name) -> Result<Response<Answer>, HopRefused> {
    let model = plane.table.model(name.as_str()).ok_or(HopRefused::NotHere)?;
    let Some(used) = plane.table.pick_local(&model) else { return Err(HopRefused::NotHere) };
    let attempt = async { Ok(invoke(plane, call, &model, used).await) };
    let (failure, status) = match within(call.deadline, attempt).await.map_err(HopRefused::Request)? {
        Attempt::Answer(response) => return Ok(response),
        Attempt::Exhausted(response) => return Ok(response),
        Attempt::Refused(status) => return Err(HopRefused::Request(status)),
        Attempt::Lost(_) => (Failure::NotFound, Status::new(Code::NotFound, "the server lost the model")),
        Attempt::Failed(status) => (Failure::Unavailable, status),
    };
    let question = Question {
        name: name.as_str().into(),
        is_alias: false,
        model: name.as_str().into(),
        excluded: vec![Arc::clone(&plane.instance)],
        failure: Some(failure),
    };
    plane.misses.notify(question, call.method(), call.deadline);
    Err(HopRefused::Failed(status))
}

async fn within<T>(
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

/// How one copy took a call.
enum Attempt {
    /// With an answer for the client, good or bad.
    Answer(Response<Answer>),
    /// With RESOURCE_EXHAUSTED: another copy may have room.
    Exhausted(Response<Answer>),
    /// The server does not know the model; the answer that says so.
    Lost(Response<Answer>),
    /// The server gave no answer, or is not available.
    Failed(Status),
    /// The call is at fault; no copy will take it.
    Refused(Status),
}

struct Journey<'a> {
    plane: &'a Arc<Plane>,
    call: &'a Call,
    name: &'a Name,
    excluded: Vec<Arc<str>>,
    failure: Option<Failure>,
    lost: bool,
    exhausted: bool,
}

impl Journey<'_> {
    async fn travel(mut self) -> Result<Response<Answer>, Status> {
        let mut last = Status::unavailable("no copy of the model gave an answer");
        for _ in 0..MAX_ITERATIONS {
            let (id, model) = self.resolve();
            let Some(model) = model else {
                self.ask(id).await?;
                continue;
            };
            let attempt = match self.plane.table.pick(&model, &self.plane.instance, &self.excluded) {
                Some(Pick::Local(used)) => {
                    let attempt = invoke(self.plane, self.call, &model, used).await;
                    self.after_local(&model, attempt)
                }
                Some(Pick::Peer(copy)) => self.forward(&model, &copy).await,
                None => {
                    self.ask(id).await?;
                    continue;
                }
            };
            match attempt {
                Attempt::Answer(response) => return Ok(response),
                Attempt::Refused(status) => return Err(status),
                Attempt::Exhausted(response) => {
                    if self.exhausted
                        || !self.plane.table.has_copy(&model, &self.plane.instance, &self.excluded)
                    {
                        return Ok(response);
                    }
                    self.exhausted = true;
                }
                Attempt::Lost(_) => {}
                Attempt::Failed(status) => last = status,
            }
            self.plane.metrics.retries.fetch_add(1, Ordering::Relaxed);
        }
        let message = format!(
            "model {} could not be reached in {MAX_ITERATIONS} attempts: {}",
            self.name.as_str(),
            last.message
        );
        Err(Status::unavailable(message))
    }

    /// The concrete id and its routes, as far as they are known.
    fn resolve(&self) -> (Box<str>, Option<Arc<Model>>) {
        let table = &self.plane.table;
        if !self.name.is_alias {
            return (self.name.as_str().into(), table.model(self.name.as_str()));
        }
        match table.alias(self.name.as_str()).as_deref().and_then(|alias| alias.choose()) {
            Some(id) => (id.into(), table.model(id)),
            None => (Box::default(), None),
        }
    }

    async fn ask(&mut self, model: Box<str>) -> Result<(), Status> {
        let question = Question {
            name: self.name.as_str().into(),
            is_alias: self.name.is_alias,
            model,
            excluded: std::mem::take(&mut self.excluded),
            failure: self.failure.take(),
        };
        let since = Clock::now();
        let answer = self.plane.misses.wait(question, self.call.method(), self.call.deadline).await;
        self.plane.metrics.missed(since);
        answer
    }

    /// Excludes the local copy if it failed. That the server lost the model is believed once: who says it
    /// again after a reload means something else by it, and the client gets to see that.
    fn after_local(&mut self, model: &Arc<Model>, attempt: Attempt) -> Attempt {
        let failure = match attempt {
            Attempt::Lost(response) if self.lost => return Attempt::Answer(response),
            Attempt::Lost(_) => Failure::NotFound,
            Attempt::Failed(_) => Failure::Unavailable,
            Attempt::Exhausted(_) => {
                self.excluded.push(Arc::clone(&self.plane.instance));
                return attempt;
            }
            _ => return attempt,
        };
        self.lost |= failure == Failure::NotFound;
        self.failure = Some(failure);
        self.excluded.push(Arc::clone(&self.plane.instance));
        if self.plane.table.has_copy(model, &self.plane.instance, &self.excluded) {
            let question = Question {
                name: model.id.clone(),
                is_alias: false,
                model: model.id.clone(),
                excluded: vec![Arc::clone(&self.plane.instance)],
                failure: Some(failure),
            };
            self.plane.misses.notify(question, self.call.method(), self.call.deadline);
        }
        attempt
    }

    async fn forward(&mut self, model: &Arc<Model>, copy: &PeerCopy) -> Attempt {
        self.plane.metrics.forwards.fetch_add(1, Ordering::Relaxed);
        let held = Held { peer: Some(copy.upstream.occupy()), ..Held::default() };
        let headers = headers::outgoing(&self.call.headers, model, self.call.deadline, true);
        let limit = self.plane.config.max_message_bytes;
        let attempt = match exchange(&copy.upstream, self.call, headers, &self.call.message, limit).await {
            Ok(served) if served.head.headers.contains_key(headers::HOP_STATUS) => {
                let text = format!("instance {} does not have the model", copy.instance);
                Attempt::Failed(served.status.unwrap_or(Status::unavailable(text)))
            }
            Ok(served) if served.code() == Some(Code::ResourceExhausted) => {
                Attempt::Exhausted(served.answer(self.call.deadline, held))
            }
            Ok(served) => Attempt::Answer(served.answer(self.call.deadline, held)),
            Err(attempt) => attempt,
        };
        if !matches!(attempt, Attempt::Answer(_)) {
            self.excluded.push(Arc::clone(&copy.instance));
        }
        attempt
    }
}

/// Calls the local model server.
async fn invoke(plane: &Plane, call: &Call, model: &Arc<Model>, used: LocalUse) -> Attempt {
    let Some(runtime) = &plane.runtime else {
        return Attempt::Failed(Status::unavailable("this instance has no model server"));
    };
    let message = match inject(plane, call, model) {
        Ok(message) => message,
        Err(status) => return Attempt::Refused(status),
    };
    let invoke = InvokeTimer::start(&call.metrics);
    let headers = headers::outgoing(&call.headers, model, call.deadline, false);
    match exchange(runtime, call, headers, &message, plane.config.max_message_bytes).await {
        Ok(served) => {
            let verdict = served.status.as_ref().map(verdict);
            if matches!(verdict, Some(Verdict::Unavailable)) {
                invoke.finish(Code::Unavailable);
                return Attempt::Failed(served.status.unwrap_or(Status::unavailable("")));
            }
            let held = Held { local: Some(used), invoke: Some(invoke), ..Held::default() };
            let response = served.answer(call.deadline, held);
            match verdict {
                Some(Verdict::Lost) => Attempt::Lost(response),
                Some(Verdict::Exhausted) => Attempt::Exhausted(response),
                _ => Attempt::Answer(response),
            }
        }
        Err(attempt) => {
            if let Attempt::Failed(status) | Attempt::Refused(status) = &attempt {
                invoke.finish(status.code);
            }
            attempt
        }
    }
}

fn inject(plane: &Plane, call: &Call, model: &Model) -> Result<Message, Status> {
    let methods = plane.methods.load();
    let path = methods.injection_path(call.method())?;
    if path.is_empty() {
        return Ok(call.message.clone());
    }
    require_plain(&call.message)?;
    match message::splice(&call.message.body, path, &model.id) {
        Ok(body) => Ok(Message { compressed: false, body }),
        Err(error) => Err(Status::invalid(format!("the request message is malformed: {error}"))),
    }
}

/// What a model server's error says about its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Lost,
    Unavailable,
    Exhausted,
    Served,
}

/// Reads an error of the model server. Triton and MLServer do not use NOT_FOUND for a model they do not know.
fn verdict(status: &Status) -> Verdict {
    let text = status.message.as_str();
    match status.code {
        Code::NotFound => Verdict::Lost,
        Code::InvalidArgument if text.starts_with("Model ") && text.contains(" not found") => Verdict::Lost,
        Code::Unavailable
            if text.contains("Request for unknown model")
                && (text.contains("is not found") || text.contains("has no available versions")) =>
        {
            Verdict::Lost
        }
        Code::Unavailable => Verdict::Unavailable,
        Code::ResourceExhausted => Verdict::Exhausted,
        _ => Verdict::Served,
    }
}

/// The beginning of a server's answer: enough to know whether it is one.
struct Served {
    head: response::Parts,
    first: Option<Frame<Bytes>>,
    rest: Incoming,
    /// The final status, where it is known already.
    status: Option<Status>,
}

impl Served {
    fn code(&self) -> Option<Code> {
        self.status.as_ref().map(|status| status.code)
    }

    /// The answer for the client.
    fn answer(mut self, deadline: Option<Instant>, held: Held) -> Response<Answer> {
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

/// Sends a call to a server and waits for the first frame of the answer.
async fn exchange(
    upstream: &Arc<Upstream>,
    call: &Call,
    headers: HeaderMap,
    message: &Message,
    limit: usize,
) -> Result<Served, Attempt> {
    let broken = |cause: &dyn std::fmt::Display| {
        Attempt::Failed(Status::unavailable(format!("no answer from the server: {cause}")))
    };
    let mut request = Request::new(Outgoing::message(message));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = upstream.uri(&call.path).map_err(|error| broken(&error))?;
    *request.headers_mut() = headers;
    let (head, mut rest) = upstream.send(request).await.map_err(|error| broken(&error))?.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(Attempt::Failed(grpc::status_of_http(head.status)));
    }
    if let Some(status) = grpc::read_status(&head.headers) {
        return Ok(Served { head, first: None, rest, status: Some(status) });
    }
    let first = loop {
        match rest.frame().await {
            Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
            Some(Ok(frame)) => break frame,
            Some(Err(error)) => return Err(broken(&error)),
            None => return Err(broken(&"it ended without a status")),
        }
    };
    if let Some((_, len)) = first.data_ref().and_then(|data| grpc::parse_prefix(data))
        && len > limit
    {
        let status = Status { http: Some(500), ..Status::too_large("response message", limit) };
        return Err(Attempt::Refused(status));
    }
    let status = first.trailers_ref().map(|trailers| {
        grpc::read_status(trailers).unwrap_or(Status::new(Code::Unknown, "the server gave no status"))
    });
    Ok(Served { head, first: Some(first), rest, status })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_model_is_recognised_by_what_servers_say() {
        for (code, text, expected) in [
            (Code::NotFound, "", Verdict::Lost),
            (Code::InvalidArgument, "Model iris__isvc-1 not found", Verdict::Lost),
            (Code::InvalidArgument, "Invalid shape", Verdict::Served),
            (Code::Unavailable, "Request for unknown model: 'a' is not found", Verdict::Lost),
            (Code::Unavailable, "Request for unknown model: 'a' has no available versions", Verdict::Lost),
            (Code::Unavailable, "shutting down", Verdict::Unavailable),
            (Code::ResourceExhausted, "", Verdict::Exhausted),
            (Code::Internal, "", Verdict::Served),
        ] {
            assert_eq!(verdict(&Status::new(code, text)), expected, "{code:?} {text}");
        }
    }
}

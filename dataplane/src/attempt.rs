//! One call to one copy of a model: what came of it, and whether another copy may do better.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::uri::PathAndQuery;
use http::{HeaderMap, Response};
use prost::Message as _;

use crate::body::{Answer, Held, Outgoing};
use crate::call::Call;
use crate::exchange::{NoAnswer, Remedy, exchange};
use crate::grpc::Message;
use crate::headers;
use crate::metrics::InvokeTimer;
use crate::plane::Plane;
use crate::service;
use crate::status::{Code, Status};
use crate::table::{LocalUse, Model, PeerCopy};
use crate::upstream::Upstream;
use crate::v2;
use crate::whole;

/// How a server of the V2 protocol is asked for a model.
const MODEL_READY: &str = "/inference.GRPCInferenceService/ModelReady";
/// What `TorchServe` puts into its text when it does not know a model.
const NOT_FOUND_OF_TORCHSERVE: &str = "org.pytorch.serve.archive.model.ModelNotFoundException";

/// How one copy took a call.
#[derive(Debug)]
pub enum Attempt {
    /// With an answer for the client, good or bad.
    Answer(Response<Answer>),
    /// With `RESOURCE_EXHAUSTED`: another copy may have room.
    Exhausted(Response<Answer>),
    /// The server does not know the model; the answer that says so.
    Lost(Response<Answer>),
    /// The server gave no answer, or says that it is not available.
    Failed(NoAnswer),
    /// The call is at fault; no copy will take it.
    Refused(Status),
}

impl Attempt {
    /// True if no other copy can do better.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Answer(_) | Self::Refused(_))
    }
}

impl From<NoAnswer> for Attempt {
    fn from(failure: NoAnswer) -> Self {
        match failure.remedy {
            Remedy::Nothing => Self::Refused(failure.status),
            Remedy::Elsewhere | Remedy::OnceMore => Self::Failed(failure),
        }
    }
}

/// Calls the local model server.
pub async fn local(plane: &Plane, call: &Call, model: &Arc<Model>, used: LocalUse) -> Attempt {
    let Some(runtime) = &plane.runtime else {
        return unavailable(Status::unavailable("this instance has no model server"));
    };
    let turn = match model.turn(plane.config.max_in_flight_per_model).await {
        Ok(turn) => turn,
        Err(status) => {
            plane.metrics.rejections.fetch_add(1, Ordering::Relaxed);
            return Attempt::Exhausted(service::failed(&status));
        }
    };
    let body = match call.injected(plane, model) {
        Ok(body) => body,
        Err(status) => return Attempt::Refused(status),
    };
    let invoke = InvokeTimer::start(&call.metrics);
    let headers = headers::outgoing(&call.headers, model, call.deadline, false);
    let limit = plane.config.max_message_bytes;
    let served = match exchange(runtime, &call.path, headers, body, call.rest.as_deref(), limit).await {
        Ok(served) => served,
        Err(failure) => {
            invoke.finish(failure.status.code);
            return failed(call, failure);
        }
    };
    let held = Held { local: Some(used), turn, invoke: Some(invoke), ..Held::default() };
    match served.status.as_ref().map_or(Verdict::Served, verdict) {
        Verdict::Served => Attempt::Answer(served.answer(call.deadline, held)),
        Verdict::Lost if has(runtime, call, model, limit).await => {
            Attempt::Answer(served.answer(call.deadline, held))
        }
        Verdict::Exhausted => Attempt::Exhausted(served.answer(call.deadline, held)),
        Verdict::Lost => Attempt::Lost(served.answer(call.deadline, held)),
        Verdict::Unavailable => {
            held.end(Code::Unavailable);
            unavailable(served.status.unwrap_or(Status::unavailable("")))
        }
    }
}

/// True if a server of the V2 protocol says that it has the model. What it did not find is then something
/// else, such as a version that the client made up, and no reason to load the model again.
async fn has(runtime: &Arc<Upstream>, call: &Call, model: &Arc<Model>, limit: usize) -> bool {
    if !call.method().starts_with(v2::SERVICE) {
        return false;
    }
    let asked = v2::ModelRequest { name: model.id.to_string(), version: String::new() };
    let message = Message::of(asked.encode_to_vec());
    let headers = headers::outgoing(&HeaderMap::new(), model, call.deadline, false);
    let path = PathAndQuery::from_static(MODEL_READY);
    let body = Outgoing::message(&message);
    let Ok(served) = exchange(runtime, &path, headers, body, None, limit).await else { return false };
    let answer = whole::message(served.answer(call.deadline, Held::default()), limit).await;
    answer
        .ok()
        .and_then(|answer| v2::ModelReadyResponse::decode(answer).ok())
        .is_some_and(|answer| answer.ready)
}

/// Sends a call to the peer that holds a copy.
pub async fn forward(plane: &Plane, call: &Call, model: &Arc<Model>, copy: &PeerCopy) -> Attempt {
    let held = Held { peer: Some(copy.upstream.occupy()), ..Held::default() };
    let headers = headers::outgoing(&call.headers, model, call.deadline, true);
    let limit = plane.config.max_message_bytes;
    let body = call.as_it_is();
    match exchange(&copy.upstream, &call.path, headers, body, call.rest.as_deref(), limit).await {
        Ok(served) if served.head.headers.contains_key(headers::HOP_STATUS) => {
            let text = format!("instance {} cannot serve the model", copy.instance);
            unavailable(served.status.unwrap_or(Status::unavailable(text)))
        }
        Ok(served) if served.code() == Some(Code::ResourceExhausted) => {
            Attempt::Exhausted(served.answer(call.deadline, held))
        }
        Ok(served) => Attempt::Answer(served.answer(call.deadline, held)),
        Err(failure) => failed(call, failure),
    }
}

/// A server whose stream broke may have done so because of what the client sent.
fn failed(call: &Call, failure: NoAnswer) -> Attempt {
    match call.failure() {
        Some(status) => Attempt::Refused(status),
        None => failure.into(),
    }
}

fn unavailable(status: Status) -> Attempt {
    Attempt::Failed(NoAnswer { status, remedy: Remedy::Elsewhere })
}

/// What a model server's error says about its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Lost,
    Unavailable,
    Exhausted,
    Served,
}

/// Reads an error of the model server. Triton, MLServer and `TorchServe` have other codes than `NOT_FOUND` for a
/// model they do not know.
fn verdict(status: &Status) -> Verdict {
    let text = status.message.as_str();
    match status.code {
        Code::NotFound => Verdict::Lost,
        Code::InvalidArgument if text.starts_with("Model ") && text.contains(" not found") => Verdict::Lost,
        Code::Internal if text.starts_with("Model not found") && text.contains(NOT_FOUND_OF_TORCHSERVE) => {
            Verdict::Lost
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_model_is_recognised_by_what_servers_say() {
        let torchserve = "Model not found: a\norg.pytorch.serve.archive.model.ModelNotFoundException";
        for (code, text, expected) in [
            (Code::NotFound, "", Verdict::Lost),
            (Code::InvalidArgument, "Model iris__isvc-1 not found", Verdict::Lost),
            (Code::InvalidArgument, "Invalid shape", Verdict::Served),
            (Code::Unavailable, "Request for unknown model: 'a' is not found", Verdict::Lost),
            (Code::Unavailable, "Request for unknown model: 'a' has no available versions", Verdict::Lost),
            (Code::Unavailable, "shutting down", Verdict::Unavailable),
            (Code::ResourceExhausted, "", Verdict::Exhausted),
            (Code::Internal, "", Verdict::Served),
            (Code::Internal, "Model not found", Verdict::Served),
            (Code::Internal, torchserve, Verdict::Lost),
        ] {
            assert_eq!(verdict(&Status::new(code, text)), expected, "{code:?} {text}");
        }
    }
}

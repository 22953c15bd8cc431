//! What happens to a gRPC call, by the port it comes in at and its method.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use prost::Message as _;

use crate::body::Answer;
use crate::budget::{Budget, Holding};
use crate::call::Call;
use crate::compression;
use crate::grpc::{self, Message};
use crate::headers;
use crate::messages::{Closing, Messages, Rest};
use crate::metrics::{ApiTimer, MethodMetrics};
use crate::plane::Plane;
use crate::policy;
use crate::route::{self, HopRefused};
use crate::several_models;
use crate::status::{Code, Status};
use crate::v2;

/// The version in `ServerMetadata`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Services that the policy of this instance implements: the management API, also by its old name.
const POLICY_SERVICES: &[&str] = &["mmesh.ModelMesh", "com.ibm.watson.tas.proto.TasRuntime"];
/// Services that clients ask any server for, and that name no model.
const REFLECTION_SERVICES: &[&str] =
    &["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
const HEALTH_SERVICE: &str = "grpc.health.v1.Health";
/// `grpc.health.v1.HealthCheckResponse` is one enum, field 1.
const SERVING: &[u8] = b"\x08\x01";
const NOT_SERVING: &[u8] = b"\x08\x02";
/// The policy's service for other instances.
const PEER_SERVICE: &str = "modelmesh.internal.Peer";
/// The method of [`v2::SERVICE`] that is answered here, whether or not the model server offers it.
const MODEL_READY: &str = "ModelReady";
/// The model server's management service, which no client may call.
const RUNTIME_SERVICE: &str = "mmesh.ModelRuntime";

/// A client that names the model in its headers and sends no message within this waits for the server to speak.
const SILENCE: Duration = Duration::from_millis(20);
/// When a client may try again that came when there were too many requests.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(500);

/// A call on a port for clients.
pub async fn client(plane: Arc<Plane>, request: Request<Incoming>) -> Response<Answer> {
    if let Some(refusal) = refuse_other_protocols(&request) {
        return refusal;
    }
    let (service, method) = split(request.uri().path());
    match service {
        RUNTIME_SERVICE => failed(&not_for_clients()),
        service if POLICY_SERVICES.contains(&service) => ask_policy(&plane, request).await,
        HEALTH_SERVICE if method == "Check" => health(&plane),
        // Clients take this answer to `Watch` as "do not watch".
        HEALTH_SERVICE => failed(&Status::unimplemented("of the health service only Check is supported")),
        service if REFLECTION_SERVICES.contains(&service) => {
            failed(&Status::unimplemented("reflection is not supported"))
        }
        v2::SERVICE => match method {
            "ServerLive" => answer(&v2::ServerLiveResponse { live: true }),
            "ServerReady" => answer(&v2::ServerReadyResponse { ready: plane.ready.load(Ordering::Relaxed) }),
            "ServerMetadata" => answer(&server_metadata()),
            MODEL_READY => measured(&plane, request, model_ready).await,
            _ => measured(&plane, request, infer).await,
        },
        _ => measured(&plane, request, infer).await,
    }
}

/// A call on the port for peers.
pub async fn peer(plane: Arc<Plane>, request: Request<Incoming>) -> Response<Answer> {
    if let Some(refusal) = refuse_other_protocols(&request) {
        return refusal;
    }
    match split(request.uri().path()).0 {
        PEER_SERVICE => return ask_policy(&plane, request).await,
        RUNTIME_SERVICE => return failed(&not_for_clients()),
        _ => {}
    }
    if request.headers().get(headers::HOP) != Some(&headers::HOP_HIT) {
        return failed(&Status::unimplemented("this port is for the peers of this instance"));
    }
    match hop(&plane, request).await {
        Ok(response) => response,
        Err(HopRefused::Request(status)) => failed(&status),
        Err(HopRefused::NotHere) => {
            marked(&Status::new(Code::NotFound, "the model is not loaded here"), headers::HOP_NOT_HERE)
        }
        Err(HopRefused::Failed(status)) => marked(&status, headers::HOP_FAILED),
    }
}

fn not_for_clients() -> Status {
    Status::unimplemented(format!("{RUNTIME_SERVICE} is not for clients"))
}

async fn hop(plane: &Arc<Plane>, request: Request<Incoming>) -> Result<Response<Answer>, HopRefused> {
    let limit = plane.config.max_message_bytes;
    let call = read(plane, request, limit, &plane.buffered, None).await.map_err(HopRefused::Request)?;
    let closing = call.rest.as_ref().map(Closing::new);
    let name = headers::name(&call.headers).map_err(HopRefused::Request)?;
    Ok(closed(route::serve_hop(plane, &call, &name).await?, closing))
}

/// What the client still sends is read until the answer ends.
fn closed(mut response: Response<Answer>, closing: Option<Closing>) -> Response<Answer> {
    if let (Answer::Relay { relay }, Some(closing)) = (response.body_mut(), closing) {
        relay.close(closing);
    }
    response
}

fn marked(status: &Status, mark: HeaderValue) -> Response<Answer> {
    let mut response = failed(status);
    response.headers_mut().insert(headers::HOP_STATUS, mark);
    response
}

/// What `GET /v2` and `ServerMetadata` say.
#[must_use]
pub fn server_metadata() -> v2::ServerMetadataResponse {
    v2::ServerMetadataResponse { name: "modelmesh".into(), version: VERSION.into(), extensions: Vec::new() }
}

async fn infer(
    plane: &Arc<Plane>,
    request: Request<Incoming>,
    timer: &mut ApiTimer,
) -> Result<Response<Answer>, Status> {
    check(plane, &request)?;
    let limit = plane.config.max_message_bytes;
    let call = read(plane, request, limit, &plane.buffered, Some(timer)).await?;
    let closing = call.rest.as_ref().map(Closing::new);
    let response = match call.named_in_message(plane)? {
        Some(name) => route::serve(plane, &call, &name).await?,
        None => match &*headers::names(&call.headers)? {
            [only] => route::serve(plane, &call, only).await?,
            several => several_models::serve(plane, call, several).await?,
        },
    };
    Ok(closed(response, closing))
}

/// Refuses before the body is read what the head alone shows to be wrong.
fn check(plane: &Plane, request: &Request<Incoming>) -> Result<(), Status> {
    let rpcs = plane.rpcs.load();
    let rpc = rpcs.get(request.uri().path().trim_start_matches('/'))?;
    if rpc.path.is_empty() {
        headers::names(request.headers())?;
    }
    Ok(())
}

/// `ModelReady`: true where a copy can serve; what is not loaded is the policy's to judge.
async fn model_ready(
    plane: &Arc<Plane>,
    request: Request<Incoming>,
    timer: &mut ApiTimer,
) -> Result<Response<Answer>, Status> {
    let budget = &plane.buffered_for_policy;
    let call = read(plane, request, policy::MAX_MESSAGE_BYTES, budget, Some(timer)).await?;
    let message = route::within(call.deadline, call.only_message()).await?.clone();
    let message = compression::plain_aside(message, &call.headers, policy::MAX_MESSAGE_BYTES).await?;
    let asked = v2::ModelRequest::decode(message.body.to_bytes())
        .map_err(|error| Status::invalid(format!("the request message is malformed: {error}")))?;
    if is_ready(plane, &asked.name) {
        return Ok(answer(&v2::ModelReadyResponse { ready: true }));
    }
    policy::ask(plane, &call).await
}

/// True if a copy of the model can serve, called by its alias or its own id.
#[must_use]
pub fn is_ready(plane: &Plane, name: &str) -> bool {
    match plane.table.model_of(name) {
        Ok(model) => model.is_ready(),
        // No alias: it may be a model's own id.
        Err(id) => id.is_empty() && plane.table.model(name).is_some_and(|model| model.is_ready()),
    }
}

async fn ask_policy(plane: &Plane, request: Request<Incoming>) -> Response<Answer> {
    let asked = async {
        let budget = &plane.buffered_for_policy;
        let call = read(plane, request, policy::MAX_MESSAGE_BYTES, budget, None).await?;
        policy::ask(plane, &call).await
    };
    asked.await.unwrap_or_else(|status| failed(&status))
}

fn health(plane: &Plane) -> Response<Answer> {
    answer_bytes(if plane.ready.load(Ordering::Relaxed) { SERVING } else { NOT_SERVING })
}

async fn measured<F>(plane: &Arc<Plane>, request: Request<Incoming>, serve: F) -> Response<Answer>
where
    F: AsyncFnOnce(&Arc<Plane>, Request<Incoming>, &mut ApiTimer) -> Result<Response<Answer>, Status>,
{
    let method = measurements(plane, request.uri().path());
    let mut timer = plane.metrics.api(&method);
    if plane.metrics.in_flight() > plane.config.max_in_flight {
        let status = overloaded(plane);
        timer.finish(status.code, 0);
        return failed(&status);
    }
    match serve(plane, request, &mut timer).await {
        Ok(mut response) => {
            let code = grpc::read_status(response.headers()).map_or(Code::Ok, |status| status.code);
            match response.body_mut() {
                Answer::Relay { relay } => relay.measure(timer),
                Answer::Whole { .. } => timer.finish(code, 0),
            }
            response
        }
        Err(status) => {
            timer.finish(status.code, 0);
            failed(&status)
        }
    }
}

/// Counts, and says what is told to, a client that comes when this instance serves as many requests as it may.
#[must_use]
pub fn overloaded(plane: &Plane) -> Status {
    plane.metrics.rejections.fetch_add(1, Ordering::Relaxed);
    let text = format!("this instance serves {} requests already; try again", plane.config.max_in_flight);
    Status { retry_after: Some(OVERLOAD_PAUSE), ..Status::new(Code::ResourceExhausted, text) }
}

/// Where a method is measured: only one that is offered has a label of its own.
fn measurements(plane: &Plane, path: &str) -> Arc<MethodMetrics> {
    let method = path.trim_start_matches('/');
    let offered =
        plane.rpcs.load().get(method).is_ok() && plane.methods.load().injection_path(method).is_ok();
    if offered || split(path) == (v2::SERVICE, MODEL_READY) {
        plane.metrics.method(method)
    } else {
        plane.metrics.other_method()
    }
}

async fn read(
    plane: &Plane,
    request: Request<Incoming>,
    limit: usize,
    budget: &Arc<Budget>,
    timer: Option<&mut ApiTimer>,
) -> Result<Call, Status> {
    let (head, body) = request.into_parts();
    let deadline = grpc::deadline(&head.headers)?;
    let path =
        head.uri.path_and_query().cloned().ok_or_else(|| Status::unimplemented("the call has no path"))?;
    let metrics = measurements(plane, path.path());
    let mut messages = Messages::new(body, limit, budget);
    let reading = first_message(&mut messages, &head.headers);
    let mut message = route::within(deadline, reading).await?;
    if let Some(timer) = timer {
        timer.requested(message.as_ref().map_or(0, |message| message.body.len()));
    }
    if message.as_ref().is_some_and(|message| message.compressed) && is_read(plane, path.path()) {
        let compressed = message.take().unwrap_or_default();
        message = Some(compression::plain_aside(compressed, &head.headers, limit).await?);
    }
    let mut holding = Holding::new(budget);
    holding.grow(message.as_ref().map_or(0, |message| message.body.len()))?;
    let rest = (!messages.is_ended()).then(|| Rest::new(messages));
    Ok(Call { path, headers: head.headers, message, rest, deadline, metrics, holding })
}

/// The first message; `None` if there is none, or the client names the model in its headers and seems to wait
/// for the server to speak first.
async fn first_message(
    messages: &mut Messages<Incoming>,
    headers: &HeaderMap,
) -> Result<Option<Message>, Status> {
    if !headers::has_name(headers) {
        return messages.next().await;
    }
    match tokio::time::timeout(SILENCE, messages.next()).await {
        Ok(message) => message,
        // Only a message that has not begun can come later.
        Err(_) if messages.is_silent() => Ok(None),
        Err(_) => messages.next().await,
    }
}

/// True if the messages of a method are read or written here.
fn is_read(plane: &Plane, path: &str) -> bool {
    let method = path.trim_start_matches('/');
    plane.rpcs.load().get(method).is_ok_and(|rpc| !rpc.path.is_empty())
        || plane.methods.load().injection_path(method).is_ok_and(|path| !path.is_empty())
}

fn split(path: &str) -> (&str, &str) {
    path.trim_start_matches('/').split_once('/').unwrap_or_default()
}

fn refuse_other_protocols(request: &Request<Incoming>) -> Option<Response<Answer>> {
    if is_grpc(request.headers()) {
        return None;
    }
    let mut response = Response::new(Answer::empty());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Some(response)
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn answer(message: &impl prost::Message) -> Response<Answer> {
    answer_bytes(&message.encode_to_vec())
}

/// An answer that is one encoded message.
#[must_use]
pub fn answer_bytes(message: &[u8]) -> Response<Answer> {
    let mut response = Response::new(Answer::message(message));
    response.headers_mut().insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
    response
}

/// An answer that is only an error.
#[must_use]
pub fn failed(status: &Status) -> Response<Answer> {
    grpc::status_head(status).map(|()| Answer::empty())
}

//! The V2 inference protocol over REST: each request becomes the gRPC call it stands for, and takes its way.

mod data;
mod decode;
mod encode;
mod endpoint;
mod json;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message as _;

use self::endpoint::{Endpoint, Mismatch, Model};
use crate::body::Answer;
use crate::budget::Holding;
use crate::call::Call;
use crate::grpc::{self, Message};
use crate::headers::{self, Name};
use crate::message::Rope;
use crate::metrics::ApiTimer;
use crate::plane::Plane;
use crate::policy;
use crate::route;
use crate::service::{self, server_metadata};
use crate::status::{Code, Status};
use crate::v2;
use crate::whole;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const METADATA: &str = "/inference.GRPCInferenceService/ModelMetadata";
const READY: &str = "/inference.GRPCInferenceService/ModelReady";
/// Client headers that become gRPC metadata under their own name.
const PASSED_ON: &[&str] = &["authorization", "traceparent", "tracestate", "x-request-id"];
/// Client headers that become gRPC metadata without this prefix.
const METADATA_PREFIX: &str = "grpc-metadata-";
/// Announces tensors in binary form behind the JSON.
const BINARY_HEADER: &str = "inference-header-content-length";
/// Of a body that is too large, this many times the limit is read, within this time, before the connection
/// may close.
const DRAIN_LIMITS: usize = 8;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// A request on a port for REST clients.
pub async fn serve(plane: Arc<Plane>, request: Request<Incoming>) -> Response<Answer> {
    let endpoint = match endpoint::find(request.method(), request.uri().path()) {
        Ok(endpoint) => endpoint,
        Err(mismatch) => return refused(&mismatch),
    };
    let only_head = request.method() == Method::HEAD;
    let outcome = match endpoint {
        Endpoint::Server => Ok(ok(encode::server_metadata(&server_metadata()))),
        Endpoint::Live => Ok(ok(r#"{"live":true}"#)),
        Endpoint::Ready => Ok(server_ready(plane.ready.load(Ordering::Relaxed))),
        Endpoint::ModelReady(model) => model_ready(&plane, &request, model).await,
        Endpoint::Metadata(model) => measured(&plane, METADATA, request, model, metadata).await,
        Endpoint::Infer(model) => measured(&plane, INFER, request, model, infer).await,
    };
    let response = outcome.unwrap_or_else(|status| failed(&status));
    if only_head { without_body(response) } else { response }
}

/// The answer to HEAD. HTTP/2 does not leave the body out by itself, and clients take one for a defect.
fn without_body(mut response: Response<Answer>) -> Response<Answer> {
    if let Some(len) = response.body().size_hint().exact() {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    }
    response.map(|_| Answer::empty())
}

/// An answer that is only an error.
#[must_use]
pub fn failed(status: &Status) -> Response<Answer> {
    let mut response = ok(serde_json::json!({ "error": status.message }).to_string());
    let code = StatusCode::from_u16(status.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.status_mut() = code;
    if code == StatusCode::TOO_MANY_REQUESTS || status.retry_after.is_some() {
        let seconds = status.retry_after.map_or(1, |pause| pause.as_millis().div_ceil(1000));
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn refused(mismatch: &Mismatch) -> Response<Answer> {
    match mismatch {
        Mismatch::Path(path) => failed(&Status {
            http: Some(404),
            ..Status::unimplemented(format!("{path} is not part of the V2 inference protocol"))
        }),
        Mismatch::Method { used, allowed } => {
            let mut response = failed(&Status {
                http: Some(405),
                ..Status::unimplemented(format!("the method {used} is not allowed here; use {allowed}"))
            });
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
            response
        }
    }
}

fn ok(body: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::bytes(body));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

fn server_ready(ready: bool) -> Response<Answer> {
    let mut response = ok(if ready { r#"{"ready":true}"# } else { r#"{"ready":false}"# });
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

async fn model_ready(
    plane: &Arc<Plane>,
    request: &Request<Incoming>,
    model: Model,
) -> Result<Response<Answer>, Status> {
    let ready = service::is_ready(plane, &model.name) || {
        let asked = v2::ModelRequest { name: model.name.clone(), version: model.version };
        let call = call(plane, READY, request.headers(), asked.encode_to_vec())?;
        let answer = whole::message(policy::ask(plane, &call).await?, plane.config.max_message_bytes).await?;
        decoded::<v2::ModelReadyResponse>(answer)?.ready
    };
    let mut response = ok(encode::model_ready(&model.name, ready));
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

async fn measured<F>(
    plane: &Arc<Plane>,
    path: &str,
    request: Request<Incoming>,
    model: Model,
    serve: F,
) -> Result<Response<Answer>, Status>
where
    F: AsyncFnOnce(&Arc<Plane>, Request<Incoming>, Model, &mut ApiTimer) -> Result<Vec<u8>, Status>,
{
    let mut timer = plane.metrics.api(&plane.metrics.method(path.trim_start_matches('/')));
    if plane.metrics.in_flight() > plane.config.max_in_flight {
        let status = service::overloaded(plane);
        timer.finish(status.code, 0);
        return Err(status);
    }
    match serve(plane, request, model, &mut timer).await {
        Ok(body) => {
            timer.finish(Code::Ok, body.len() as u64);
            Ok(ok(body))
        }
        Err(status) => {
            timer.finish(status.code, 0);
            Err(status)
        }
    }
}

async fn metadata(
    plane: &Arc<Plane>,
    request: Request<Incoming>,
    model: Model,
    _timer: &mut ApiTimer,
) -> Result<Vec<u8>, Status> {
    let asked = v2::ModelRequest { name: model.name.clone(), version: model.version };
    let call = call(plane, METADATA, request.headers(), asked.encode_to_vec())?;
    let answer = serve_call(plane, &call, &model.name).await?;
    Ok(encode::model_metadata(&decoded(answer)?))
}

async fn infer(
    plane: &Arc<Plane>,
    request: Request<Incoming>,
    model: Model,
    timer: &mut ApiTimer,
) -> Result<Vec<u8>, Status> {
    let (head, body) = request.into_parts();
    if head.headers.contains_key(BINARY_HEADER) {
        return Err(Status::invalid("binary tensor data is not supported; send the tensors as JSON"));
    }
    let name = model.name.clone();
    let mut holding = Holding::new(&plane.buffered);
    let body = read(body, plane.config.max_message_bytes, &mut holding).await?;
    timer.requested(body.len());
    let encoded = decode::infer_request(&body, model.name, model.version)?.encode_to_vec();
    holding.shrink(body.len());
    drop(body);
    if encoded.len() > plane.config.max_message_bytes {
        return Err(Status::too_large("request message", plane.config.max_message_bytes));
    }
    let call = call(plane, INFER, &head.headers, encoded)?;
    let answer = serve_call(plane, &call, &name).await?;
    encode::infer_response(&decoded(answer)?)
}

async fn serve_call(plane: &Arc<Plane>, call: &Call, name: &str) -> Result<Bytes, Status> {
    let name = match call.named_in_message(plane)? {
        Some(name) => name,
        None => Name::new(Bytes::copy_from_slice(name.as_bytes()), true)?,
    };
    let answer = route::serve(plane, call, &name).await?;
    whole::message(answer, plane.config.max_message_bytes).await
}

fn call(plane: &Plane, path: &str, headers: &HeaderMap, message: Vec<u8>) -> Result<Call, Status> {
    let path =
        PathAndQuery::try_from(path).map_err(|error| Status::new(Code::Internal, error.to_string()))?;
    let mut holding = Holding::new(&plane.buffered);
    holding.grow(message.len())?;
    Ok(Call {
        metrics: plane.metrics.method(path.path().trim_start_matches('/')),
        path,
        deadline: grpc::deadline(headers)?,
        headers: metadata_of(headers),
        holding,
        message: Some(Message::of(message)),
        rest: None,
    })
}

/// The gRPC metadata that a REST client's headers stand for.
fn metadata_of(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        if PASSED_ON.contains(&name.as_str()) {
            metadata.append(name.clone(), value.clone());
        } else if let Some(inner) = name.as_str().strip_prefix(METADATA_PREFIX)
            && let Ok(inner) = HeaderName::try_from(inner)
        {
            metadata.append(inner, value.clone());
        }
    }
    metadata.remove(headers::HOP);
    metadata
}

async fn read(mut body: Incoming, limit: usize, holding: &mut Holding) -> Result<Bytes, Status> {
    let mut rope = Rope::default();
    let announced = body.size_hint().lower() > limit as u64;
    while !announced && let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Status::new(Code::Cancelled, "the client went away"))?;
        if let Ok(data) = frame.into_data() {
            holding.grow(data.len())?;
            rope.receive(data);
        }
        if rope.len() > limit {
            break;
        }
    }
    if announced || rope.len() > limit {
        tokio::spawn(tokio::time::timeout(DRAIN_TIME, drain(body, limit.saturating_mul(DRAIN_LIMITS))));
        return Err(Status::too_large("request body", limit));
    }
    Ok(rope.to_bytes())
}

/// Reads on and forgets, for a while: a client that still sends when its connection closes does not see the
/// answer.
async fn drain(mut body: Incoming, mut bytes: usize) {
    while let Some(Ok(frame)) = body.frame().await {
        bytes = bytes.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if bytes == 0 {
            return;
        }
    }
}

fn decoded<M: prost::Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message)
        .map_err(|error| Status::new(Code::Internal, format!("the server's answer cannot be read: {error}")))
}

//! The V2 inference protocol over REST.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::body::Answer;
use crate::plane::Plane;
use crate::status::Status;

/// A request on a port for REST clients.
pub async fn serve(_plane: Arc<Plane>, _request: Request<Incoming>) -> Response<Answer> {
    failed(&Status::unimplemented("to come"))
}

/// An answer that is only an error.
#[must_use]
pub fn failed(status: &Status) -> Response<Answer> {
    let body = serde_json::json!({ "error": status.message }).to_string();
    let mut response = Response::new(Answer::bytes(body));
    *response.status_mut() = StatusCode::from_u16(status.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

//! A request to several models at once: each gets it, and their answers are joined.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::body::Answer;
use crate::call::Call;
use crate::grpc;
use crate::headers::{self, Name};
use crate::plane::Plane;
use crate::route;
use crate::service;
use crate::status::{Code, Status};
use crate::whole;

/// Serves a unary call by each of the models `names`. The answer is their messages one after the other, in the
/// order of the names: what protobuf reads as one message with all their repeated fields. Models that are not
/// found are left out, unless the client requires all.
///
/// # Errors
/// What the first model fails with; `NOT_FOUND` if no model is found.
pub async fn serve(plane: &Arc<Plane>, mut call: Call, names: &[Name]) -> Result<Response<Answer>, Status> {
    route::within(call.deadline, call.only_message()).await?;
    call.rest = None;
    // Compressed messages cannot be joined.
    call.headers.remove(grpc::ACCEPT_ENCODING);
    let all = headers::requires_all(&call.headers);
    let call = Arc::new(call);
    let turns = Arc::new(Semaphore::new(plane.config.multi_parallelism.max(1)));
    let mut running = JoinSet::new();
    for (index, name) in names.iter().cloned().enumerate() {
        let (plane, call, turns) = (Arc::clone(plane), Arc::clone(&call), Arc::clone(&turns));
        running.spawn(async move {
            let _turn = turns.acquire().await;
            (index, ask(&plane, &call, &name).await)
        });
    }
    let mut answers = vec![None; names.len()];
    let mut size = 0;
    while let Some(ended) = running.join_next().await {
        let (index, outcome) = ended.map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        match outcome {
            Ok((headers, message)) => {
                size += message.len();
                answers[index] = Some((headers, message));
            }
            Err(NotServed::Unknown(_)) if !all => {}
            Err(NotServed::Unknown(status) | NotServed::Failed(status)) => return Err(status),
        }
        if size > plane.config.max_message_bytes {
            return Err(Status::too_large("joined response message", plane.config.max_message_bytes));
        }
    }
    if answers.iter().all(Option::is_none) {
        return Err(Status::new(Code::NotFound, "none of the requested models were found"));
    }
    let mut joined = BytesMut::with_capacity(size);
    let mut merged = HeaderMap::new();
    for (headers, message) in answers.into_iter().flatten() {
        joined.extend_from_slice(&message);
        for (name, value) in &headers {
            if !merged.get_all(name).iter().any(|known| known == value) {
                merged.append(name.clone(), value.clone());
            }
        }
    }
    let mut response = service::answer_bytes(&joined);
    merged.remove(http::header::CONTENT_TYPE);
    merged.remove(grpc::ENCODING);
    merged.remove(grpc::ACCEPT_ENCODING);
    response.headers_mut().extend(merged);
    Ok(response)
}

enum NotServed {
    Unknown(Status),
    Failed(Status),
}

async fn ask(plane: &Arc<Plane>, call: &Call, name: &Name) -> Result<(HeaderMap, Bytes), NotServed> {
    let response = route::serve(plane, call, name).await.map_err(|status| match status.code {
        Code::NotFound => NotServed::Unknown(status),
        _ => NotServed::Failed(status),
    })?;
    let headers = response.headers().clone();
    let message =
        whole::message(response, plane.config.max_message_bytes).await.map_err(NotServed::Failed)?;
    Ok((headers, message))
}

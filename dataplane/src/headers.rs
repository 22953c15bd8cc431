//! Which headers name a model, and which go on to a server.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::Instant;

use crate::grpc;
use crate::status::Status;
use crate::table::Model;

const MODEL_ID: HeaderName = HeaderName::from_static("mm-model-id");
const MODEL_ID_BIN: HeaderName = HeaderName::from_static("mm-model-id-bin");
const VMODEL_ID: HeaderName = HeaderName::from_static("mm-vmodel-id");
const VMODEL_ID_BIN: HeaderName = HeaderName::from_static("mm-vmodel-id-bin");
const LEGACY_MODEL_ID: HeaderName = HeaderName::from_static("tas-model-id");
/// Marks a request that a peer has routed: it is for the local copy, and goes no further.
pub const HOP: HeaderName = HeaderName::from_static("mm-hop");
/// The value of [`HOP`].
pub const HOP_HIT: HeaderValue = HeaderValue::from_static("hit");
/// Marks the answer to a hop whose copy is not here, or cannot serve: another copy may.
pub const HOP_STATUS: HeaderName = HeaderName::from_static("mm-hop-status");
/// The model has no copy here.
pub const HOP_NOT_HERE: HeaderValue = HeaderValue::from_static("not-here");
/// The copy cannot serve.
pub const HOP_FAILED: HeaderValue = HeaderValue::from_static("failed");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// What a client calls a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The id: UTF-8, not empty.
    id: Bytes,
    /// It is an alias (a vmodel id).
    pub is_alias: bool,
}

impl Name {
    /// A name from bytes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it is empty or not UTF-8.
    pub fn new(id: Bytes, is_alias: bool) -> Result<Self, Status> {
        match std::str::from_utf8(&id) {
            Ok("") => Err(Status::invalid("the model id must not be empty")),
            Ok(_) => Ok(Self { id, is_alias }),
            Err(_) => Err(Status::invalid("the model id is not UTF-8")),
        }
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
    }
}

/// The name in the headers.
///
/// # Errors
/// `INVALID_ARGUMENT` if there is none or an unreadable one, or both a model and a vmodel id;
/// `UNIMPLEMENTED` if there are several.
pub fn name(headers: &HeaderMap) -> Result<Name, Status> {
    let legacy = || id(headers, &LEGACY_MODEL_ID, None);
    let model = id(headers, &MODEL_ID, Some(&MODEL_ID_BIN)).or_else(legacy);
    match (model, id(headers, &VMODEL_ID, Some(&VMODEL_ID_BIN))) {
        (None, None) => Err(Status::invalid("must include mm-model-id header")),
        (Some(_), Some(_)) => Err(Status::invalid("must include only one of model id and vmodel id")),
        (Some(model), None) => Name::new(model?, false),
        (None, Some(alias)) => Name::new(alias?, true),
    }
}

fn id(headers: &HeaderMap, plain: &HeaderName, binary: Option<&HeaderName>) -> Option<Result<Bytes, Status>> {
    if let Some(value) = only(headers, plain) {
        return Some(value.map(|value| Bytes::copy_from_slice(value.as_bytes())));
    }
    let value = only(headers, binary?)?;
    Some(value.and_then(|value| {
        let encoded = value.as_bytes();
        let decoded = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded));
        decoded.map(Bytes::from).map_err(|_| Status::invalid(format!("{plain}-bin is not base64")))
    }))
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Result<&'a HeaderValue, Status>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() {
        return Some(Err(Status::unimplemented("requests to several models at once are not supported")));
    }
    Some(Ok(first))
}

/// True for headers that belong to one hop or to the mesh itself, and never go on.
fn is_stripped(name: &str) -> bool {
    name.starts_with("mm-")
        || name.starts_with("grpc-")
        || matches!(
            name,
            "tas-model-id" | "content-type" | "content-length" | "user-agent" | "te" | "host" | "connection"
        )
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers {
        if !is_stripped(name.as_str()) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

/// The headers of a call of the model server or a peer: the client's own, what describes the message, and
/// the concrete id.
#[must_use]
pub fn outgoing(client: &HeaderMap, model: &Model, deadline: Option<Instant>, hop: bool) -> HeaderMap {
    let mut headers = passed_on(client);
    let content_type = client.get(header::CONTENT_TYPE).cloned().unwrap_or(grpc::CONTENT_TYPE);
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::TE, TRAILERS);
    for name in [grpc::ENCODING, grpc::ACCEPT_ENCODING] {
        if let Some(value) = client.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    if let Some(deadline) = deadline {
        headers.insert(grpc::TIMEOUT, grpc::timeout_until(deadline));
    }
    if let Some(id) = &model.id_header {
        headers.insert(MODEL_ID, id.clone());
    }
    headers.insert(MODEL_ID_BIN, model.id_header_bin.clone());
    if hop {
        headers.insert(HOP, HOP_HIT);
    }
    headers
}

/// Removes from an answer what concerns only the mesh.
pub fn clean_answer(headers: &mut HeaderMap) {
    if headers.keys().any(|name| name.as_str().starts_with("mm-")) {
        let own: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with("mm-")).cloned().collect();
        for name in own {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Code;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn named(pairs: &[(&'static str, &'static str)]) -> Result<(String, bool), Code> {
        name(&headers(pairs))
            .map(|name| (name.as_str().to_owned(), name.is_alias))
            .map_err(|error| error.code)
    }

    #[test]
    fn each_kind_of_header_names_a_model() {
        assert_eq!(named(&[("mm-model-id", "a")]), Ok(("a".into(), false)));
        assert_eq!(named(&[("tas-model-id", "a")]), Ok(("a".into(), false)));
        assert_eq!(named(&[("mm-vmodel-id", "v")]), Ok(("v".into(), true)));
        assert_eq!(named(&[("mm-model-id-bin", "w7Y")]), Ok(("ö".into(), false)));
        assert_eq!(named(&[("mm-vmodel-id-bin", "w7Y=")]), Ok(("ö".into(), true)));
    }

    #[test]
    fn what_names_no_model_is_refused() {
        assert_eq!(named(&[]), Err(Code::InvalidArgument));
        assert_eq!(named(&[("mm-model-id", "")]), Err(Code::InvalidArgument));
        assert_eq!(named(&[("mm-model-id-bin", "%")]), Err(Code::InvalidArgument));
        assert_eq!(named(&[("mm-model-id", "a"), ("mm-vmodel-id", "b")]), Err(Code::InvalidArgument));
        assert_eq!(named(&[("mm-model-id", "a"), ("mm-model-id", "b")]), Err(Code::Unimplemented));
    }
}

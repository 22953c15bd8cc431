//! Which headers name a model, and which go on to a server.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::grpc;
use crate::status::Status;
use crate::table::Model;

const MODEL_ID: HeaderName = HeaderName::from_static("mm-model-id");
const MODEL_ID_BIN: HeaderName = HeaderName::from_static("mm-model-id-bin");
const VMODEL_ID: HeaderName = HeaderName::from_static("mm-vmodel-id");
const VMODEL_ID_BIN: HeaderName = HeaderName::from_static("mm-vmodel-id-bin");
/// What a request to several models does about those that are not found.
const REQUIRED: HeaderName = HeaderName::from_static("mm-required");
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
/// `INVALID_ARGUMENT` if there is none or an unreadable one, several, or both a model and a vmodel id.
pub fn name(headers: &HeaderMap) -> Result<Name, Status> {
    let mut names = names(headers)?;
    match names.pop() {
        Some(only) if names.is_empty() => Ok(only),
        _ => Err(Status::invalid("must include only one model id")),
    }
}

/// The names in the headers, in the order in which they are there; at least one.
///
/// # Errors
/// `INVALID_ARGUMENT` if there is none, an unreadable one, or both model and vmodel ids.
pub fn names(headers: &HeaderMap) -> Result<SmallVec<[Name; 1]>, Status> {
    let models = ids(headers, &MODEL_ID, Some(&MODEL_ID_BIN), false)?;
    let models = if models.is_empty() { ids(headers, &LEGACY_MODEL_ID, None, false)? } else { models };
    let aliases = ids(headers, &VMODEL_ID, Some(&VMODEL_ID_BIN), true)?;
    match (models.is_empty(), aliases.is_empty()) {
        (true, true) => Err(Status::invalid("must include mm-model-id header")),
        (false, false) => Err(Status::invalid("must include only one of model id and vmodel id")),
        (false, true) => Ok(models),
        (true, false) => Ok(aliases),
    }
}

/// True if there is a name, readable or not, in the headers.
#[must_use]
pub fn has_name(headers: &HeaderMap) -> bool {
    [MODEL_ID, MODEL_ID_BIN, VMODEL_ID, VMODEL_ID_BIN, LEGACY_MODEL_ID]
        .iter()
        .any(|name| headers.contains_key(name))
}

/// True if a request to several models fails where one of them is not found.
#[must_use]
pub fn requires_all(headers: &HeaderMap) -> bool {
    headers.get(REQUIRED).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"all"))
}

fn ids(
    headers: &HeaderMap,
    plain: &HeaderName,
    binary: Option<&HeaderName>,
    is_alias: bool,
) -> Result<SmallVec<[Name; 1]>, Status> {
    let mut names = SmallVec::new();
    for value in headers.get_all(plain) {
        names.push(Name::new(Bytes::copy_from_slice(value.as_bytes()), is_alias)?);
    }
    let Some(binary) = binary.filter(|_| names.is_empty()) else { return Ok(names) };
    for value in headers.get_all(binary) {
        // Senders may join the values of a repeated binary header with commas.
        for encoded in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let decoded = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded));
            let decoded = decoded.map_err(|_| Status::invalid(format!("{binary} is not base64")))?;
            names.push(Name::new(decoded.into(), is_alias)?);
        }
    }
    Ok(names)
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
        assert_eq!(named(&[("mm-model-id", "a"), ("mm-model-id", "b")]), Err(Code::InvalidArgument));
    }

    #[test]
    fn several_names_keep_their_order() {
        for pairs in [
            &[("mm-model-id", "b"), ("mm-model-id", "a"), ("mm-model-id-bin", "Yw")][..],
            &[("mm-vmodel-id-bin", "Yg, YQ==")],
            &[("tas-model-id", "b"), ("tas-model-id", "a")],
        ] {
            let names = names(&headers(pairs)).unwrap();
            assert_eq!(names.iter().map(Name::as_str).collect::<Vec<_>>(), ["b", "a"]);
        }
    }
}

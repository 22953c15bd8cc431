//! A call of a client, and the model it is for.

use std::sync::Arc;

use http::HeaderMap;
use http::uri::PathAndQuery;
use tokio::time::Instant;

use crate::grpc::Message;
use crate::headers::{self, Name};
use crate::message;
use crate::metrics::MethodMetrics;
use crate::plane::Plane;
use crate::status::Status;
use crate::table::Model;

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

    /// Finds the model of a call: in the message, where the configuration says so, else in the headers.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if there is no readable name, `UNIMPLEMENTED` if the message is compressed.
    pub fn name(&self, plane: &Plane) -> Result<Name, Status> {
        let rpcs = plane.rpcs.load();
        let rpc = rpcs.get(self.method())?;
        if rpc.path.is_empty() {
            return headers::name(&self.headers);
        }
        require_plain(&self.message)?;
        let found = message::extract(&self.message.body, &rpc.path);
        match found.map_err(malformed)? {
            Some(id) => Name::new(id, rpc.is_alias),
            None => headers::name(&self.headers),
        }
    }

    /// The message as the model server wants it: with the concrete id, where it reads one.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` if the server does not offer the method, or the message is compressed;
    /// `INVALID_ARGUMENT` if it is malformed.
    pub fn injected(&self, plane: &Plane, model: &Model) -> Result<Message, Status> {
        let methods = plane.methods.load();
        let path = methods.injection_path(self.method())?;
        if path.is_empty() {
            return Ok(self.message.clone());
        }
        require_plain(&self.message)?;
        match message::splice(&self.message.body, path, &model.id) {
            Ok(body) => Ok(Message { compressed: false, body }),
            Err(error) => Err(malformed(error)),
        }
    }
}

fn require_plain(message: &Message) -> Result<(), Status> {
    if message.compressed {
        let text = "the message is compressed, but carries the model id; send it without compression";
        return Err(Status::unimplemented(text));
    }
    Ok(())
}

fn malformed(error: message::Malformed) -> Status {
    Status::invalid(format!("the request message is malformed: {error}"))
}

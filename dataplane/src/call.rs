//! A call of a client, and the model it is for.

use std::sync::Arc;

use http::HeaderMap;
use http::uri::PathAndQuery;
use tokio::time::Instant;

use crate::body::{self, Injection, Outgoing};
use crate::budget::Holding;
use crate::grpc::Message;
use crate::headers::{self, Name};
use crate::message;
use crate::messages::Rest;
use crate::metrics::MethodMetrics;
use crate::plane::Plane;
use crate::status::Status;
use crate::table::Model;

/// A call of a client, read up to its first message.
#[derive(Debug)]
pub struct Call {
    /// `/<package>.<Service>/<Method>`.
    pub path: PathAndQuery,
    /// The client's headers.
    pub headers: HeaderMap,
    /// The first message; `None` if the client has not sent one (yet).
    pub message: Option<Message>,
    /// The messages that follow; `None` if it is known that there are none.
    pub rest: Option<Arc<Rest>>,
    /// When the client stops waiting.
    pub deadline: Option<Instant>,
    /// Where the call is measured.
    pub metrics: Arc<MethodMetrics>,
    /// The memory of the first message.
    pub holding: Holding,
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
    /// `INVALID_ARGUMENT` if there is no readable name, or several.
    pub fn name(&self, plane: &Plane) -> Result<Name, Status> {
        match self.named_in_message(plane)? {
            Some(name) => Ok(name),
            None => headers::name(&self.headers),
        }
    }

    /// The name in the message, where the configuration says that there is one. The message must be plain.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it is not readable.
    pub fn named_in_message(&self, plane: &Plane) -> Result<Option<Name>, Status> {
        let rpcs = plane.rpcs.load();
        let rpc = rpcs.get(self.method())?;
        let Some(message) = self.message.as_ref().filter(|_| !rpc.path.is_empty()) else { return Ok(None) };
        let found = message::extract(&message.body, &rpc.path).map_err(Status::malformed)?;
        found.map(|id| Name::new(id, rpc.is_alias)).transpose()
    }

    /// The body of this call for the local model server: with the concrete id in each message, where the
    /// server reads one.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` if the server does not offer the method; `INVALID_ARGUMENT` if the first message is
    /// malformed.
    pub fn injected(&self, plane: &Plane, model: &Arc<Model>) -> Result<Outgoing, Status> {
        let methods = plane.methods.load();
        let limit = plane.config.max_message_bytes;
        let inject = |message| body::inject(&methods, self.method(), model, message, &self.headers, limit);
        let first = self.message.clone().map(inject).transpose()?;
        // Also where there is no message: the server must offer the method.
        methods.injection_path(self.method())?;
        Ok(self.outgoing(first.as_ref(), || {
            Some(Injection {
                methods: Arc::clone(&methods),
                method: self.method().into(),
                model: Arc::clone(model),
                headers: self.headers.clone(),
                limit,
            })
        }))
    }

    /// The body of this call for a peer.
    #[must_use]
    pub fn as_it_is(&self) -> Outgoing {
        self.outgoing(self.message.as_ref(), || None)
    }

    fn outgoing(&self, first: Option<&Message>, injection: impl Fn() -> Option<Injection>) -> Outgoing {
        match (&self.rest, first) {
            (Some(rest), first) => Outgoing::stream(first, rest.turn(), injection()),
            (None, Some(only)) => Outgoing::message(only),
            (None, None) => Outgoing::nothing(),
        }
    }

    /// True if messages went to a server that are not kept, so that no other can have the call.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.is_taken())
    }

    /// What the client did wrong in a later message, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<Status> {
        self.rest.as_ref()?.failure()
    }

    /// The one message of a unary call.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if there is none, `UNIMPLEMENTED` if there are more.
    pub async fn only_message(&self) -> Result<&Message, Status> {
        let message = self.message.as_ref();
        let message = message.ok_or_else(|| Status::invalid("the call carries no request message"))?;
        if let Some(rest) = &self.rest
            && rest.next().await?.is_some()
        {
            return Err(Status::unimplemented("this method takes one request message, the call has more"));
        }
        Ok(message)
    }
}

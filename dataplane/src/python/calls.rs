//! What the policy takes from the inbox, and the calls that it makes, as Python objects.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::task::AbortHandle;

use crate::inbox::Event;
use crate::miss::Ticket;
use crate::outgoing::{self, Reply as Ended};
use crate::plane::Plane;
use crate::policy::Asked;
use crate::status::{Code, Status};
use crate::upstream::{Care, Upstream};

/// Requests for one model that found no usable copy.
#[pyclass(frozen, name = "Miss", module = "modelmesh_dataplane._native")]
#[derive(Debug)]
pub struct Miss(Ticket);

#[pymethods]
impl Miss {
    #[getter]
    fn name(&self) -> &str {
        &self.0.question().name
    }

    #[getter]
    fn is_alias(&self) -> bool {
        self.0.question().is_alias
    }

    #[getter]
    fn model_id(&self) -> &str {
        &self.0.question().model
    }

    #[getter]
    fn method(&self) -> &str {
        self.0.method()
    }

    #[getter]
    fn excluded(&self) -> Vec<String> {
        self.0.question().excluded.iter().map(ToString::to_string).collect()
    }

    #[getter]
    fn failure(&self) -> Option<&'static str> {
        self.0.question().failure.map(crate::miss::Failure::name)
    }

    #[getter]
    fn deadline_ms(&self) -> Option<u64> {
        self.0.time_left().map(milliseconds)
    }

    #[getter]
    fn since_tried_ms(&self) -> Option<u64> {
        self.0.since_tried().map(milliseconds)
    }

    fn serve(&self) {
        self.0.answer(Ok(()));
    }

    #[pyo3(signature = (code, message, retry_after_ms=None))]
    fn fail(&self, code: usize, message: String, retry_after_ms: Option<u64>) -> PyResult<()> {
        self.0.answer(Err(failure(code, message, retry_after_ms)?));
        Ok(())
    }

    fn __repr__(&self) -> String {
        let question = self.0.question();
        format!(
            "Miss(name='{}', model_id='{}', excluded={:?})",
            question.name, question.model, question.excluded
        )
    }
}

/// A call that the policy itself answers.
#[pyclass(frozen, name = "Call", module = "modelmesh_dataplane._native")]
#[derive(Debug)]
pub struct Call(Asked);

#[pymethods]
impl Call {
    #[getter]
    fn number(&self) -> u64 {
        self.0.number
    }

    #[getter]
    fn method(&self) -> &str {
        &self.0.method
    }

    #[getter]
    fn message<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.message)
    }

    #[getter]
    fn deadline_ms(&self) -> Option<u64> {
        self.0.time_left().map(milliseconds)
    }

    fn reply(&self, message: &[u8]) {
        self.0.answer(Ok(Bytes::copy_from_slice(message)));
    }

    #[pyo3(signature = (code, message, retry_after_ms=None, metadata=Vec::new()))]
    #[pyo3(text_signature = "($self, code, message, retry_after_ms=None, metadata=())")]
    #[allow(clippy::needless_pass_by_value)] // what is extracted from Python is owned
    fn fail(
        &self,
        code: usize,
        message: String,
        retry_after_ms: Option<u64>,
        metadata: Vec<(String, String)>,
    ) -> PyResult<()> {
        self.0.answer(Err((failure(code, message, retry_after_ms)?, headers(&metadata)?)));
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("Call(number={}, method='{}')", self.0.number, self.0.method)
    }
}

/// Nobody waits for the answer to a call any more.
#[pyclass(frozen, name = "Gone", module = "modelmesh_dataplane._native")]
#[derive(Debug)]
pub struct Gone {
    #[pyo3(get)]
    number: u64,
}

/// How a call of the policy ended.
#[pyclass(frozen, name = "Reply", module = "modelmesh_dataplane._native")]
#[derive(Debug)]
pub struct Reply(Ended);

#[pymethods]
impl Reply {
    #[getter]
    fn number(&self) -> u64 {
        self.0.number
    }

    #[getter]
    fn code(&self) -> u8 {
        self.0.status.code as u8
    }

    #[getter]
    fn details(&self) -> &str {
        &self.0.status.message
    }

    #[getter]
    fn retry_after_ms(&self) -> Option<u64> {
        self.0.status.retry_after.map(milliseconds)
    }

    #[getter]
    fn message<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.message)
    }

    #[getter]
    fn compressed(&self) -> bool {
        self.0.compressed
    }

    fn metadata(&self, name: &str) -> Option<&str> {
        let value = self.0.headers.get(name).or_else(|| self.0.trailers.get(name))?;
        value.to_str().ok()
    }

    fn __repr__(&self) -> String {
        format!("Reply(number={}, '{}')", self.0.number, self.0.status)
    }
}

/// A call of the policy that is under way.
#[pyclass(frozen, name = "Sent", module = "modelmesh_dataplane._native")]
#[derive(Debug)]
pub struct Sent {
    #[pyo3(get)]
    number: u64,
    task: Option<AbortHandle>,
}

#[pymethods]
impl Sent {
    fn cancel(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A server that the policy calls.
#[pyclass(frozen, name = "Channel", module = "modelmesh_dataplane._native")]
#[derive(Debug)]
pub struct Channel {
    plane: Arc<Plane>,
    upstream: Arc<Upstream>,
}

impl Channel {
    pub fn new(plane: &Arc<Plane>, target: &str, pings: bool) -> PyResult<Self> {
        let target = target.parse().map_err(PyValueError::new_err)?;
        let care = if pings { Care::Called } else { Care::Runtime };
        Ok(Self { plane: Arc::clone(plane), upstream: Upstream::new(target, care, 1) })
    }
}

#[pymethods]
impl Channel {
    #[pyo3(signature = (method, message, timeout_ms=None, metadata=Vec::new()))]
    #[pyo3(text_signature = "($self, method, message, timeout_ms=None, metadata=())")]
    #[allow(clippy::needless_pass_by_value)] // what is extracted from Python is owned
    fn send(
        &self,
        method: &str,
        message: &[u8],
        timeout_ms: Option<u64>,
        metadata: Vec<(String, String)>,
    ) -> PyResult<Sent> {
        let request = outgoing::Request {
            path: PathAndQuery::try_from(format!("/{method}")).map_err(value_error)?,
            headers: headers(&metadata)?,
            message: Bytes::copy_from_slice(message),
            timeout: timeout_ms.map(Duration::from_millis),
        };
        let (number, task) = outgoing::send(&self.plane, &self.upstream, request);
        Ok(Sent { number, task })
    }
}

/// The Python object of an event.
pub fn object(py: Python<'_>, event: Event) -> PyResult<Py<PyAny>> {
    Ok(match event {
        Event::Miss(ticket) => Py::new(py, Miss(ticket))?.into_any(),
        Event::Asked(asked) => Py::new(py, Call(asked))?.into_any(),
        Event::Gone(number) => Py::new(py, Gone { number })?.into_any(),
        Event::Reply(reply) => Py::new(py, Reply(reply))?.into_any(),
    })
}

fn failure(code: usize, message: String, retry_after_ms: Option<u64>) -> PyResult<Status> {
    match Code::from_number(code) {
        Code::Ok => Err(PyValueError::new_err("a request cannot fail with the code OK")),
        code => Ok(Status::of_policy(code, message, retry_after_ms.map(Duration::from_millis))),
    }
}

fn headers(metadata: &[(String, String)]) -> PyResult<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(metadata.len());
    for (name, value) in metadata {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(value_error)?;
        headers.append(name, HeaderValue::from_str(value).map_err(value_error)?);
    }
    Ok(headers)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[allow(clippy::needless_pass_by_value)] // it is called where errors are mapped
fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

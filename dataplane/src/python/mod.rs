//! The Python face: `modelmesh_dataplane._native`.
//!
//! No thread of the byte path takes the interpreter's lock: the policy takes from the inbox what is for it.

mod calls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyMapping;

use self::calls::{Call, Channel, Gone, Miss, Reply, Sent, object};
use crate::plane::{Config, Plane};
use crate::rpcs::{Methods, Rpc, Rpcs};
use crate::server::Server;
use crate::table::{Copies, PeerCopy};

/// A copy of a model, for a routing table.
#[pyclass(frozen, name = "CopyRoute", module = "modelmesh_dataplane._native")]
#[derive(Debug)]
struct CopyRoute {
    #[pyo3(get)]
    instance_id: String,
    #[pyo3(get)]
    address: Option<String>,
    #[pyo3(get)]
    loaded: bool,
}

#[pymethods]
impl CopyRoute {
    #[new]
    #[pyo3(signature = (instance_id, address, loaded=true))]
    fn new(instance_id: String, address: Option<String>, loaded: bool) -> Self {
        Self { instance_id, address, loaded }
    }

    fn __repr__(&self) -> String {
        let address = self.address.as_ref().map_or("None".to_owned(), |address| format!("'{address}'"));
        let loaded = if self.loaded { "True" } else { "False" };
        format!("CopyRoute('{}', {address}, loaded={loaded})", self.instance_id)
    }
}

/// The byte path of one instance.
#[pyclass(frozen, name = "Dataplane", module = "modelmesh_dataplane._native")]
#[derive(Debug)]
struct Dataplane {
    plane: Arc<Plane>,
    server: Mutex<Option<Server>>,
    started: AtomicBool,
}

#[pymethods]
impl Dataplane {
    #[new]
    #[pyo3(
        signature = (
            *,
            instance_id,
            runtime_target,
            grpc_listen,
            rest_listen=Vec::new(),
            peer_listen=None,
            shared_listen_grpc=Vec::new(),
            shared_listen_rest=Vec::new(),
            max_message_bytes=16_777_216,
            max_header_bytes=8192,
            worker_threads=2,
            multi_parallelism=4,
            max_connection_age_s=None,
            connection_age_grace_s=None,
            max_in_flight=10_000,
            max_in_flight_per_model=5000,
            max_buffered_bytes=134_217_728,
        ),
        text_signature = "(*, instance_id, runtime_target, grpc_listen, \
            rest_listen=(), peer_listen=None, shared_listen_grpc=(), shared_listen_rest=(), \
            max_message_bytes=16777216, max_header_bytes=8192, worker_threads=2, \
            multi_parallelism=4, max_connection_age_s=None, connection_age_grace_s=None, max_in_flight=10000, \
            max_in_flight_per_model=5000, max_buffered_bytes=134217728)"
    )]
    #[allow(clippy::too_many_arguments)] // they are keyword arguments
    fn new(
        instance_id: String,
        runtime_target: Option<&str>,
        grpc_listen: Vec<String>,
        rest_listen: Vec<String>,
        peer_listen: Option<String>,
        shared_listen_grpc: Vec<String>,
        shared_listen_rest: Vec<String>,
        max_message_bytes: usize,
        max_header_bytes: u32,
        worker_threads: usize,
        multi_parallelism: usize,
        max_connection_age_s: Option<u64>,
        connection_age_grace_s: Option<u64>,
        max_in_flight: usize,
        max_in_flight_per_model: usize,
        max_buffered_bytes: usize,
    ) -> PyResult<Self> {
        let plane = Plane::new(Config {
            instance_id,
            runtime: runtime_target.map(str::parse).transpose().map_err(PyValueError::new_err)?,
            grpc_listen,
            rest_listen,
            peer_listen,
            shared_listen_grpc,
            shared_listen_rest,
            max_message_bytes,
            max_header_bytes,
            worker_threads,
            multi_parallelism,
            max_connection_age: max_connection_age_s.map(Duration::from_secs),
            connection_age_grace: connection_age_grace_s.map(Duration::from_secs),
            max_in_flight,
            max_in_flight_per_model,
            max_buffered_bytes,
        });
        let plane = plane.map_err(|error| os_error(&error))?;
        Ok(Self { plane, server: Mutex::new(None), started: AtomicBool::new(false) })
    }

    fn start(&self) -> PyResult<()> {
        let mut server = self.server.lock();
        if self.started.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err("the dataplane has been started before"));
        }
        *server = Some(Server::start(Arc::clone(&self.plane)).map_err(|error| os_error(&error))?);
        self.started.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn fileno(&self) -> i32 {
        self.plane.inbox.fd()
    }

    fn take(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        self.plane.inbox.take().into_iter().map(|event| object(py, event)).collect()
    }

    #[pyo3(signature = (target, pings=false))]
    fn channel(&self, target: &str, pings: bool) -> PyResult<Channel> {
        Channel::new(&self.plane, target, pings)
    }

    fn addresses(&self) -> Vec<(&'static str, String)> {
        let server = self.server.lock();
        let bound = server.as_ref().map(Server::bound).unwrap_or_default();
        bound.iter().map(|(port, address)| (port.name(), address.to_string())).collect()
    }

    fn set_rpcs(&self, rpcs: &Bound<'_, PyMapping>, allow_other: bool) -> PyResult<()> {
        let mut listed = Vec::new();
        for item in rpcs.items()?.iter() {
            let (method, (path, is_alias)): (String, (Vec<u32>, bool)) = item.extract()?;
            listed.push((method, Rpc { path: path.into_boxed_slice(), is_alias }));
        }
        self.plane.rpcs.store(Arc::new(Rpcs::new(listed, allow_other)));
        Ok(())
    }

    fn set_methods(&self, methods: &Bound<'_, PyMapping>, allow_any: bool) -> PyResult<()> {
        let mut listed = Vec::new();
        for item in methods.items()?.iter() {
            listed.push(item.extract::<(String, Vec<u32>)>()?);
        }
        self.plane.methods.store(Arc::new(Methods::new(listed, allow_any)));
        Ok(())
    }

    fn update(
        &self,
        generation: u64,
        models: &Bound<'_, PyMapping>,
        aliases: &Bound<'_, PyMapping>,
    ) -> PyResult<bool> {
        let mut routes = Vec::new();
        for item in models.items()?.iter() {
            let (id, copies): (String, Option<Vec<Py<CopyRoute>>>) = item.extract()?;
            routes.push((id, copies.map(|copies| self.copies(&copies))));
        }
        let mut names = Vec::new();
        for item in aliases.items()?.iter() {
            let (name, targets): (String, Option<Vec<(String, u32)>>) = item.extract()?;
            let targets = targets.map(|targets| {
                targets.into_iter().map(|(id, weight)| (id.into_boxed_str(), weight)).collect()
            });
            names.push((name, targets));
        }
        Ok(self.plane.table.update(
            generation,
            routes.iter_mut().map(|(id, copies)| (id.as_str(), copies.take())),
            names.iter_mut().map(|(name, targets)| (name.as_str(), targets.take())),
        ))
    }

    fn usage(&self) -> Vec<(String, u64, u64)> {
        let drained = self.plane.table.drain_usage();
        drained.into_iter().map(|usage| (usage.model, usage.requests, usage.last_used_ms)).collect()
    }

    fn in_flight(&self, model_id: &str) -> u32 {
        self.plane.table.model(model_id).map_or(0, |model| model.in_flight())
    }

    fn limit(&self, model_id: &str, concurrent: u32, queued: u32) {
        self.plane.table.limit(model_id, concurrent, queued);
    }

    fn set_ready(&self, ready: bool) -> PyResult<()> {
        match &*self.server.lock() {
            Some(server) => server.set_ready(ready).map_err(|error| os_error(&error)),
            None if ready => Err(PyRuntimeError::new_err("the dataplane has not been started")),
            None => Ok(()),
        }
    }

    fn metrics(&self) -> String {
        self.plane.metrics.text()
    }

    fn stop(&self, py: Python<'_>, grace_ms: u64) {
        let server = self.server.lock().take();
        if let Some(server) = server {
            py.detach(|| server.stop(Duration::from_millis(grace_ms)));
        }
    }
}

impl Dataplane {
    fn copies(&self, routes: &[Py<CopyRoute>]) -> Copies {
        let mut copies = Copies::default();
        let mut peers = Vec::new();
        for route in routes.iter().map(Py::get).filter(|route| route.loaded) {
            match &route.address {
                None => copies.local = true,
                Some(address) => peers.push(PeerCopy {
                    instance: route.instance_id.as_str().into(),
                    upstream: self.plane.peer(address),
                }),
            }
        }
        copies.peers = peers.into_boxed_slice();
        copies
    }
}

fn os_error(error: &std::io::Error) -> PyErr {
    let text = error.to_string();
    match number(error.kind()) {
        Some(number) => PyOSError::new_err((number, text)),
        None => PyOSError::new_err(text),
    }
}

/// The error number from which Python makes the subclass of `OSError`, for what happens to ports.
fn number(kind: std::io::ErrorKind) -> Option<i32> {
    match kind {
        std::io::ErrorKind::AddrInUse => Some(98),
        std::io::ErrorKind::AddrNotAvailable => Some(99),
        std::io::ErrorKind::PermissionDenied => Some(13),
        _ => None,
    }
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CopyRoute>()?;
    module.add_class::<Miss>()?;
    module.add_class::<Call>()?;
    module.add_class::<Gone>()?;
    module.add_class::<Reply>()?;
    module.add_class::<Sent>()?;
    module.add_class::<Channel>()?;
    module.add_class::<Dataplane>()
}

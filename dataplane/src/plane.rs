//! The state that all requests of one instance share.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::budget::Budget;
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::miss::Misses;
use crate::rpcs::{Methods, Rpcs};
use crate::table::Table;
use crate::upstream::{Care, Target, Upstream};

/// Bytes that the requests to the policy take together.
const MAX_BUFFERED_FOR_POLICY: usize = 64 << 20;

/// What does not change while the byte path runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this instance in routes.
    pub instance_id: String,
    /// The model server; without one this instance only routes.
    pub runtime: Option<Target>,
    /// Addresses for gRPC clients.
    pub grpc_listen: Vec<String>,
    /// Addresses for REST clients.
    pub rest_listen: Vec<String>,
    /// Address for peers.
    pub peer_listen: Option<String>,
    /// Addresses for gRPC clients, shared with other processes, open while this instance is ready.
    pub shared_listen_grpc: Vec<String>,
    /// As `shared_listen_grpc`, for REST clients.
    pub shared_listen_rest: Vec<String>,
    /// Largest message accepted from clients and servers, in bytes.
    pub max_message_bytes: usize,
    /// Largest header block accepted from clients, in bytes.
    pub max_header_bytes: u32,
    /// Threads that move bytes.
    pub worker_threads: usize,
    /// How many models one request may ask at the same time.
    pub multi_parallelism: usize,
    /// Connections of clients of gRPC are closed when they are this old; `None`: never.
    pub max_connection_age: Option<Duration>,
    /// How long the requests on such a connection may still take; `None`: as long as they like.
    pub connection_age_grace: Option<Duration>,
    /// Requests of clients served at a time; more are refused.
    pub max_in_flight: usize,
    /// Requests for one model at a time, on its copy here or waiting for one; more are refused, so that a model
    /// that hangs leaves room for others.
    pub max_in_flight_per_model: usize,
    /// Bytes that the bodies of requests take together; requests for which there is no room are refused. Two
    /// messages of the largest size have room in any case.
    pub max_buffered_bytes: usize,
}

/// The state of one instance.
#[derive(Debug)]
pub struct Plane {
    /// What does not change.
    pub config: Config,
    /// This instance's name, shared.
    pub instance: Arc<str>,
    /// Where the copies are.
    pub table: Table,
    /// What clients may call.
    pub rpcs: ArcSwap<Rpcs>,
    /// What the model server offers.
    pub methods: ArcSwap<Methods>,
    /// The model server.
    pub runtime: Option<Arc<Upstream>>,
    /// What the policy is to know and to answer.
    pub inbox: Arc<Inbox>,
    /// Where the policy's own calls run; set when the servers start.
    pub executor: OnceLock<Handle>,
    /// Requests that wait for the policy.
    pub misses: Arc<Misses>,
    /// Measurements.
    pub metrics: Metrics,
    /// The memory for the bodies of requests for models.
    pub buffered: Arc<Budget>,
    /// The memory for what the policy is asked: it can be asked when models have used up theirs.
    pub buffered_for_policy: Arc<Budget>,
    /// This instance takes requests of clients.
    pub ready: AtomicBool,
    peers: Mutex<HashMap<Box<str>, Weak<Upstream>>>,
}

impl Plane {
    /// The state of a new instance.
    ///
    /// # Errors
    /// If the process may open no more files.
    pub fn new(config: Config) -> io::Result<Arc<Self>> {
        let inbox = Inbox::new()?;
        let metrics = Metrics::default();
        let most = config.max_buffered_bytes.max(config.max_message_bytes.saturating_mul(2));
        let plane = Self {
            instance: config.instance_id.as_str().into(),
            table: Table::default(),
            rpcs: ArcSwap::default(),
            methods: ArcSwap::default(),
            runtime: config
                .runtime
                .clone()
                .map(|target| Upstream::new(target, Care::Runtime, config.worker_threads)),
            misses: Misses::new(Arc::clone(&inbox), config.max_in_flight_per_model),
            inbox,
            executor: OnceLock::new(),
            buffered: Budget::new(most, Arc::clone(&metrics.rejections)),
            buffered_for_policy: Budget::new(MAX_BUFFERED_FOR_POLICY, Arc::clone(&metrics.rejections)),
            metrics,
            ready: AtomicBool::new(false),
            peers: Mutex::default(),
            config,
        };
        Ok(Arc::new(plane))
    }

    /// The connection to the peer at `address`, the same for all models.
    #[must_use]
    pub fn peer(&self, address: &str) -> Arc<Upstream> {
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.get(address).and_then(Weak::upgrade) {
            return peer;
        }
        peers.retain(|_, peer| peer.strong_count() > 0);
        let peer = Upstream::new(Target::Tcp(address.to_owned()), Care::Peer, self.config.worker_threads);
        peers.insert(address.into(), Arc::downgrade(&peer));
        peer
    }
}

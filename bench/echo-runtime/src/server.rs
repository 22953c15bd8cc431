//! The gRPC services: `mmesh.ModelRuntime` and `inference.GRPCInferenceService`, both at every address.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, Request, Response, header};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, sleep, sleep_until};

use crate::grpc::{CONTENT_TYPE, Code, Status, frame, lock, read_message};
use crate::memory::{Begun, Memory, Outcome};
use crate::messages::{
    LoadModelRequest, MethodInfo, ModelIdRequest, ModelInferHead, ModelInferResponse, ModelMetadataResponse,
    ModelRequest, RuntimeStatusResponse, SizeResponse, Tensor, TrueResponse,
};
use crate::path::Script;

/// READY, of the states of `runtimeStatus`.
const READY: i32 = 1;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// A client may give up very many calls at once; that is no attack here.
const MAX_RESET_STREAMS: usize = 10_000;
/// The one element of each answer: an eight, little-endian.
const ANSWER: &[u8] = &8_i64.to_le_bytes();
/// An inference request whose id begins so fails as the rest of the id says: `<code>:message=<text>`.
const ERROR_ON_DEMAND: &str = "test:error:code=";

/// What the server says of itself, and how it behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes that models may use.
    pub capacity: u64,
    /// Loads at a time.
    pub load_slots: u32,
    /// How long a load may take, in milliseconds.
    pub load_timeout_ms: u32,
    /// Bytes of a model whose path does not say.
    pub default_size: u64,
    /// The methods of `runtimeStatus`, each with the path to the model id.
    pub methods: BTreeMap<String, Vec<u32>>,
    /// Other methods are allowed too.
    pub allow_any_method: bool,
    /// `predictModelSize` is implemented.
    pub predict_size: bool,
    /// `loadModel` answers with the size; else the mesh has to ask `modelSize`.
    pub size_on_load: bool,
    /// How long an inference takes.
    pub infer_delay: Duration,
}

/// The server's state.
#[derive(Debug)]
pub struct Echo {
    options: Options,
    /// The models.
    pub memory: Mutex<Memory>,
    load_log: Option<File>,
}

impl Echo {
    /// A server that holds nothing. The id of each model whose load begins is written to `load_log`.
    #[must_use]
    pub fn new(options: Options, load_log: Option<File>) -> Self {
        Self { memory: Mutex::new(Memory::new(options.capacity)), options, load_log }
    }

    fn status(&self) -> RuntimeStatusResponse {
        lock(&self.memory).count_status();
        let info = |path: &Vec<u32>| MethodInfo { id_injection_path: path.clone() };
        RuntimeStatusResponse {
            status: READY,
            capacity_in_bytes: self.options.capacity,
            max_loading_concurrency: self.options.load_slots,
            model_loading_timeout_ms: self.options.load_timeout_ms,
            default_model_size_in_bytes: self.options.default_size,
            runtime_version: concat!("echo ", env!("CARGO_PKG_VERSION")).to_owned(),
            method_infos: self
                .options
                .methods
                .iter()
                .map(|(name, path)| (name.clone(), info(path)))
                .collect(),
            allow_any_method: self.options.allow_any_method,
        }
    }

    fn predict(&self, request: &LoadModelRequest) -> Result<SizeResponse, Status> {
        if !self.options.predict_size {
            return Err(Status::new(Code::UNIMPLEMENTED, "sizes are not predicted"));
        }
        let script = Script::parse(&request.model_path, self.options.default_size)?;
        Ok(SizeResponse { size_in_bytes: script.size })
    }

    async fn load(
        &self,
        request: &LoadModelRequest,
        caller: &mut SendResponse<Bytes>,
    ) -> Result<SizeResponse, Status> {
        let id = &request.model_id;
        let script = Script::parse(&request.model_path, self.options.default_size)?;
        let (size, delay, failure) = (script.size, script.load, script.failure.clone());
        let begun = lock(&self.memory).begin_load(id, script)?;
        let answer = |size| SizeResponse { size_in_bytes: if self.options.size_on_load { size } else { 0 } };
        let number = match begun {
            Begun::Loaded(size) => return Ok(answer(size)),
            Begun::Load(number) => number,
        };
        if let Some(mut log) = self.load_log.as_ref() {
            writeln!(log, "{id}").map_err(|error| {
                Status::new(Code::INTERNAL, format!("the log of loads cannot be written: {error}"))
            })?;
        }
        if !delay.is_zero() {
            let cancelled = tokio::select! {
                () = sleep(delay) => false,
                _ = poll_fn(|context| caller.poll_reset(context)) => true,
            };
            if cancelled {
                lock(&self.memory).end_load(id, number, Outcome::Cancelled)?;
                return Err(Status::new(Code::CANCELLED, "the caller went away"));
            }
        }
        let outcome = if failure.is_some() { Outcome::Failed } else { Outcome::Loaded };
        lock(&self.memory).end_load(id, number, outcome)?;
        match failure {
            Some(text) => Err(Status::new(Code::FAILED_PRECONDITION, text)),
            None => Ok(answer(size)),
        }
    }

    /// Frees the memory after the model's delay, whether or not the caller waits for it.
    async fn unload(self: &Arc<Self>, request: ModelIdRequest) {
        let begun = lock(&self.memory).begin_unload(&request.model_id, Instant::now());
        let Some((number, end)) = begun else { return };
        if end > Instant::now() {
            let echo = Arc::clone(self);
            let freed = tokio::spawn(async move {
                sleep_until(end).await;
                lock(&echo.memory).free(&request.model_id, number);
            });
            let _ = freed.await;
        } else {
            lock(&self.memory).free(&request.model_id, number);
        }
    }

    async fn infer(&self, request: ModelInferHead) -> Result<ModelInferResponse, Status> {
        if let Some(failure) = request.id.strip_prefix(ERROR_ON_DEMAND) {
            let (code, text) = failure.split_once(":message=").unwrap_or((failure, ""));
            return Err(Status::new(Code::parse(code).unwrap_or(Code::UNKNOWN), text));
        }
        let number = lock(&self.memory).begin_infer(&request.model_name)?;
        if !self.options.infer_delay.is_zero() {
            sleep(self.options.infer_delay).await;
        }
        lock(&self.memory).end_infer(&request.model_name, number);
        let output = Tensor { name: "echo".into(), datatype: "INT64".into(), shape: vec![1] };
        Ok(ModelInferResponse {
            model_name: request.model_name,
            id: request.id,
            outputs: vec![output],
            raw_output_contents: vec![Bytes::from_static(ANSWER)],
        })
    }

    fn metadata(&self, request: ModelRequest) -> Result<ModelMetadataResponse, Status> {
        lock(&self.memory).size(&request.name)?;
        Ok(ModelMetadataResponse { name: request.name, platform: "echo".into() })
    }

    async fn call(
        self: &Arc<Self>,
        method: &str,
        body: Bytes,
        caller: &mut SendResponse<Bytes>,
    ) -> Result<Bytes, Status> {
        Ok(match method {
            "/inference.GRPCInferenceService/ModelInfer" => frame(&self.infer(decode(body)?).await?),
            "/inference.GRPCInferenceService/ModelMetadata" => frame(&self.metadata(decode(body)?)?),
            "/inference.GRPCInferenceService/ModelReady" => {
                self.metadata(decode(body)?)?;
                frame(&TrueResponse { value: true })
            }
            "/inference.GRPCInferenceService/ServerLive" | "/inference.GRPCInferenceService/ServerReady" => {
                frame(&TrueResponse { value: true })
            }
            "/mmesh.ModelRuntime/loadModel" => frame(&self.load(&decode(body)?, caller).await?),
            "/mmesh.ModelRuntime/unloadModel" => {
                self.unload(decode(body)?).await;
                frame(&())
            }
            "/mmesh.ModelRuntime/predictModelSize" => frame(&self.predict(&decode(body)?)?),
            "/mmesh.ModelRuntime/modelSize" => {
                let request: ModelIdRequest = decode(body)?;
                let size_in_bytes = lock(&self.memory).size(&request.model_id)?;
                frame(&SizeResponse { size_in_bytes })
            }
            "/mmesh.ModelRuntime/runtimeStatus" => frame(&self.status()),
            _ => return Err(Status::new(Code::UNIMPLEMENTED, format!("method {method} is not served"))),
        })
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<RecvStream>,
        mut caller: SendResponse<Bytes>,
    ) -> Result<(), h2::Error> {
        let (head, mut body) = request.into_parts();
        let answer = match read_message(&mut body).await {
            Ok(message) => self.call(head.uri.path(), message, &mut caller).await,
            Err(status) => Err(status),
        };
        let mut response = Response::new(());
        response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
        match answer {
            Ok(message) => {
                let mut stream = caller.send_response(response, false)?;
                stream.send_data(message, false)?;
                let mut trailers = HeaderMap::with_capacity(1);
                Status::new(Code::OK, "").write(&mut trailers);
                stream.send_trailers(trailers)
            }
            Err(status) => {
                status.write(response.headers_mut());
                caller.send_response(response, true).map(drop)
            }
        }
    }
}

fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message)
        .map_err(|error| Status::new(Code::INTERNAL, format!("the request cannot be decoded: {error}")))
}

/// Serves one connection until its client closes it.
async fn connection<Io: AsyncRead + AsyncWrite + Unpin>(echo: Arc<Echo>, io: Io) -> Result<(), h2::Error> {
    let mut connection = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .handshake(io)
        .await?;
    while let Some(accepted) = connection.accept().await {
        let (request, caller) = accepted?;
        // A call that cannot be answered is one whose caller went away.
        tokio::spawn(Arc::clone(&echo).answer(request, caller));
    }
    Ok(())
}

fn spawn<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static>(echo: &Arc<Echo>, io: Io) {
    let echo = Arc::clone(echo);
    tokio::spawn(async move {
        if let Err(error) = connection(echo, io).await
            && !error.is_io()
        {
            eprintln!("a connection ended: {error}");
        }
    });
}

/// Serves `address`, `host:port` or `unix:/path`, from a task of its own; returns the address as bound.
///
/// # Errors
/// What binding fails with.
pub async fn listen(echo: Arc<Echo>, address: &str) -> io::Result<String> {
    if let Some(path) = address.strip_prefix("unix:") {
        if std::fs::exists(path)? {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                spawn(&echo, io);
            }
        });
        return Ok(address.to_owned());
    }
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let _ = io.set_nodelay(true);
            spawn(&echo, io);
        }
    });
    Ok(bound)
}

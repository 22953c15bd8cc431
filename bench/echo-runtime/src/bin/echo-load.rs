//! A load generator for `ModelInfer`: closed loop or open loop, with a hot model beside if asked. It can also
//! register the models.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use echo_runtime::channel::Channel;
use echo_runtime::grpc::{Code, Status, lock};
use echo_runtime::program;
use echo_runtime::report::Report;
use echo_runtime::traffic::{Requests, Zipf, arrivals};
use lexopt::{Arg, Parser, ValueExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

const USAGE: &str = "\
Usage: echo-load --target HOST:PORT [OPTION ...]

Calls ModelInfer and prints one JSON object: requests, ok, errors (by code), error_texts, seconds, rps, p50_ms,
p99_ms, p99_9_ms, max_ms, percentiles_ms (of 1 to 100 %); with --hot also `hot`, the same for the hot model.
Latencies are those of answers without error; rps counts the answers that came before sending ended.

  --target HOST:PORT   may be repeated; requests take turns
  --connections N      to each target (1)
  --models N           how many models are asked (1)
  --model PATTERN      the model's name; {} stands for its number, from 0 (model-{})
  --zipf S             the exponent of Zipf's law; 0 asks all models evenly (0)
  --seed N             of the sequence of models and of arrivals (1)
  --in-flight N        closed loop: requests open at any time (8); 0 with --hot: only the hot model
  --rate R             open loop: R requests a second, as a Poisson process
  --seconds S          how long requests are sent (5)
  --requests N         sends so many requests, however long it takes
  --deadline-ms N      of each request (10000)
  --payload N          bytes of the input tensor (256)
  --hot NAME           a model that is asked in open loop beside the others
  --hot-rate R         requests a second for the hot model (500)
  --sequence FILE      gets the models asked, one a line, in the order of sending
  --register PATH      calls registerModel instead, once for each model, with this path
  --first N            with --register: the number of the first model (0)
";

struct Arguments {
    targets: Vec<String>,
    connections: usize,
    models: usize,
    model: String,
    zipf: f64,
    seed: u64,
    in_flight: usize,
    rate: Option<f64>,
    seconds: f64,
    requests: Option<u64>,
    deadline: Duration,
    payload: usize,
    hot: Option<String>,
    hot_rate: f64,
    sequence: Option<PathBuf>,
    register: Option<String>,
    first: usize,
}

fn parse(mut parser: Parser) -> Result<Option<Arguments>, lexopt::Error> {
    let mut arguments = Arguments {
        targets: Vec::new(),
        connections: 1,
        models: 1,
        model: "model-{}".to_owned(),
        zipf: 0.0,
        seed: 1,
        in_flight: 8,
        rate: None,
        seconds: 5.0,
        requests: None,
        deadline: Duration::from_secs(10),
        payload: 256,
        hot: None,
        hot_rate: 500.0,
        sequence: None,
        register: None,
        first: 0,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") => return Ok(None),
            Arg::Long("target") => arguments.targets.push(parser.value()?.string()?),
            Arg::Long("connections") => arguments.connections = parser.value()?.parse()?,
            Arg::Long("models") => arguments.models = parser.value()?.parse()?,
            Arg::Long("model") => arguments.model = parser.value()?.string()?,
            Arg::Long("zipf") => arguments.zipf = parser.value()?.parse()?,
            Arg::Long("seed") => arguments.seed = parser.value()?.parse()?,
            Arg::Long("in-flight") => arguments.in_flight = parser.value()?.parse()?,
            Arg::Long("rate") => arguments.rate = Some(parser.value()?.parse()?),
            Arg::Long("seconds") => arguments.seconds = parser.value()?.parse()?,
            Arg::Long("requests") => arguments.requests = Some(parser.value()?.parse()?),
            Arg::Long("deadline-ms") => {
                arguments.deadline = Duration::from_millis(parser.value()?.parse()?);
            }
            Arg::Long("payload") => arguments.payload = parser.value()?.parse()?,
            Arg::Long("hot") => arguments.hot = Some(parser.value()?.string()?),
            Arg::Long("hot-rate") => arguments.hot_rate = parser.value()?.parse()?,
            Arg::Long("sequence") => arguments.sequence = Some(PathBuf::from(parser.value()?)),
            Arg::Long("register") => arguments.register = Some(parser.value()?.string()?),
            Arg::Long("first") => arguments.first = parser.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    let only_hot = arguments.rate.is_none() && arguments.in_flight == 0;
    if arguments.register.is_some() {
        arguments.requests = Some(arguments.models as u64);
    }
    let complaint = if arguments.targets.is_empty() || arguments.connections == 0 {
        "there is no --target to connect to"
    } else if arguments.models == 0 {
        "--models is 0"
    } else if only_hot && (arguments.hot.is_none() || arguments.requests.is_some()) {
        "--in-flight 0 goes with --hot and --seconds"
    } else if [arguments.rate, Some(arguments.hot_rate), Some(arguments.seconds)]
        .iter()
        .flatten()
        .any(|n| *n <= 0.0)
    {
        "rates and seconds are above 0"
    } else {
        return Ok(Some(arguments));
    };
    Err(complaint.into())
}

/// How long, or how often, requests are sent.
struct Budget {
    end: Option<Instant>,
    left: AtomicU64,
    done: AtomicBool,
}

impl Budget {
    fn is_over(&self) -> bool {
        self.done.load(Relaxed) || self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// Takes one request from the budget; false where there is none left.
    fn take(&self) -> bool {
        !self.is_over() && self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// What all requests share.
struct Client {
    channels: Vec<Channel>,
    turn: AtomicUsize,
    deadline: Duration,
    requests: Mutex<Requests>,
    sequence: Option<Mutex<BufWriter<File>>>,
}

/// Requests of one kind, and their report.
struct Kind {
    client: Arc<Client>,
    model: Box<dyn Fn() -> String + Send + Sync>,
    report: Mutex<Report>,
}

impl Kind {
    /// Makes one request, which began at `begin`.
    async fn request(&self, begin: Instant) {
        let client = &self.client;
        let channel = &client.channels[client.turn.fetch_add(1, Relaxed) % client.channels.len()];
        let call = async {
            let sender = channel.ready().await?;
            // From here until the request is sent nothing waits: the order of models is that of sending.
            let model = (self.model)();
            if let Some(sequence) = &client.sequence {
                writeln!(lock(sequence), "{model}")
                    .map_err(|error| Status::new(Code::INTERNAL, format!("--sequence: {error}")))?;
            }
            let message = lock(&client.requests).frame(&model);
            channel.call(sender, message).await
        };
        let result = timeout_at((begin + client.deadline).into(), call).await;
        let late = |_| Err(Status::new(Code::DEADLINE_EXCEEDED, "no answer within the deadline"));
        lock(&self.report).add(begin, result.unwrap_or_else(late));
    }
}

/// Makes a request at each arrival, and returns when all are answered.
async fn open_loop(kind: Arc<Kind>, mut arrivals: UnboundedReceiver<Instant>) {
    let mut open = JoinSet::new();
    while let Some(begin) = arrivals.recv().await {
        let kind = Arc::clone(&kind);
        open.spawn(async move { kind.request(begin).await });
        while open.try_join_next().is_some() {}
    }
    open.join_all().await;
}

/// Keeps `in_flight` requests open, and returns when all are answered.
async fn closed_loop(kind: Arc<Kind>, budget: Arc<Budget>, in_flight: usize) {
    let mut open = JoinSet::new();
    for _ in 0..in_flight {
        let (kind, budget) = (Arc::clone(&kind), Arc::clone(&budget));
        open.spawn(async move {
            while budget.take() {
                kind.request(Instant::now()).await;
            }
        });
    }
    open.join_all().await;
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let sequence = arguments.sequence.map(File::create).transpose()?;
    let targets = arguments.targets.iter().flat_map(|target| vec![target; arguments.connections]);
    let registers = arguments.register.is_some();
    let requests = match arguments.register {
        Some(path) => Requests::register(path),
        None => Requests::infer(arguments.payload),
    };
    let channels: Result<_, Status> =
        targets.map(|target| Channel::new(target.clone(), requests.method(), arguments.deadline)).collect();
    let client = Arc::new(Client {
        channels: channels.map_err(|status| status.message)?,
        turn: AtomicUsize::new(0),
        deadline: arguments.deadline,
        requests: Mutex::new(requests),
        sequence: sequence.map(|file| Mutex::new(BufWriter::new(file))),
    });
    let kind = |model: Box<dyn Fn() -> String + Send + Sync>| {
        Arc::new(Kind { client: Arc::clone(&client), model, report: Mutex::default() })
    };
    let zipf = Mutex::new(Zipf::new(arguments.models, arguments.zipf, arguments.seed));
    let turn = AtomicUsize::new(arguments.first);
    let number = move || if registers { turn.fetch_add(1, Relaxed) } else { lock(&zipf).draw() };
    let pattern = arguments.model;
    let many = kind(Box::new(move || pattern.replace("{}", &number().to_string())));
    let hot = arguments.hot.map(|name| kind(Box::new(move || name.clone())));

    let begin = Instant::now();
    let end = arguments.requests.is_none().then(|| begin + Duration::from_secs_f64(arguments.seconds));
    let left = AtomicU64::new(arguments.requests.unwrap_or(u64::MAX));
    let budget = Arc::new(Budget { end, left, done: AtomicBool::new(false) });
    let hot_loop = hot.clone().map(|hot| {
        let budget = Arc::clone(&budget);
        let arrivals = arrivals(arguments.hot_rate, !arguments.seed, move || budget.is_over());
        tokio::spawn(open_loop(hot, arrivals))
    });
    if let Some(rate) = arguments.rate {
        let budget = Arc::clone(&budget);
        open_loop(Arc::clone(&many), arrivals(rate, arguments.seed, move || !budget.take())).await;
    } else {
        closed_loop(Arc::clone(&many), Arc::clone(&budget), arguments.in_flight).await;
    }
    let end = end.unwrap_or_else(Instant::now);
    if hot.is_some() {
        sleep_until(end.into()).await;
    }
    budget.done.store(true, Relaxed);
    if let Some(hot_loop) = hot_loop {
        hot_loop.await?;
    }
    let mut json = lock(&many.report).json(begin, end);
    if let Some(hot) = &hot {
        json["hot"] = lock(&hot.report).json(begin, end);
    }
    if let Some(sequence) = &client.sequence {
        lock(sequence).flush()?;
    }
    println!("{json}");
    Ok(())
}

fn main() -> ExitCode {
    program::main("echo-load", USAGE, parse, run)
}

//! A scriptable model server: the SPI and V2 inference, with strict accounts of memory.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::future::pending;
use std::num::ParseIntError;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use echo_runtime::program;
use echo_runtime::server::{self, Echo, Options};
use echo_runtime::stats;
use lexopt::{Arg, Parser, ValueExt};

const USAGE: &str = "\
Usage: echo-runtime [OPTION ...]

Serves mmesh.ModelRuntime and inference.GRPCInferenceService. Once it listens, it prints one line of JSON:
{\"listen\": [address ...], \"stats\": address}. A model behaves as its path says: SIZE_<bytes>_<load ms>_<unload ms>,
FAIL_<text>, or anything else for a model of the default size that loads at once.

  --listen ADDRESS       host:port or unix:/path; may be repeated (127.0.0.1:0)
  --stats HOST:PORT      HTTP: GET /stats, POST /reset, POST /purge (127.0.0.1:0)
  --capacity BYTES       what models may use together (109051904, 104 MiB)
  --default-size BYTES   of a model whose path does not say (1048576)
  --load-slots N         loads at a time that runtimeStatus offers (8)
  --load-timeout-ms N    that runtimeStatus states (30000)
  --method NAME=PATH     a method of runtimeStatus and the path to the model id, as in
                         inference.GRPCInferenceService/ModelInfer=1; may be repeated (ModelInfer, ModelMetadata)
  --allow-any-method     sets allowAnyMethod
  --no-predict           predictModelSize is UNIMPLEMENTED
  --size-after-load      loadModel answers size 0, so that modelSize is asked
  --infer-delay-ms N     how long an inference takes (0)
  --load-log FILE        gets the id of each model whose load begins, one a line
";

struct Arguments {
    listen: Vec<String>,
    stats: String,
    load_log: Option<PathBuf>,
    options: Options,
}

fn parse(mut parser: Parser) -> Result<Option<Arguments>, lexopt::Error> {
    let mut listen = Vec::new();
    let mut stats = "127.0.0.1:0".to_owned();
    let mut load_log = None;
    let mut options = Options {
        capacity: 104 << 20,
        load_slots: 8,
        load_timeout_ms: 30_000,
        default_size: 1 << 20,
        methods: BTreeMap::new(),
        allow_any_method: false,
        predict_size: true,
        size_on_load: true,
        infer_delay: Duration::ZERO,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") => return Ok(None),
            Arg::Long("listen") => listen.push(parser.value()?.string()?),
            Arg::Long("stats") => stats = parser.value()?.string()?,
            Arg::Long("capacity") => options.capacity = parser.value()?.parse()?,
            Arg::Long("default-size") => options.default_size = parser.value()?.parse()?,
            Arg::Long("load-slots") => options.load_slots = parser.value()?.parse()?,
            Arg::Long("load-timeout-ms") => options.load_timeout_ms = parser.value()?.parse()?,
            Arg::Long("method") => {
                let (name, path) = parser.value()?.parse_with(method)?;
                options.methods.insert(name, path);
            }
            Arg::Long("allow-any-method") => options.allow_any_method = true,
            Arg::Long("no-predict") => options.predict_size = false,
            Arg::Long("size-after-load") => options.size_on_load = false,
            Arg::Long("infer-delay-ms") => {
                options.infer_delay = Duration::from_millis(parser.value()?.parse()?);
            }
            Arg::Long("load-log") => load_log = Some(PathBuf::from(parser.value()?)),
            other => return Err(other.unexpected()),
        }
    }
    if options.methods.is_empty() {
        for name in ["ModelInfer", "ModelMetadata"] {
            options.methods.insert(format!("inference.GRPCInferenceService/{name}"), vec![1]);
        }
    }
    if listen.is_empty() {
        listen.push("127.0.0.1:0".to_owned());
    }
    Ok(Some(Arguments { listen, stats, load_log, options }))
}

fn method(text: &str) -> Result<(String, Vec<u32>), String> {
    let (name, path) = text.split_once('=').ok_or("not of the form NAME=PATH")?;
    let numbers = path.split(',').filter(|number| !number.is_empty());
    let path: Result<_, ParseIntError> = numbers.map(str::parse).collect();
    let path = path.map_err(|error| error.to_string())?;
    Ok((name.to_owned(), path))
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let log =
        arguments.load_log.map(|path| File::create(&path).map_err(|error| naming(&path.display(), &error)));
    let echo = Arc::new(Echo::new(arguments.options, log.transpose()?));
    let mut bound = Vec::new();
    for address in &arguments.listen {
        let listening = server::listen(Arc::clone(&echo), address).await;
        bound.push(listening.map_err(|error| naming(address, &error))?);
    }
    let stats = stats::listen(echo, &arguments.stats).await;
    let stats = stats.map_err(|error| naming(&arguments.stats, &error))?;
    println!("{}", serde_json::json!({ "listen": bound, "stats": stats }));
    pending().await
}

fn naming(what: &dyn std::fmt::Display, error: &std::io::Error) -> String {
    format!("{what}: {error}")
}

fn main() -> ExitCode {
    program::main("echo-runtime", USAGE, parse, run)
}

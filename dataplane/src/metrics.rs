//! What the byte path counts, in the Prometheus text format.
//!
//! Names and labels are the original's where it had them; its times were whole milliseconds, ours are
//! measured in microseconds and only printed in milliseconds.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use hashbrown::HashMap;
use parking_lot::RwLock;

use crate::status::Code;

/// Upper bounds in microseconds: the original's, and finer ones below.
const TIME_BOUNDS: &[u64] = &[
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    75_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
];
/// Upper bounds in bytes: 128 B to 2 MiB, as the original's.
const SIZE_BOUNDS: &[u64] = &[128, 512, 2_048, 8_192, 32_768, 131_072, 524_288, 2_097_152];
const MICROS_IN_MS: f64 = 1000.0;
/// A client can invent method names; beyond this number they share one label.
const MAX_METHODS: usize = 100;
const OTHER_METHODS: &str = "other";

/// Counts of observations below each bound, and their sum.
#[derive(Debug)]
struct Histogram {
    bounds: &'static [u64],
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [u64]) -> Self {
        let buckets = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0) }
    }

    fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    #[allow(clippy::cast_precision_loss)] // a sum beyond 2^53 microseconds is 285 years
    fn write(&self, text: &mut String, name: &str, labels: &str, divisor: f64) {
        let separator = if labels.is_empty() { "" } else { "," };
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let mut count = 0;
        for (bucket, bound) in self.buckets.iter().zip(self.bounds) {
            count += bucket.load(Ordering::Relaxed);
            let bound = *bound as f64 / divisor;
            let _ = writeln!(text, "{name}_bucket{{{labels}{separator}le=\"{bound}\"}} {count}");
        }
        count += self.buckets[self.bounds.len()].load(Ordering::Relaxed);
        let sum = self.sum.load(Ordering::Relaxed) as f64 / divisor;
        let _ = writeln!(text, "{name}_bucket{{{labels}{separator}le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_sum{braces} {sum}\n{name}_count{braces} {count}");
    }
}

#[derive(Debug)]
struct ApiMetrics {
    time: Histogram,
    request: Histogram,
    response: Histogram,
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self {
            time: Histogram::new(TIME_BOUNDS),
            request: Histogram::new(SIZE_BOUNDS),
            response: Histogram::new(SIZE_BOUNDS),
        }
    }
}

/// The measurements of one method, by status code.
#[derive(Debug, Default)]
pub struct MethodMetrics {
    api: [OnceLock<Box<ApiMetrics>>; Code::ALL.len()],
    invoke: [OnceLock<Box<Histogram>>; Code::ALL.len()],
}

/// All measurements of one instance.
#[derive(Debug)]
pub struct Metrics {
    methods: RwLock<HashMap<Box<str>, Arc<MethodMetrics>>>,
    miss_time: Histogram,
    in_flight: Arc<AtomicI64>,
    /// Requests sent to a peer.
    pub forwards: AtomicU64,
    /// Times a request had to take another copy, or to ask again.
    pub retries: AtomicU64,
    /// Requests refused because too many were under way.
    pub rejections: Arc<AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            methods: RwLock::default(),
            miss_time: Histogram::new(TIME_BOUNDS),
            in_flight: Arc::default(),
            forwards: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            rejections: Arc::default(),
        }
    }
}

impl Metrics {
    /// The measurements of `method`, `<package>.<Service>/<Method>`. Methods of one name share them, since only
    /// the name is in the label.
    #[must_use]
    pub fn method(&self, method: &str) -> Arc<MethodMetrics> {
        let name = method.rsplit('/').next().unwrap_or(method);
        if let Some(found) = self.methods.read().get(name) {
            return Arc::clone(found);
        }
        let mut methods = self.methods.write();
        let known = methods.contains_key(name) || methods.len() < MAX_METHODS;
        Arc::clone(methods.entry(if known { name } else { OTHER_METHODS }.into()).or_default())
    }

    /// The measurements of methods that are not offered, whose names clients may have made up.
    #[must_use]
    pub fn other_method(&self) -> Arc<MethodMetrics> {
        self.method(OTHER_METHODS)
    }

    /// Starts measuring a request of a client.
    #[must_use]
    pub fn api(&self, method: &Arc<MethodMetrics>) -> ApiTimer {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        ApiTimer {
            method: Arc::clone(method),
            in_flight: Arc::clone(&self.in_flight),
            started: Instant::now(),
            request_bytes: 0,
            end: None,
        }
    }

    /// Requests of clients that are being served.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.in_flight.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Records how long a request waited for a model to be loaded.
    pub fn missed(&self, since: Instant) {
        self.miss_time.observe(micros(since));
    }

    /// Everything in the Prometheus text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut methods: Vec<_> =
            self.methods.read().iter().map(|(name, method)| (name.clone(), Arc::clone(method))).collect();
        methods.sort_by(|one, other| one.0.cmp(&other.0));
        let mut text = String::new();
        let api = "modelmesh_api_request_milliseconds";
        head(
            &mut text,
            api,
            "histogram",
            "Time of a client's request, from its arrival to the end of the answer",
        );
        each(
            &methods,
            |method| &method.api,
            |api_metrics: &ApiMetrics, labels| {
                api_metrics.time.write(&mut text, api, labels, MICROS_IN_MS);
            },
        );
        let invoke = "modelmesh_invoke_model_milliseconds";
        head(&mut text, invoke, "histogram", "Time of a call of the local model server");
        each(
            &methods,
            |method| &method.invoke,
            |histogram: &Histogram, labels| {
                histogram.write(&mut text, invoke, labels, MICROS_IN_MS);
            },
        );
        let request = "modelmesh_request_size_bytes";
        head(&mut text, request, "histogram", "Size of a client's request message");
        each(
            &methods,
            |method| &method.api,
            |api_metrics: &ApiMetrics, labels| {
                api_metrics.request.write(&mut text, request, labels, 1.0);
            },
        );
        let response = "modelmesh_response_size_bytes";
        head(&mut text, response, "histogram", "Size of the response message");
        each(
            &methods,
            |method| &method.api,
            |api_metrics: &ApiMetrics, labels| {
                api_metrics.response.write(&mut text, response, labels, 1.0);
            },
        );
        self.write_unlabelled(&mut text);
        text
    }

    fn write_unlabelled(&self, text: &mut String) {
        let miss = "modelmesh_cache_miss_milliseconds";
        head(text, miss, "histogram", "Time a request waited until a copy of its model could serve");
        self.miss_time.write(text, miss, "", MICROS_IN_MS);
        let in_flight = "modelmesh_in_flight_requests";
        head(text, in_flight, "gauge", "Requests of clients that are being served");
        let _ = writeln!(text, "{in_flight} {}", self.in_flight.load(Ordering::Relaxed));
        let forwards = "modelmesh_forwarded_requests_total";
        head(text, forwards, "counter", "Requests sent to a peer that holds a copy");
        let _ = writeln!(text, "{forwards} {}", self.forwards.load(Ordering::Relaxed));
        let retries = "modelmesh_retried_requests_total";
        head(text, retries, "counter", "Times a copy failed and the request went on to another");
        let _ = writeln!(text, "{retries} {}", self.retries.load(Ordering::Relaxed));
        let rejections = "modelmesh_rejected_requests_total";
        head(text, rejections, "counter", "Requests refused because too many were under way");
        let _ = writeln!(text, "{rejections} {}", self.rejections.load(Ordering::Relaxed));
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Calls `write` for each status code that `family` has seen, with its labels.
fn each<T>(
    methods: &[(Box<str>, Arc<MethodMetrics>)],
    family: impl Fn(&MethodMetrics) -> &[OnceLock<Box<T>>],
    mut write: impl FnMut(&T, &str),
) {
    for (name, method) in methods {
        let short = name.replace(['\\', '"', '\n'], "_");
        for (code, seen) in Code::ALL.iter().zip(family(method)) {
            if let Some(metrics) = seen.get() {
                write(metrics, &format!("method=\"{short}\",code=\"{}\"", code.name()));
            }
        }
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Measures one request of a client; a request dropped before its end counts as cancelled.
#[derive(Debug)]
pub struct ApiTimer {
    method: Arc<MethodMetrics>,
    in_flight: Arc<AtomicI64>,
    started: Instant,
    request_bytes: u64,
    end: Option<(Code, u64)>,
}

impl ApiTimer {
    /// Notes the size of the request message.
    pub fn requested(&mut self, bytes: usize) {
        self.request_bytes = bytes as u64;
    }

    /// Ends the measurement.
    pub fn finish(mut self, code: Code, response_bytes: u64) {
        self.end = Some((code, response_bytes));
    }
}

impl Drop for ApiTimer {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let (code, response_bytes) = self.end.unwrap_or((Code::Cancelled, 0));
        let metrics = self.method.api[code as usize].get_or_init(Box::default);
        metrics.time.observe(micros(self.started));
        metrics.request.observe(self.request_bytes);
        metrics.response.observe(response_bytes);
    }
}

/// Measures one call of the local model server.
#[derive(Debug)]
pub struct InvokeTimer {
    method: Arc<MethodMetrics>,
    started: Instant,
    code: Code,
}

impl InvokeTimer {
    /// Starts measuring.
    #[must_use]
    pub fn start(method: &Arc<MethodMetrics>) -> Self {
        Self { method: Arc::clone(method), started: Instant::now(), code: Code::Cancelled }
    }

    /// Ends the measurement.
    pub fn finish(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for InvokeTimer {
    fn drop(&mut self) {
        let histogram =
            self.method.invoke[self.code as usize].get_or_init(|| Box::new(Histogram::new(TIME_BOUNDS)));
        histogram.observe(micros(self.started));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_appears_under_its_method_and_code() {
        let metrics = Metrics::default();
        let method = metrics.method("inference.GRPCInferenceService/ModelInfer");
        let mut timer = metrics.api(&method);
        timer.requested(100);
        assert!(metrics.text().contains("modelmesh_in_flight_requests 1\n"));
        timer.finish(Code::Ok, 600);
        let text = metrics.text();
        let labels = "method=\"ModelInfer\",code=\"OK\"";
        assert!(
            text.contains(&format!("modelmesh_api_request_milliseconds_count{{{labels}}} 1\n")),
            "{text}"
        );
        assert!(text.contains(&format!("modelmesh_request_size_bytes_bucket{{{labels},le=\"128\"}} 1\n")));
        assert!(text.contains(&format!("modelmesh_response_size_bytes_bucket{{{labels},le=\"512\"}} 0\n")));
        assert!(text.contains(&format!("modelmesh_response_size_bytes_sum{{{labels}}} 600\n")));
        assert!(text.contains("modelmesh_in_flight_requests 0\n"));
    }

    #[test]
    fn a_dropped_request_counts_as_cancelled() {
        let metrics = Metrics::default();
        drop(metrics.api(&metrics.method("a.B/C")));
        assert!(
            metrics
                .text()
                .contains("modelmesh_api_request_milliseconds_count{method=\"C\",code=\"CANCELLED\"} 1")
        );
    }

    #[test]
    fn invented_methods_do_not_grow_the_metrics_for_ever() {
        let metrics = Metrics::default();
        for number in 0..10_000 {
            let _ = metrics.method(&format!("a.B/{number}"));
        }
        assert!(metrics.methods.read().len() <= MAX_METHODS + 1);
    }
}

//! What a run saw.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::grpc::Status;

/// Latencies and errors of one kind of requests.
#[derive(Debug, Default)]
pub struct Report {
    /// Those that were answered, with when and how long it took.
    answers: Vec<(Instant, Duration)>,
    /// By code: how many, and the text of the first.
    errors: BTreeMap<&'static str, (u64, String)>,
}

impl Report {
    /// Records a request that began at `begin` and has ended now.
    pub fn add(&mut self, begin: Instant, result: Result<(), Status>) {
        match result {
            Ok(()) => {
                let now = Instant::now();
                self.answers.push((now, now - begin));
            }
            Err(status) => {
                self.errors.entry(status.code.name()).or_insert((0, status.message)).0 += 1;
            }
        }
    }

    /// The report as JSON. Rates count the answers between `begin` and `end`; latencies, in milliseconds, are those
    /// of all answers, and null where there are none.
    #[must_use]
    pub fn json(&self, begin: Instant, end: Instant) -> Value {
        let mut latencies: Vec<Duration> = self.answers.iter().map(|(_, latency)| *latency).collect();
        latencies.sort_unstable();
        let in_time = self.answers.iter().filter(|(at, _)| *at <= end).count();
        let seconds = (end - begin).as_secs_f64();
        let failed: u64 = self.errors.values().map(|(count, _)| count).sum();
        let counts: BTreeMap<_, _> = self.errors.iter().map(|(code, (count, _))| (code, count)).collect();
        let texts: BTreeMap<_, _> = self.errors.iter().map(|(code, (_, text))| (code, text)).collect();
        #[allow(clippy::cast_precision_loss)] // no run sends 2^52 requests
        let rps = in_time as f64 / seconds;
        let milliseconds =
            |per_mille| quantile(&latencies, per_mille).map(|time| time.as_secs_f64() * 1000.0);
        json!({
            "requests": latencies.len() as u64 + failed,
            "ok": latencies.len(),
            "errors": counts,
            "error_texts": texts,
            "seconds": seconds,
            "rps": rps,
            "p50_ms": milliseconds(500),
            "p99_ms": milliseconds(990),
            "p99_9_ms": milliseconds(999),
            "max_ms": milliseconds(1000),
            "percentiles_ms": (1..=100).map(|percent| milliseconds(10 * percent)).collect::<Vec<_>>(),
        })
    }
}

/// The smallest latency that `per_mille` thousandths of the sorted ones do not pass (nearest rank).
fn quantile(sorted: &[Duration], per_mille: usize) -> Option<Duration> {
    sorted.get((sorted.len() * per_mille).div_ceil(1000).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use crate::grpc::Code;

    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let sorted: Vec<_> = (1..=1000).map(Duration::from_millis).collect();
        for (per_mille, expected) in [(500, 500), (990, 990), (999, 999), (1000, 1000)] {
            assert_eq!(quantile(&sorted, per_mille), Some(Duration::from_millis(expected)));
        }
        assert_eq!(quantile(&sorted[..1], 500), Some(Duration::from_millis(1)));
        assert_eq!(quantile(&[], 500), None);
    }

    #[test]
    fn errors_are_counted_by_code_and_late_answers_add_nothing_to_the_rate() {
        let mut report = Report::default();
        let begin = Instant::now();
        let end = begin + Duration::from_secs(2);
        report.add(begin, Ok(()));
        report.answers.push((end + Duration::from_secs(1), Duration::from_secs(2)));
        report.add(begin, Err(Status::new(Code::NOT_FOUND, "first")));
        report.add(begin, Err(Status::new(Code::NOT_FOUND, "second")));
        let json = report.json(begin, end);
        assert_eq!(json["requests"], 4);
        assert_eq!(json["ok"], 2);
        assert_eq!(json["errors"], json!({"NOT_FOUND": 2}));
        assert_eq!(json["error_texts"], json!({"NOT_FOUND": "first"}));
        assert_eq!(json["rps"], 0.5);
    }
}

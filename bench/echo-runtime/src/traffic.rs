//! Which model is asked next, and when.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::grpc::frame;
use crate::messages::{ModelInferRequest, ModelInfo, RegisterModelRequest, Tensor};

/// Draws models by Zipf's law: the one of rank `k` with a weight of `1 / k^exponent`.
///
/// Which model has which rank is drawn too, so that the order in which models were registered tells nothing.
#[derive(Debug)]
pub struct Zipf {
    random: Rng,
    /// The sum of the weights up to each rank.
    cumulative: Vec<f64>,
    /// The model of each rank.
    models: Vec<usize>,
}

impl Zipf {
    /// Draws among `count` models; an exponent of 0 draws them evenly.
    #[must_use]
    pub fn new(count: usize, exponent: f64, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut models: Vec<usize> = (0..count).collect();
        random.shuffle(&mut models);
        let mut sum = 0.0;
        #[allow(clippy::cast_precision_loss)] // no rank comes near 2^52
        let weights = (1..=count).map(|rank| (rank as f64).powf(-exponent));
        let cumulative = weights.map(|weight| {
            sum += weight;
            sum
        });
        Self { cumulative: cumulative.collect(), random, models }
    }

    /// The model that is asked next.
    pub fn draw(&mut self) -> usize {
        let total = self.cumulative.last().copied().unwrap_or_default();
        let point = self.random.f64() * total;
        let rank = self.cumulative.partition_point(|sum| *sum <= point);
        self.models[rank.min(self.models.len() - 1)]
    }
}

/// Makes requests that differ in the model only.
#[derive(Debug)]
pub enum Requests {
    /// Of `ModelInfer`.
    Infer(ModelInferRequest),
    /// Of `registerModel`.
    Register(RegisterModelRequest),
}

impl Requests {
    /// Inference with one tensor of `payload` bytes.
    #[must_use]
    pub fn infer(payload: usize) -> Self {
        let shape = vec![1, i64::try_from(payload).unwrap_or(i64::MAX)];
        Self::Infer(ModelInferRequest {
            model_name: String::new(),
            inputs: vec![Tensor { name: "predict".into(), datatype: "UINT8".into(), shape }],
            raw_input_contents: vec![Bytes::from(vec![0; payload])],
        })
    }

    /// Registration of models of type `echo` at `path`.
    #[must_use]
    pub fn register(path: String) -> Self {
        let model_info = Some(ModelInfo { model_type: "echo".into(), path });
        Self::Register(RegisterModelRequest { model_id: String::new(), model_info })
    }

    /// The method that they are for.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Self::Infer(_) => "/inference.GRPCInferenceService/ModelInfer",
            Self::Register(_) => "/mmesh.ModelMesh/registerModel",
        }
    }

    /// A request for `model`, framed.
    pub fn frame(&mut self, model: &str) -> Bytes {
        match self {
            Self::Infer(request) => {
                model.clone_into(&mut request.model_name);
                frame(request)
            }
            Self::Register(request) => {
                model.clone_into(&mut request.model_id);
                frame(request)
            }
        }
    }
}

/// Arrivals of a Poisson process of `rate` a second, until `stop` says so.
///
/// A thread of its own sleeps between them: the timer of the event loop ticks in milliseconds, and its error
/// would be as long as the latencies that are measured. Arrivals do not wait for answers (open loop).
pub fn arrivals(
    rate: f64,
    seed: u64,
    stop: impl Fn() -> bool + Send + 'static,
) -> UnboundedReceiver<Instant> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        let mut random = Rng::with_seed(seed);
        let mut next = Instant::now();
        loop {
            next += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            if stop() || sender.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(count: usize, exponent: f64, seed: u64, draws: u32) -> Vec<u32> {
        let mut zipf = Zipf::new(count, exponent, seed);
        let mut counts = vec![0; count];
        (0..draws).for_each(|_| counts[zipf.draw()] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts
    }

    #[test]
    fn ranks_are_drawn_as_their_weights_say() {
        let counts = drawn(100, 1.0, 7, 200_000);
        let harmonic: f64 = (1..=100).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1_u32, 2, 10] {
            let expected = 200_000.0 / (f64::from(rank) * harmonic);
            let seen = f64::from(counts[rank as usize - 1]);
            assert!((seen / expected - 1.0).abs() < 0.1, "rank {rank}: {seen}, not {expected}");
        }
    }

    #[test]
    fn without_an_exponent_models_are_drawn_evenly() {
        let counts = drawn(10, 0.0, 7, 100_000);
        assert!(counts[0] < 10_500 && counts[9] > 9_500, "{counts:?}");
    }

    #[test]
    fn a_seed_decides_the_sequence() {
        let sequence = |seed| {
            let mut zipf = Zipf::new(1000, 1.0, seed);
            (0..50).map(|_| zipf.draw()).collect::<Vec<_>>()
        };
        assert_eq!(sequence(3), sequence(3));
        assert_ne!(sequence(3), sequence(4));
    }

    #[tokio::test]
    async fn arrivals_come_at_their_rate() {
        let begin = Instant::now();
        let mut arrivals = arrivals(2000.0, 1, || false);
        for _ in 0..400 {
            arrivals.recv().await.unwrap();
        }
        // 400 arrivals take 200 ms, with a standard deviation of 10 ms; no machine makes them come sooner.
        assert!(begin.elapsed() > Duration::from_millis(140), "{:?}", begin.elapsed());
    }
}

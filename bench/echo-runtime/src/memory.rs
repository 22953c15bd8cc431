//! What models are held, and the accounting of their memory.
//!
//! A model's bytes count from the begin of its load to the end of its unload. A load that would pass the
//! capacity is refused and counted, so `over_capacity` is zero only for a mesh that never overcommits. A load
//! that is cancelled keeps its bytes until the unload that the SPI promises; one that fails frees them.

use std::collections::HashMap;

use serde::Serialize;
use tokio::time::Instant;

use crate::grpc::{Code, Status};
use crate::path::Script;

/// Counts since the start, or since the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Loads begun: neither refused nor of a model that is held.
    pub loads: u64,
    /// Loads that failed as the path said.
    pub failed_loads: u64,
    /// Loads whose caller went away.
    pub cancelled_loads: u64,
    /// Loads refused, as they would have passed the capacity.
    pub over_capacity: u64,
    /// Loads of a model that was held, in whatever state.
    pub conflicts: u64,
    /// Unloads begun of models that were held.
    pub unloads: u64,
    /// Unloads begun while requests for the model were being answered.
    pub unloaded_in_use: u64,
    /// Inference requests answered.
    pub infers: u64,
    /// Inference requests for a model that was not loaded.
    pub not_found: u64,
    /// Calls of `runtimeStatus`.
    pub statuses: u64,
    /// Models lost by a purge.
    pub purged: u64,
    /// The most bytes held at a time.
    pub peak_bytes: u64,
    /// The most bytes that would have been held at a time, had no load been refused for the capacity.
    pub peak_asked_bytes: u64,
    /// The most loads in progress at a time.
    pub peak_loading: u64,
}

/// The counters, and what is held now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// The counters.
    #[serde(flatten)]
    pub counters: Counters,
    /// Bytes that models may use.
    pub capacity_bytes: u64,
    /// Bytes held now.
    pub bytes: u64,
    /// Models that can serve now.
    pub loaded: u64,
    /// Loads in progress.
    pub loading: u64,
    /// Cancelled loads that no unload has followed yet.
    pub cancelled: u64,
    /// Unloads in progress.
    pub unloading: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Loading,
    Cancelled,
    Loaded,
    Unloading(Instant),
}

#[derive(Debug)]
struct Held {
    /// Tells this holding of the model from earlier ones.
    number: u64,
    script: Script,
    state: State,
    in_use: u32,
}

/// What a load may go on with.
#[derive(Debug, PartialEq, Eq)]
pub enum Begun {
    /// The load with this number, to be ended by [`Memory::end_load`].
    Load(u64),
    /// Nothing: the model is loaded already, with so many bytes.
    Loaded(u64),
}

/// How a load ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The model can serve.
    Loaded,
    /// The model is not held any more.
    Failed,
    /// The caller went away; the model is held until it is unloaded.
    Cancelled,
}

/// The models and their memory.
#[derive(Debug)]
pub struct Memory {
    capacity: u64,
    used: u64,
    loading: u64,
    last_number: u64,
    held: HashMap<String, Held>,
    counters: Counters,
}

impl Memory {
    /// Holds nothing, and at most `capacity` bytes.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        let held = HashMap::new();
        Self { capacity, used: 0, loading: 0, last_number: 0, held, counters: Counters::default() }
    }

    /// Takes the memory of a model that is to be loaded.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where it would pass the capacity, `FAILED_PRECONDITION` where the model is held in
    /// another state than loaded.
    pub fn begin_load(&mut self, id: &str, script: Script) -> Result<Begun, Status> {
        if let Some(held) = self.held.get(id) {
            self.counters.conflicts += 1;
            let doing = match held.state {
                State::Loaded => return Ok(Begun::Loaded(held.script.size)),
                State::Loading => "is being loaded",
                State::Cancelled => "has not been unloaded since its load was cancelled",
                State::Unloading(_) => "is being unloaded",
            };
            return Err(Status::new(Code::FAILED_PRECONDITION, format!("Model {id} {doing}")));
        }
        let asked = self.used.saturating_add(script.size);
        self.counters.peak_asked_bytes = self.counters.peak_asked_bytes.max(asked);
        if asked > self.capacity {
            self.counters.over_capacity += 1;
            let (size, used, capacity) = (script.size, self.used, self.capacity);
            return Err(Status::new(
                Code::RESOURCE_EXHAUSTED,
                format!("Model {id} needs {size} bytes, and {used} of {capacity} are in use"),
            ));
        }
        self.used = asked;
        self.loading += 1;
        self.last_number += 1;
        self.counters.loads += 1;
        self.count_peaks();
        let held = Held { number: self.last_number, script, state: State::Loading, in_use: 0 };
        self.held.insert(id.to_owned(), held);
        Ok(Begun::Load(self.last_number))
    }

    /// Ends a load.
    ///
    /// # Errors
    /// `ABORTED` where the model was unloaded or purged before its load ended.
    pub fn end_load(&mut self, id: &str, number: u64, outcome: Outcome) -> Result<(), Status> {
        match outcome {
            Outcome::Loaded => {}
            Outcome::Failed => self.counters.failed_loads += 1,
            Outcome::Cancelled => self.counters.cancelled_loads += 1,
        }
        let held = self.held.get_mut(id).filter(|held| held.number == number && held.state == State::Loading);
        let Some(held) = held else {
            return Err(Status::new(Code::ABORTED, format!("Model {id} was unloaded before it was loaded")));
        };
        self.loading -= 1;
        match outcome {
            Outcome::Loaded => held.state = State::Loaded,
            Outcome::Failed => self.free(id, number),
            Outcome::Cancelled => held.state = State::Cancelled,
        }
        Ok(())
    }

    /// Ends the service of a model, whatever its state; `None` where it is not held, else its number and when
    /// its memory is to be freed.
    pub fn begin_unload(&mut self, id: &str, now: Instant) -> Option<(u64, Instant)> {
        let held = self.held.get_mut(id)?;
        if let State::Unloading(end) = held.state {
            return Some((held.number, end));
        }
        self.counters.unloads += 1;
        self.counters.unloaded_in_use += u64::from(held.in_use > 0);
        self.loading -= u64::from(held.state == State::Loading);
        let end = now + held.script.unload;
        held.state = State::Unloading(end);
        Some((held.number, end))
    }

    /// Gives the memory of a model back; does nothing where that was done already.
    pub fn free(&mut self, id: &str, number: u64) {
        if self.held.get(id).is_some_and(|held| held.number == number)
            && let Some(held) = self.held.remove(id)
        {
            self.used -= held.script.size;
        }
    }

    /// Counts a request that is being answered, to be ended by [`Memory::end_infer`].
    ///
    /// # Errors
    /// `NOT_FOUND` where the model is not loaded.
    pub fn begin_infer(&mut self, id: &str) -> Result<u64, Status> {
        match self.held.get_mut(id) {
            Some(held) if held.state == State::Loaded => {
                held.in_use += 1;
                Ok(held.number)
            }
            _ => {
                self.counters.not_found += 1;
                Err(not_found(id))
            }
        }
    }

    /// Counts a request as answered.
    pub fn end_infer(&mut self, id: &str, number: u64) {
        self.counters.infers += 1;
        if let Some(held) = self.held.get_mut(id).filter(|held| held.number == number) {
            held.in_use -= 1;
        }
    }

    /// The bytes of a loaded model.
    ///
    /// # Errors
    /// `NOT_FOUND` where it is not loaded.
    pub fn size(&self, id: &str) -> Result<u64, Status> {
        let held = self.held.get(id).filter(|held| held.state == State::Loaded);
        held.map(|held| held.script.size).ok_or_else(|| not_found(id))
    }

    /// Answers `runtimeStatus`, which promises that nothing is loaded.
    pub fn count_status(&mut self) {
        self.counters.statuses += 1;
        self.purge();
    }

    /// Loses every model at once, as a server does that dies and comes back.
    pub fn purge(&mut self) {
        self.counters.purged += u64::try_from(self.held.len()).unwrap_or(u64::MAX);
        self.held.clear();
        (self.used, self.loading) = (0, 0);
    }

    /// The counters, and what is held now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let count = |of: fn(&State) -> bool| {
            u64::try_from(self.held.values().filter(|held| of(&held.state)).count()).unwrap_or(u64::MAX)
        };
        Stats {
            counters: self.counters.clone(),
            capacity_bytes: self.capacity,
            bytes: self.used,
            loaded: count(|state| *state == State::Loaded),
            loading: self.loading,
            cancelled: count(|state| *state == State::Cancelled),
            unloading: count(|state| matches!(state, State::Unloading(_))),
        }
    }

    /// Counts from zero; the peaks begin with what is held now.
    pub fn reset(&mut self) {
        self.counters = Counters::default();
        self.count_peaks();
    }

    fn count_peaks(&mut self) {
        let counters = &mut self.counters;
        counters.peak_bytes = counters.peak_bytes.max(self.used);
        counters.peak_asked_bytes = counters.peak_asked_bytes.max(self.used);
        counters.peak_loading = counters.peak_loading.max(self.loading);
    }
}

fn not_found(id: &str) -> Status {
    Status::new(Code::NOT_FOUND, format!("Model {id} not found"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn script(size: u64) -> Script {
        Script { size, load: Duration::ZERO, unload: Duration::from_millis(9), failure: None }
    }

    fn loaded(memory: &mut Memory, id: &str, size: u64) {
        let Ok(Begun::Load(number)) = memory.begin_load(id, script(size)) else { panic!("not begun") };
        memory.end_load(id, number, Outcome::Loaded).unwrap();
    }

    #[test]
    fn memory_counts_from_the_begin_of_a_load_to_the_end_of_its_unload() {
        let mut memory = Memory::new(10);
        let Ok(Begun::Load(number)) = memory.begin_load("a", script(6)) else { panic!("not begun") };
        assert_eq!(memory.stats().bytes, 6);
        memory.end_load("a", number, Outcome::Loaded).unwrap();
        let now = Instant::now();
        assert_eq!(memory.begin_unload("a", now), Some((number, now + Duration::from_millis(9))));
        assert_eq!(memory.stats().bytes, 6);
        assert_eq!(memory.begin_load("b", script(6)).unwrap_err().code, Code::RESOURCE_EXHAUSTED);
        memory.free("a", number);
        memory.free("a", number);
        assert_eq!(memory.stats().bytes, 0);
        loaded(&mut memory, "b", 6);
        let stats = memory.stats();
        assert_eq!((stats.counters.loads, stats.counters.unloads, stats.counters.over_capacity), (2, 1, 1));
        assert_eq!((stats.counters.peak_bytes, stats.counters.peak_asked_bytes), (6, 12));
    }

    #[test]
    fn a_model_serves_only_while_it_is_loaded() {
        let mut memory = Memory::new(10);
        assert_eq!(memory.begin_infer("a"), Err(Status::new(Code::NOT_FOUND, "Model a not found")));
        let Ok(Begun::Load(number)) = memory.begin_load("a", script(1)) else { panic!("not begun") };
        assert!(memory.begin_infer("a").is_err());
        memory.end_load("a", number, Outcome::Loaded).unwrap();
        assert_eq!(memory.begin_infer("a"), Ok(number));
        memory.begin_unload("a", Instant::now());
        assert!(memory.begin_infer("a").is_err());
        memory.end_infer("a", number);
        let counters = memory.stats().counters;
        assert_eq!((counters.infers, counters.not_found, counters.unloaded_in_use), (1, 3, 1));
    }

    #[test]
    fn a_cancelled_load_holds_its_memory_until_it_is_unloaded_and_a_failed_one_does_not() {
        let mut memory = Memory::new(10);
        let Ok(Begun::Load(a)) = memory.begin_load("a", script(3)) else { panic!("not begun") };
        let Ok(Begun::Load(b)) = memory.begin_load("b", script(4)) else { panic!("not begun") };
        memory.end_load("a", a, Outcome::Cancelled).unwrap();
        memory.end_load("b", b, Outcome::Failed).unwrap();
        assert_eq!((memory.stats().bytes, memory.stats().cancelled, memory.stats().loading), (3, 1, 0));
        assert_eq!(memory.begin_load("a", script(3)).unwrap_err().code, Code::FAILED_PRECONDITION);
        memory.begin_unload("a", Instant::now());
        memory.free("a", a);
        assert_eq!(memory.stats().bytes, 0);
        assert_eq!(memory.stats().counters.conflicts, 1);
    }

    #[test]
    fn an_unload_overtakes_the_load_of_its_model() {
        let mut memory = Memory::new(10);
        let Ok(Begun::Load(number)) = memory.begin_load("a", script(3)) else { panic!("not begun") };
        memory.begin_unload("a", Instant::now());
        memory.free("a", number);
        loaded(&mut memory, "a", 5);
        assert_eq!(memory.end_load("a", number, Outcome::Cancelled).unwrap_err().code, Code::ABORTED);
        assert_eq!((memory.stats().bytes, memory.stats().loaded, memory.stats().loading), (5, 1, 0));
    }

    #[test]
    fn a_purge_loses_everything_and_a_reset_keeps_what_is_held() {
        let mut memory = Memory::new(10);
        loaded(&mut memory, "a", 3);
        memory.reset();
        let expected = Counters { peak_bytes: 3, peak_asked_bytes: 3, ..Counters::default() };
        assert_eq!(memory.stats().counters, expected);
        memory.count_status();
        assert_eq!((memory.stats().bytes, memory.stats().loaded), (0, 0));
        assert_eq!((memory.stats().counters.purged, memory.stats().counters.statuses), (1, 1));
    }
}

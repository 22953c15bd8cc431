//! The routing table: where each model's copies are, and how often the local ones are used.
//!
//! Models and aliases lie in sharded maps; what is known of one model is immutable, and an update swaps it. A lookup takes a shard's read lock for one hash probe and nothing longer. Names lie
//! with what they name and not in the maps too: most of the time of a lookup is memory that has to be fetched.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use http::HeaderValue;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::status::{Code, Status};
use crate::upstream::Upstream;

const SHARDS: usize = 64;

/// A copy of a model on another instance.
#[derive(Clone, Debug)]
pub struct PeerCopy {
    /// The instance that holds it.
    pub instance: Arc<str>,
    /// The connection to that instance.
    pub upstream: Arc<Upstream>,
}

/// The copies of a model that can serve now.
#[derive(Clone, Debug, Default)]
pub struct Copies {
    /// This instance's model server has the model loaded.
    pub local: bool,
    /// Loaded copies elsewhere.
    pub peers: Box<[PeerCopy]>,
}

/// What a request takes next.
#[derive(Debug)]
pub enum Pick {
    /// The local copy, counted as in use for as long as the guard lives.
    Local(LocalUse),
    /// A copy on a peer.
    Peer(PeerCopy),
}

/// One model: its copies, and the counters of its local copy.
#[derive(Debug)]
pub struct Model {
    /// The concrete model id.
    pub id: Box<str>,
    /// `mm-model-id`, where the id is visible ASCII.
    pub id_header: Option<HeaderValue>,
    /// `mm-model-id-bin`.
    pub id_header_bin: HeaderValue,
    local: AtomicBool,
    peers: ArcSwap<Box<[PeerCopy]>>,
    in_flight: AtomicU32,
    requests: AtomicU64,
    last_used: AtomicU64,
    limit: ArcSwapOption<Limit>,
}

/// How many requests the model server takes for one model at a time.
#[derive(Debug)]
pub struct Limit {
    turns: Arc<Semaphore>,
    /// Requests on the copy, those that wait for their turn included.
    most: u32,
}

impl Model {
    fn new(id: &str, copies: Copies) -> Self {
        let visible = id.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
        Self {
            id: id.into(),
            id_header: visible.then(|| HeaderValue::from_str(id).ok()).flatten(),
            id_header_bin: HeaderValue::from_str(&STANDARD_NO_PAD.encode(id))
                .unwrap_or(HeaderValue::from_static("")),
            local: AtomicBool::new(copies.local),
            peers: ArcSwap::from_pointee(copies.peers),
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            last_used: AtomicU64::new(0),
            limit: ArcSwapOption::empty(),
        }
    }

    /// What comes is there before what goes has gone: in between, the model has one copy more and not none.
    fn set_copies(&self, copies: Copies) {
        if copies.local {
            self.local.store(true, Ordering::SeqCst);
        }
        self.peers.store(Arc::new(copies.peers));
        if !copies.local {
            self.local.store(false, Ordering::SeqCst);
        }
    }

    fn is_local(&self) -> bool {
        self.local.load(Ordering::SeqCst)
    }

    fn set_limit(&self, limit: Option<(u32, u32)>) {
        self.limit.store(limit.map(|(concurrent, queued)| {
            let turns = Arc::new(Semaphore::new(concurrent as usize));
            Arc::new(Limit { turns, most: concurrent.saturating_add(queued) })
        }));
    }

    /// Waits until the model server has a turn for this model, in the order of coming; `None` where it has any
    /// number of them. `used` is the use of the local copy that asks.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` if more than `most` requests are on the copy, or too many wait.
    pub async fn turn(&self, most: usize) -> Result<Option<OwnedSemaphorePermit>, Status> {
        let limit = self.limit.load_full();
        let most = limit.as_ref().map_or(most, |limit| most.min(limit.most as usize));
        if self.in_flight() as usize > most {
            let text = format!("Model queue overload: {most} requests for model {} are under way", self.id);
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        match limit {
            // The semaphore is never closed.
            Some(limit) => Ok(Arc::clone(&limit.turns).acquire_owned().await.ok()),
            None => Ok(None),
        }
    }

    /// True if any copy can serve.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_local() || !self.peers.load().is_empty()
    }

    /// Requests now on the local copy.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    fn local(self: &Arc<Self>) -> Option<LocalUse> {
        if !self.is_local() {
            return None;
        }
        // Counting comes before the second look: who removes the copy and then sees no request in flight (the
        // table's update) can rely on none coming later.
        let used = LocalUse::begin(Arc::clone(self));
        self.is_local().then_some(used)
    }
}

/// A request on the local copy of a model.
#[derive(Debug)]
pub struct LocalUse(Arc<Model>);

impl LocalUse {
    fn begin(model: Arc<Model>) -> Self {
        model.in_flight.fetch_add(1, Ordering::SeqCst);
        Self(model)
    }
}

impl Drop for LocalUse {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A name that stands for one of several models, each taken in proportion to its weight.
#[derive(Debug)]
pub struct Alias {
    name: Box<str>,
    targets: SmallVec<[Target; 1]>,
}

/// A model that an alias stands for.
#[derive(Debug)]
struct Target {
    id: Box<str>,
    weight: u32,
    /// The model as it was found last: a second lookup would have to fetch as much memory as the first.
    known: ArcSwapOption<Model>,
}

impl Alias {
    fn new(name: &str, targets: impl IntoIterator<Item = (Box<str>, u32)>) -> Self {
        let target = |(id, weight)| Target { id, weight, known: ArcSwapOption::empty() };
        Self { name: name.into(), targets: targets.into_iter().map(target).collect() }
    }

    /// What this request goes to; `None` if no weight is positive.
    fn choose(&self) -> Option<&Target> {
        if let [only] = &*self.targets {
            return Some(only);
        }
        let total: u64 = self.targets.iter().map(|target| u64::from(target.weight)).sum();
        let mut point = if total == 0 { return None } else { fastrand::u64(..total) };
        for target in &self.targets {
            match point.checked_sub(u64::from(target.weight)) {
                Some(rest) => point = rest,
                None => return Some(target),
            }
        }
        None
    }
}

/// How often the local copy of a model was used since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The concrete model id.
    pub model: String,
    /// Requests served.
    pub requests: u64,
    /// The last of them, in milliseconds since 1970.
    pub last_used_ms: u64,
}

/// The routing table of one instance.
#[derive(Debug, Default)]
pub struct Table {
    models: Sharded<Model>,
    aliases: Sharded<Alias>,
    /// Concurrent and queued requests of models whose server limits them.
    limits: Mutex<HashMap<Box<str>, (u32, u32)>>,
    generation: Mutex<u64>,
    touched: Mutex<Vec<Arc<Model>>>,
    retired: Mutex<Vec<Arc<Model>>>,
}

impl Table {
    /// Applies a batch of changes (`None` removes), unless a batch of a later generation came before it.
    pub fn update<'a>(
        &self,
        generation: u64,
        models: impl IntoIterator<Item = (&'a str, Option<Copies>)>,
        aliases: impl IntoIterator<Item = (&'a str, Option<Vec<(Box<str>, u32)>>)>,
    ) -> bool {
        let mut last = self.generation.lock();
        if generation < *last {
            return false;
        }
        *last = generation;
        for (id, copies) in models {
            self.set_model(id, copies);
        }
        for (name, targets) in aliases {
            match targets {
                Some(targets) => self.aliases.insert(Alias::new(name, targets)),
                None => self.aliases.remove(name),
            }
        }
        self.forget_retired();
        true
    }

    fn set_model(&self, id: &str, copies: Option<Copies>) {
        match (self.models.get(id), copies) {
            (Some(model), Some(copies)) => model.set_copies(copies),
            (None, Some(copies)) => {
                let model = Model::new(id, copies);
                model.set_limit(self.limits.lock().get(id).copied());
                self.models.insert(model);
            }
            (Some(model), None) => {
                model.set_copies(Copies::default());
                self.retired.lock().push(model);
            }
            (None, None) => {}
        }
    }

    /// Removes models without copies once no request is on them: until then their count must be found.
    fn forget_retired(&self) {
        self.retired.lock().retain(|model| {
            let gone = !model.is_ready() && model.in_flight() == 0;
            if gone {
                self.models.remove(&model.id);
            }
            !gone && !model.is_ready()
        });
    }

    /// The model with this id, if it has been routed.
    #[must_use]
    pub fn model(&self, id: &str) -> Option<Arc<Model>> {
        self.models.get(id)
    }

    /// Lets the local copy of a model have `concurrent` requests at a time, and `queued` more wait for their
    /// turn; with 0 concurrent ones there is no limit. It may be set before the model has a route.
    pub fn limit(&self, id: &str, concurrent: u32, queued: u32) {
        let limit = (concurrent > 0).then_some((concurrent, queued));
        let mut limits = self.limits.lock();
        match limit {
            Some(limit) => limits.insert(id.into(), limit),
            None => limits.remove(id),
        };
        if let Some(model) = self.models.get(id) {
            model.set_limit(limit);
        }
    }

    /// The model that a request for an alias goes to.
    ///
    /// # Errors
    /// The model's id where it has not been routed; empty where the alias is not known.
    pub fn model_of(&self, alias: &str) -> Result<Arc<Model>, Box<str>> {
        let alias = self.aliases.get(alias);
        let Some(target) = alias.as_deref().and_then(Alias::choose) else { return Err(Box::default()) };
        // One that was removed has no copies, also where it is routed anew.
        if let Some(model) = &*target.known.load()
            && model.is_ready()
        {
            return Ok(Arc::clone(model));
        }
        let model = self.models.get(&target.id).ok_or_else(|| target.id.clone())?;
        target.known.store(Some(Arc::clone(&model)));
        Ok(model)
    }

    /// A copy to serve a request: the local one, else the less loaded of two random peers. `excluded`
    /// instances have failed for this request.
    #[must_use]
    pub fn pick(&self, model: &Arc<Model>, own_instance: &str, excluded: &[Arc<str>]) -> Option<Pick> {
        let usable = |instance: &str| !excluded.iter().any(|other| **other == *instance);
        if usable(own_instance)
            && let Some(used) = self.pick_local(model)
        {
            return Some(Pick::Local(used));
        }
        let peers = model.peers.load();
        let peer = if excluded.is_empty() {
            less_loaded(&peers)
        } else {
            let left: Vec<_> = peers.iter().filter(|peer| usable(&peer.instance)).cloned().collect();
            less_loaded(&left)
        };
        peer.map(Pick::Peer)
    }

    /// The local copy, if it can serve.
    #[must_use]
    pub fn pick_local(&self, model: &Arc<Model>) -> Option<LocalUse> {
        let used = model.local()?;
        self.count(model);
        Some(used)
    }

    /// True if a copy is left to try.
    #[must_use]
    pub fn has_copy(&self, model: &Model, own_instance: &str, excluded: &[Arc<str>]) -> bool {
        let usable = |instance: &str| !excluded.iter().any(|other| **other == *instance);
        model.is_local() && usable(own_instance)
            || model.peers.load().iter().any(|peer| usable(&peer.instance))
    }

    fn count(&self, model: &Arc<Model>) {
        model.last_used.store(now_ms(), Ordering::Relaxed);
        if model.requests.fetch_add(1, Ordering::AcqRel) == 0 {
            self.touched.lock().push(Arc::clone(model));
        }
    }

    /// The use of local copies since the last call.
    pub fn drain_usage(&self) -> Vec<Usage> {
        let touched = std::mem::take(&mut *self.touched.lock());
        touched
            .into_iter()
            .map(|model| Usage {
                requests: model.requests.swap(0, Ordering::AcqRel),
                last_used_ms: model.last_used.load(Ordering::Relaxed),
                model: model.id.to_string(),
            })
            .collect()
    }
}

fn less_loaded(peers: &[PeerCopy]) -> Option<PeerCopy> {
    let chosen = match peers {
        [] => return None,
        [only] => only,
        many => {
            let first = fastrand::usize(..many.len());
            let second = (first + 1 + fastrand::usize(..many.len() - 1)) % many.len();
            let (first, second) = (&many[first], &many[second]);
            // One that has failed is taken only where both have.
            let load = |peer: &PeerCopy| (peer.upstream.is_resting(), peer.upstream.in_flight());
            if load(second) < load(first) { second } else { first }
        }
    };
    Some(chosen.clone())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What lies in a map by its name.
trait Named {
    fn name(&self) -> &str;
}

impl Named for Model {
    fn name(&self) -> &str {
        &self.id
    }
}

impl Named for Alias {
    fn name(&self) -> &str {
        &self.name
    }
}

/// A map by name that writers of different shards do not contend for.
#[derive(Debug)]
struct Sharded<T> {
    hasher: DefaultHashBuilder,
    shards: Box<[Shard<T>]>,
}

/// On a cache line of its own, so that threads that use others do not wait for it.
#[derive(Debug)]
#[repr(align(64))]
struct Shard<T>(RwLock<HashTable<Arc<T>>>);

impl<T> Default for Sharded<T> {
    fn default() -> Self {
        let shard = || Shard(RwLock::new(HashTable::new()));
        Self {
            hasher: DefaultHashBuilder::default(),
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
        }
    }
}

impl<T: Named> Sharded<T> {
    /// The hash of a name, and the shard that it belongs to.
    fn place(&self, name: &str) -> (u64, &RwLock<HashTable<Arc<T>>>) {
        let hash = self.hasher.hash_one(name);
        // Neither the lowest nor the highest bits: the map inside a shard uses those.
        (hash, &self.shards[(hash >> 40) as usize % SHARDS].0)
    }

    fn get(&self, name: &str) -> Option<Arc<T>> {
        let (hash, shard) = self.place(name);
        shard.read().find(hash, |known| known.name() == name).cloned()
    }

    fn insert(&self, value: T) {
        let (hash, shard) = self.place(value.name());
        let mut table = shard.write();
        let same = |known: &Arc<T>| known.name() == value.name();
        match table.entry(hash, same, |known| self.hasher.hash_one(known.name())) {
            Entry::Occupied(mut entry) => *entry.get_mut() = Arc::new(value),
            Entry::Vacant(entry) => {
                entry.insert(Arc::new(value));
            }
        }
    }

    fn remove(&self, name: &str) {
        let (hash, shard) = self.place(name);
        let mut table = shard.write();
        if let Ok(entry) = table.find_entry(hash, |known| known.name() == name) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Care, Target};

    type Change<'a> = (&'a str, Option<Copies>);

    fn local(id: &str) -> Change<'_> {
        (id, Some(Copies { local: true, ..Copies::default() }))
    }

    fn gone(id: &str) -> Change<'_> {
        (id, None)
    }

    fn update(table: &Table, generation: u64, changes: Vec<Change<'_>>) -> bool {
        table.update(generation, changes, std::iter::empty())
    }

    fn peers(names: &[&str]) -> Copies {
        let peer = |name: &&str| PeerCopy {
            instance: (*name).into(),
            upstream: Upstream::new(Target::Tcp("127.0.0.1:1".into()), Care::Peer, 1),
        };
        Copies { local: false, peers: names.iter().map(peer).collect() }
    }

    fn table(changes: Vec<Change<'_>>) -> Table {
        let table = Table::default();
        assert!(update(&table, 1, changes));
        table
    }

    fn peer(table: &Table, excluded: &[&str]) -> Option<String> {
        let excluded: Vec<Arc<str>> = excluded.iter().map(|name| (*name).into()).collect();
        match table.pick(&table.model("m").unwrap(), "self", &excluded)? {
            Pick::Peer(copy) => Some(copy.instance.to_string()),
            Pick::Local(_) => panic!("the local copy was picked"),
        }
    }

    #[test]
    fn the_less_loaded_of_two_peers_is_picked() {
        let copies = peers(&["a", "b"]);
        let busy = copies.peers[0].upstream.occupy();
        let table = table(vec![("m", Some(copies))]);
        assert!((0..20).all(|_| peer(&table, &[]).as_deref() == Some("b")));
        drop(busy);
        assert!((0..100).any(|_| peer(&table, &[]).as_deref() == Some("a")));
    }

    #[test]
    fn excluded_copies_are_not_picked() {
        let mut copies = peers(&["a", "b"]);
        copies.local = true;
        let table = table(vec![("m", Some(copies))]);
        assert_eq!(peer(&table, &["self", "a"]).as_deref(), Some("b"));
        assert_eq!(peer(&table, &["self", "a", "b"]), None);
    }

    #[test]
    fn an_older_batch_changes_nothing() {
        let table = table(vec![local("m")]);
        assert!(update(&table, 3, vec![local("n")]));
        assert!(!update(&table, 2, vec![gone("m")]));
        assert!(table.model("m").unwrap().is_ready());
        assert!(update(&table, 3, vec![gone("m")]));
        assert!(table.model("m").is_none());
    }

    #[test]
    fn a_removed_model_is_found_until_its_last_request_has_ended() {
        let table = table(vec![local("m")]);
        let used = table.pick_local(&table.model("m").unwrap()).unwrap();
        update(&table, 2, vec![gone("m")]);
        let model = table.model("m").unwrap();
        assert_eq!(model.in_flight(), 1);
        assert!(table.pick_local(&model).is_none());
        drop(used);
        assert_eq!(model.in_flight(), 0);
        update(&table, 3, vec![]);
        assert!(table.model("m").is_none());
    }

    #[test]
    fn a_model_that_comes_back_while_it_ends_stays() {
        let table = table(vec![local("m")]);
        let used = table.pick_local(&table.model("m").unwrap()).unwrap();
        update(&table, 2, vec![gone("m")]);
        update(&table, 3, vec![local("m")]);
        drop(used);
        update(&table, 4, vec![]);
        assert!(table.pick_local(&table.model("m").unwrap()).is_some());
    }

    #[tokio::test]
    async fn requests_take_turns_and_too_many_are_refused() {
        let table = table(vec![local("m")]);
        table.limit("n", 1, 0);
        update(&table, 2, vec![local("n")]);
        let early = table.model("n").unwrap();
        let _two = [(); 2].map(|()| table.pick_local(&early).unwrap());
        assert_eq!(early.turn(100).await.unwrap_err().code, Code::ResourceExhausted);
        table.limit("m", 1, 1);
        let model = table.model("m").unwrap();
        let [one, two, three] = [(); 3].map(|()| table.pick_local(&model).unwrap());
        assert_eq!(model.turn(100).await.unwrap_err().code, Code::ResourceExhausted);
        drop(three);
        let first = model.turn(100).await.unwrap();
        let mut second = std::pin::pin!(model.turn(100));
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), &mut second).await.is_err());
        drop((first, one));
        assert!(second.await.unwrap().is_some());
        table.limit("m", 0, 0);
        assert!(model.turn(1).await.unwrap().is_none());
        assert_eq!(model.turn(0).await.unwrap_err().code, Code::ResourceExhausted);
        drop(two);
    }

    #[test]
    fn usage_is_drained() {
        let table = table(vec![local("m"), local("n")]);
        for _ in 0..3 {
            let _ = table.pick_local(&table.model("m").unwrap());
        }
        let usage = table.drain_usage();
        assert_eq!(
            usage.iter().map(|usage| (usage.model.as_str(), usage.requests)).collect::<Vec<_>>(),
            [("m", 3)]
        );
        assert!(table.drain_usage().is_empty());
    }

    #[test]
    fn an_alias_chooses_by_weight() {
        let alias = |weights: &[u32]| {
            let targets = weights.iter().enumerate();
            Alias::new("alias", targets.map(|(index, weight)| (index.to_string().into(), *weight)))
        };
        let chosen = |alias: &Alias| alias.choose().map(|target| target.id.to_string());
        assert_eq!(chosen(&alias(&[0, 5])).as_deref(), Some("1"));
        assert_eq!(chosen(&alias(&[0, 0])), None);
        assert_eq!(chosen(&alias(&[])), None);
        assert_eq!(chosen(&alias(&[0])).as_deref(), Some("0"));
        let split = alias(&[90, 10]);
        let rare = (0..2000).filter(|_| chosen(&split).as_deref() == Some("1")).count();
        assert!((100..300).contains(&rare), "{rare}");
    }

    #[test]
    fn an_alias_finds_a_model_that_was_removed_and_routed_anew() {
        let table = Table::default();
        let model = |name: &str| table.model_of(name).map(|model| (model.id.clone(), model.is_ready()));
        assert_eq!(model("a"), Err("".into()));
        table.update(1, [], [("a", Some(vec![("m".into(), 1)]))]);
        assert_eq!(model("a"), Err("m".into()));
        update(&table, 2, vec![local("m")]);
        assert_eq!(model("a"), Ok(("m".into(), true)));
        let used = table.pick_local(&table.model_of("a").unwrap()).unwrap();
        update(&table, 3, vec![gone("m")]);
        assert_eq!(model("a"), Ok(("m".into(), false)));
        drop(used);
        update(&table, 4, vec![]);
        assert_eq!(model("a"), Err("m".into()));
        update(&table, 5, vec![local("m")]);
        assert_eq!(model("a"), Ok(("m".into(), true)));
        assert!(Arc::ptr_eq(&table.model_of("a").unwrap(), &table.model("m").unwrap()));
        table.update(6, [local("n")], [("a", Some(vec![("n".into(), 1)]))]);
        assert_eq!(model("a"), Ok(("n".into(), true)));
    }

    #[test]
    fn ids_outside_visible_ascii_have_only_the_binary_header() {
        let model = Model::new("ö", Copies::default());
        assert_eq!(model.id_header, None);
        assert_eq!(model.id_header_bin, "w7Y");
        assert_eq!(Model::new("a b", Copies::default()).id_header.unwrap(), "a b");
    }
}

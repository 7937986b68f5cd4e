//! Who is to hear of which change: each stream says what it lives on, and only those whom a change concerns
//! are roused by it.
//!
//! Before it: `publish` made a change. After it: the roused streams ask their sessions what they are owed.
//!
//! Invariant: a stream that a change concerns is roused; one too many may be (names are told apart by a hash).
//! Invariant: whoever lists anew looks at the published state once more after that, so nothing falls between.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use weft_control_plane_core::Session;
use weft_control_plane_core::session::Change;

/// All streams, by what they live on.
#[derive(Debug, Default)]
pub struct Interests {
    table: Mutex<Table>,
    hasher: RandomState,
    /// Generation of which all have heard whom it concerns.
    newest: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    seats: HashMap<u32, Arc<Standing>>,
    next: u32,
    by_name: HashMap<u64, Vec<u32>>,
}

/// How far a stream has come.
#[derive(Debug, Default)]
struct Standing {
    rouse: Notify,
    /// Generation that it was last roused for.
    owed: AtomicU64,
    /// Generation that it was last brought to.
    reached: AtomicU64,
}

/// One stream's place; it goes when this is dropped.
#[derive(Debug)]
pub struct Seat {
    interests: Arc<Interests>,
    standing: Arc<Standing>,
    number: u32,
    /// Sorted.
    names: Vec<u64>,
    listed: Option<u64>,
}

impl Interests {
    /// A place for a stream; it hears of wide changes only, until it lists what it lives on.
    pub fn seat(self: &Arc<Self>) -> Seat {
        let standing = Arc::new(Standing::default());
        let mut table = self.lock();
        let mut number = table.next;
        while table.seats.contains_key(&number) {
            number = number.wrapping_add(1);
        }
        table.next = number.wrapping_add(1);
        table.seats.insert(number, Arc::clone(&standing));
        Seat { interests: Arc::clone(self), standing, number, names: Vec::new(), listed: None }
    }

    /// Rouses whom a published generation concerns; without changes that are known, everybody.
    pub fn rouse<'a>(&self, generation: u64, changes: Option<impl Iterator<Item = &'a Change>>) {
        let table = self.lock();
        let concerned = changes.and_then(|changes| self.concerned(&table, changes));
        let rouse = |standing: &Arc<Standing>| {
            standing.owed.store(generation, Ordering::Release);
            standing.rouse.notify_one();
        };
        match concerned {
            Some(numbers) => numbers.iter().filter_map(|number| table.seats.get(number)).for_each(rouse),
            None => table.seats.values().for_each(rouse),
        }
        self.newest.store(generation, Ordering::Release);
    }

    /// The streams that changes concern; none: all of them.
    fn concerned<'a>(&self, table: &Table, changes: impl Iterator<Item = &'a Change>) -> Option<Vec<u32>> {
        let mut numbers = Vec::new();
        for change in changes {
            if change.is_wide() {
                return None;
            }
            let names = change.keys().map(|key| self.name(key));
            let addresses = change.addresses().map(|address| self.name(address));
            let lists = names.chain(addresses).filter_map(|name| table.by_name.get(&name));
            numbers.extend(lists.flatten().copied());
        }
        numbers.sort_unstable();
        numbers.dedup();
        Some(numbers)
    }

    fn name(&self, name: &impl Hash) -> u64 {
        self.hasher.hash_one(name)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Each list is changed entry by entry; a panic elsewhere leaves at most a stale name.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Lists what a session lives on, if that changed since the last time.
    pub fn list(&mut self, session: &Session) {
        if self.listed == Some(session.revision()) {
            return;
        }
        self.listed = Some(session.revision());
        let interests = &self.interests;
        let names = session.names().map(|key| interests.name(key));
        let mut names: Vec<u64> =
            names.chain(session.addresses().map(|address| interests.name(&address))).collect();
        names.sort_unstable();
        names.dedup();
        if names == self.names {
            return;
        }
        names.shrink_to_fit();
        let mut table = interests.lock();
        unlist(&mut table, self.number, self.names.iter().filter(|name| names.binary_search(name).is_err()));
        for name in names.iter().filter(|name| self.names.binary_search(name).is_err()) {
            table.by_name.entry(*name).or_default().push(self.number);
        }
        self.names = names;
    }

    /// Waits until a change concerns this stream.
    ///
    /// # Cancel safety
    /// Nothing is lost: a rousing that nobody waited for is there for the next wait.
    pub async fn roused(&self) {
        self.standing.rouse.notified().await;
    }

    /// Notes the generation that the stream was brought to.
    pub fn reach(&self, generation: u64) {
        self.standing.reached.store(generation, Ordering::Release);
    }

    /// How far the stream has come, for whoever shows it.
    pub fn progress(&self) -> Progress {
        Progress { interests: Arc::clone(&self.interests), standing: Arc::clone(&self.standing) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.interests.lock();
        table.seats.remove(&self.number);
        unlist(&mut table, self.number, self.names.iter());
    }
}

/// How far a stream has come, as seen from outside.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    interests: Arc<Interests>,
    standing: Arc<Standing>,
}

impl Progress {
    /// The generation that the stream's sidecar shows: the newest, unless one that concerns it is under way;
    /// 0: none yet.
    pub fn generation(&self) -> u64 {
        let newest = self.interests.newest.load(Ordering::Acquire);
        let reached = self.standing.reached.load(Ordering::Acquire);
        if reached > 0 && self.standing.owed.load(Ordering::Acquire) <= reached {
            reached.max(newest)
        } else {
            reached
        }
    }
}

fn unlist<'a>(table: &mut Table, number: u32, names: impl Iterator<Item = &'a u64>) {
    for name in names {
        if let Some(numbers) = table.by_name.get_mut(name) {
            numbers.retain(|one| *one != number);
            if numbers.is_empty() {
                table.by_name.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::time::timeout;
    use weft_control_plane_core::config::{Key, ResourceType};
    use weft_control_plane_core::model::{Kind, Model, read};
    use weft_control_plane_core::session::{Ack, Hello, Published};
    use weft_control_plane_core::{Compiler, Session};

    use super::*;
    use crate::encode::encode;

    fn slice(service: &str, address: &str) -> serde_json::Value {
        serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": service, "namespace": "n", "labels": {"kubernetes.io/service-name": service}},
            "ports": [{"name": "", "port": 80}], "endpoints": [{"addresses": [address]}],
        })
    }

    fn service(name: &str) -> serde_json::Value {
        let meta = serde_json::json!({"name": name, "namespace": "n"});
        serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": 80}]}})
    }

    fn pod(address: &str) -> serde_json::Value {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": []}, "status": {"podIP": address},
        })
    }

    struct World {
        compiler: Compiler,
        published: Published,
        interests: Arc<Interests>,
    }

    impl World {
        fn change(&mut self, document: serde_json::Value) {
            self.compiler.apply(read(document).unwrap().unwrap().object, None);
            self.publish();
        }

        fn publish(&mut self) {
            if let Some(next) = self.published.apply(&self.compiler.compile()) {
                self.interests.rouse(next.generation(), next.changes_since(self.published.generation()));
                self.published = next;
            }
        }

        fn stream(&mut self, subscription: Key) -> (Seat, Session) {
            let hello =
                Hello { workload: "n/x".to_owned(), held: Vec::new(), subscriptions: vec![subscription] };
            let mut stream = (self.interests.seat(), Session::open(hello).unwrap());
            self.bring(&mut stream);
            stream
        }

        fn bring(&self, (seat, session): &mut (Seat, Session)) {
            if let Some(epoch) = session.next(&self.published) {
                session.acknowledge(Ack { nonce: epoch.nonce, refusals: Vec::new() }).unwrap();
            }
            seat.list(session);
            seat.reach(self.published.generation());
        }
    }

    async fn is_roused(stream: &(Seat, Session)) -> bool {
        timeout(std::time::Duration::ZERO, stream.0.roused()).await.is_ok()
    }

    fn world() -> World {
        let mut world = World {
            compiler: Compiler::new(Model::default()),
            published: Published::nothing(encode),
            interests: Arc::default(),
        };
        for name in ["a", "b"] {
            world.compiler.apply(read(service(name)).unwrap().unwrap().object, None);
        }
        world.publish();
        world
    }

    #[tokio::test]
    async fn only_whom_a_change_concerns_is_roused_and_all_are_shown_at_the_newest() {
        let mut world = world();
        let mut a = world.stream(Key::new(ResourceType::Outbound, "n/a:80"));
        let b = world.stream(Key::new(ResourceType::Outbound, "n/b:80"));
        world.change(slice("a", "10.0.0.1"));
        assert!(is_roused(&a).await && !is_roused(&b).await);
        let generation = world.published.generation();
        assert_eq!((a.0.progress().generation(), b.0.progress().generation()), (generation - 1, generation));
        world.bring(&mut a);
        assert_eq!(a.0.progress().generation(), generation);
    }

    #[tokio::test]
    async fn a_wide_change_rouses_everybody_and_a_name_of_nothing_is_listed_as_well() {
        let mut world = world();
        let a = world.stream(Key::new(ResourceType::Outbound, "n/a:80"));
        let later = world.stream(Key::new(ResourceType::Outbound, "n/later:80"));
        world.change(service("later"));
        assert!(!is_roused(&a).await && is_roused(&later).await);
        let mesh = serde_json::json!({"apiVersion": "weft.dev/v1alpha1", "kind": "Mesh",
            "metadata": {"name": "mesh"}, "spec": {"accessLog": "All"}});
        world.change(mesh);
        assert!(is_roused(&a).await && is_roused(&later).await);
    }

    #[tokio::test]
    async fn an_address_is_heard_of_in_whatever_form_it_was_subscribed() {
        let mut world = world();
        let address: IpAddr = "10.0.0.9".parse().unwrap();
        let mapped = world.stream(Key::new(ResourceType::Address, format!("[::ffff:{address}]:7")));
        world.change(pod("10.0.0.9"));
        assert!(is_roused(&mapped).await);
    }

    #[tokio::test]
    async fn who_has_left_leaves_nothing_behind() {
        let mut world = world();
        let a = world.stream(Key::new(ResourceType::Outbound, "n/a:80"));
        drop(a);
        world.compiler.remove(Kind::Service, "n", "a");
        world.publish();
        let table = world.interests.lock();
        assert!(table.seats.is_empty() && table.by_name.is_empty());
    }
}

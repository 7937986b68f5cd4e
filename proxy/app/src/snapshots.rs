//! Where the current snapshot stands: written by adopt's side, read by every data thread.
//!
//! Invariant: a reader that sees a generation sees that snapshot or a later one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use weft_proxy_core::Snapshot;

/// The current snapshot, shared by all threads.
#[derive(Debug)]
pub struct Snapshots {
    current: ArcSwap<Snapshot>,
    generation: AtomicU64,
    changes: watch::Sender<u64>,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            current: ArcSwap::from_pointee(Snapshot::default()),
            generation: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        }
    }
}

impl Snapshots {
    /// Swaps in a new snapshot. One writer: the task that adopts.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        let generation = snapshot.generation;
        self.current.store(snapshot);
        self.generation.store(generation, Ordering::Release);
        self.changes.send_replace(generation);
    }

    /// The current snapshot.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Generation of the current snapshot: one relaxed load tells whether anything changed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Wakes chores at every change; data threads compare generations instead.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A view for one data thread.
    pub fn reader(self: &Arc<Self>) -> Reader {
        Reader { seen: self.generation(), snapshot: self.current(), snapshots: Arc::clone(self) }
    }
}

/// One thread's view: it looks at the shared pointer only when the generation moved.
#[derive(Debug, Clone)]
pub struct Reader {
    snapshots: Arc<Snapshots>,
    seen: u64,
    snapshot: Arc<Snapshot>,
}

impl Reader {
    /// The current snapshot.
    pub fn current(&mut self) -> &Arc<Snapshot> {
        let generation = self.snapshots.generation();
        if generation != self.seen {
            self.snapshot = self.snapshots.current();
            self.seen = generation;
        }
        &self.snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_was_published_and_keeps_its_pointer_otherwise() {
        let snapshots = Arc::new(Snapshots::default());
        let mut reader = snapshots.reader();
        let first = Arc::clone(reader.current());
        assert!(Arc::ptr_eq(&first, reader.current()));
        snapshots.publish(Arc::new(Snapshot { generation: 1, ..Snapshot::default() }));
        assert_eq!(reader.current().generation, 1);
        assert_eq!(*snapshots.changes().borrow(), 1);
        assert_eq!(first.generation, 0, "a request keeps the snapshot it took");
    }
}

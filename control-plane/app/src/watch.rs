//! Watches the folder: any event there, once it is quiet again, leads to one look at all of it.
//!
//! After it: `index` looks and reads, `reload` compiles and publishes, on this same thread, so that
//! the streams never wait for a compilation.
//!
//! Invariant: an event only says "look"; what changed is found by reading. A missed event costs at
//! most one poll.
//! Invariant: our own reading is no event, and a file that someone holds open for writing is waited for.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// Quiet that ends a save. Source: an editor's write, rename and chmod come within a few milliseconds.
const QUIET: Duration = Duration::from_millis(20);
/// Longest wait for quiet. Source: the goal of 100 ms from an edit to its publication.
const LONGEST: Duration = Duration::from_millis(60);
/// Longest wait for a file to be closed that is being written. Source: Weft's own; a writer that is
/// slower is seen half way, and again when it has closed.
const WRITING: Duration = Duration::from_millis(500);
/// Looks without an event. Source: Kubernetes' own volumes lag by a minute; two seconds cost a walk.
const POLL: Duration = Duration::from_secs(2);
/// How often an emptied file is looked at again before it is taken as empty. Source: Weft's own; about a
/// tenth of a second in all.
const EMPTY_LOOKS: u32 = 5;

/// Why the folder is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// For the first time.
    Start,
    /// Something happened there.
    Event,
    /// Some time has passed.
    Poll,
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The state is settled, taken or refused.
    Settled,
    /// A file is being written: look again soon.
    Unsettled,
}

/// The watching thread; stops when told or dropped.
#[derive(Debug)]
pub struct Watch {
    signal: SyncSender<Signal>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Changed,
    Stop,
}

impl Watch {
    /// Starts a thread that calls `look` at once and whenever the folder may have changed. `look`
    /// is told whether to take an emptied file as empty, and when the change was noticed.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start<F>(folder: &Path, mut look: F) -> io::Result<Self>
    where
        F: FnMut(Cause, bool, Instant) -> Seen + Send + 'static,
    {
        let (signal, signals) = sync_channel(64);
        let writers = Writers::default();
        let mut eyes = Eyes::new(folder, signal.clone(), writers.clone());
        let thread = std::thread::Builder::new().name("weft-manifests".to_owned()).spawn(move || {
            eyes.open();
            let mut next = Some(Cause::Start);
            while let Some(cause) = next {
                if cause == Cause::Poll {
                    eyes.open();
                }
                next = match settle(&signals, &writers, cause, &mut look) {
                    true => wait(&signals),
                    false => None,
                };
            }
        })?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// Stops the thread and waits for it.
    pub fn stop(&mut self) {
        let _ = self.signal.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits for the end of a save or for the time of a poll; none: stop.
fn wait(signals: &Receiver<Signal>) -> Option<Cause> {
    match signals.recv_timeout(POLL) {
        Ok(Signal::Changed) => Some(Cause::Event),
        Err(RecvTimeoutError::Timeout) => Some(Cause::Poll),
        Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => None,
    }
}

/// Waits until nothing happens any more, then looks; again while a file is being written. False: stop.
fn settle<F>(signals: &Receiver<Signal>, writers: &Writers, cause: Cause, look: &mut F) -> bool
where
    F: FnMut(Cause, bool, Instant) -> Seen,
{
    let noticed = Instant::now();
    if (cause == Cause::Event || writers.any()) && !quiet(signals, writers, noticed) {
        return false;
    }
    for again in 0..=EMPTY_LOOKS {
        if look(cause, again == EMPTY_LOOKS, noticed) == Seen::Settled {
            return true;
        }
        if !quiet(signals, writers, Instant::now()) {
            return false;
        }
    }
    true
}

/// Drains events until none came for a while and nobody writes; false: stop.
fn quiet(signals: &Receiver<Signal>, writers: &Writers, since: Instant) -> bool {
    while since.elapsed() < if writers.any() { WRITING } else { LONGEST } {
        match signals.recv_timeout(QUIET) {
            Ok(Signal::Changed) => {}
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) if writers.any() => {}
            Err(RecvTimeoutError::Timeout) => return true,
        }
    }
    writers.forget();
    true
}

/// Files that were changed in place and not closed since.
#[derive(Debug, Clone, Default)]
struct Writers(Arc<Mutex<BTreeSet<PathBuf>>>);

impl Writers {
    fn note(&self, event: &Event) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) => open.extend(event.paths.iter().cloned()),
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_)) => {
                open.retain(|path| !event.paths.contains(path));
            }
            _ => {}
        }
    }

    fn any(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The notifications of the folder, opened again when the folder itself was replaced.
struct Eyes {
    folder: PathBuf,
    signal: SyncSender<Signal>,
    writers: Writers,
    watcher: Option<(RecommendedWatcher, (u64, u64))>,
}

impl Eyes {
    fn new(folder: &Path, signal: SyncSender<Signal>, writers: Writers) -> Self {
        Self { folder: folder.to_owned(), signal, writers, watcher: None }
    }

    fn open(&mut self) {
        let place = std::fs::metadata(&self.folder).ok().map(|found| (found.dev(), found.ino()));
        let Some(place) = place else {
            self.watcher = None;
            return;
        };
        if self.watcher.as_ref().is_some_and(|(_, watched)| *watched == place) {
            return;
        }
        match self.watch() {
            Ok(watcher) => self.watcher = Some((watcher, place)),
            Err(error) => {
                let folder = self.folder.display().to_string();
                tracing::warn!(folder, %error, "no notifications; the folder is polled every two seconds");
            }
        }
    }

    fn watch(&self) -> notify::Result<RecommendedWatcher> {
        let (signal, writers) = (self.signal.clone(), self.writers.clone());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Ok(event) = &event {
                writers.note(event);
            }
            // A full channel already says "look"; an error may hide a change, so it says so too.
            if event.map_or(true, |event| is_change(event.kind)) {
                let _ = signal.try_send(Signal::Changed);
            }
        })?;
        watcher.watch(&self.folder, RecursiveMode::Recursive)?;
        Ok(watcher)
    }
}

fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Sender};

    use super::*;
    use crate::testing::Folder;

    /// Generous: only a hang reaches it.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn watched(folder: &Folder, report: Sender<(Cause, bool)>) -> Watch {
        Watch::start(folder.path(), move |cause, settled, _| {
            let _ = report.send((cause, settled));
            Seen::Settled
        })
        .unwrap()
    }

    fn wait_for(looks: &mpsc::Receiver<(Cause, bool)>, cause: Cause) {
        while looks.recv_timeout(PATIENCE).unwrap().0 != cause {}
    }

    #[test]
    fn a_write_a_rename_and_a_new_folder_are_events() {
        let folder = Folder::new();
        let (report, looks) = mpsc::channel();
        let _watch = watched(&folder, report);
        wait_for(&looks, Cause::Start);
        std::fs::write(folder.path().join("a.yaml"), "x").unwrap();
        wait_for(&looks, Cause::Event);
        std::fs::rename(folder.path().join("a.yaml"), folder.path().join("b.yaml")).unwrap();
        wait_for(&looks, Cause::Event);
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        wait_for(&looks, Cause::Event);
    }

    #[test]
    fn a_swapped_link_is_an_event() {
        let folder = Folder::new();
        std::os::unix::fs::symlink("..1", folder.path().join("..data")).unwrap();
        let (report, looks) = mpsc::channel();
        let _watch = watched(&folder, report);
        wait_for(&looks, Cause::Start);
        std::os::unix::fs::symlink("..2", folder.path().join("..next")).unwrap();
        wait_for(&looks, Cause::Event);
        std::fs::rename(folder.path().join("..next"), folder.path().join("..data")).unwrap();
        wait_for(&looks, Cause::Event);
    }

    #[test]
    fn a_file_counts_as_being_written_until_it_is_closed_renamed_or_gone() {
        use notify::event::{DataChange, RemoveKind, RenameMode};
        let writers = Writers::default();
        let event = |kind: EventKind| Event::new(kind).add_path(PathBuf::from("a.yaml"));
        let written = event(EventKind::Modify(ModifyKind::Data(DataChange::Any)));
        for end in [
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
            EventKind::Modify(ModifyKind::Name(RenameMode::From)),
            EventKind::Remove(RemoveKind::File),
        ] {
            writers.note(&written);
            assert!(writers.any());
            writers.note(&event(end));
            assert!(!writers.any(), "{end:?}");
        }
    }

    #[test]
    fn a_file_held_open_is_seen_when_it_is_closed() {
        use std::io::Write as _;
        let folder = Folder::new();
        let (report, looks) = mpsc::channel();
        let path = folder.path().join("a.yaml");
        let seen = path.clone();
        let _watch = Watch::start(folder.path(), move |_, _, _| {
            let _ = report.send(std::fs::read_to_string(&seen).unwrap_or_default());
            Seen::Settled
        })
        .unwrap();
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(b"first ").unwrap();
        file.write_all(b"second").unwrap();
        drop(file);
        while looks.recv_timeout(PATIENCE).unwrap() != "first second" {}
    }

    #[test]
    fn reading_is_no_event() {
        assert!(!is_change(EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(!is_change(EventKind::Access(AccessKind::Close(AccessMode::Read))));
        assert!(is_change(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(is_change(EventKind::Any));
    }

    #[test]
    fn an_unsettled_state_is_looked_at_until_it_is_taken_as_it_is() {
        let folder = Folder::new();
        let (report, looks) = mpsc::channel();
        let _watch = Watch::start(folder.path(), move |_, settled, _| {
            let _ = report.send(settled);
            if settled { Seen::Settled } else { Seen::Unsettled }
        })
        .unwrap();
        let seen: Vec<bool> = (0..=EMPTY_LOOKS).map(|_| looks.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(seen.iter().filter(|settled| **settled).count(), 1);
        assert_eq!(seen.last(), Some(&true));
    }

    #[test]
    fn a_folder_that_appears_later_is_found_by_the_poll() {
        let folder = Folder::new();
        let later = folder.path().join("later");
        let (report, looks) = mpsc::channel();
        let _watch = Watch::start(&later, {
            move |cause, _, _| {
                let _ = report.send((cause, false));
                Seen::Settled
            }
        })
        .unwrap();
        wait_for(&looks, Cause::Start);
        std::fs::create_dir(&later).unwrap();
        wait_for(&looks, Cause::Poll);
        std::fs::write(later.join("a.yaml"), "x").unwrap();
        wait_for(&looks, Cause::Event);
    }
}

//! The access log: one line for each request, and for each connection that is not HTTP, at its end.
//!
//! Closing a record writes its line on its worker's sheet; a thread of the log's own carries the sheets
//! to the file or standard output, many lines with one write. [`mod@policy`] says what is written,
//! [`fields`] under which names.
//!
//! Invariant: a data thread never waits for the writer; what does not fit on a sheet is dropped and counted.
//! Invariant: no body is ever written, of header fields and queries only what is allowed, and no credential;
//! foreign text is escaped.
//! Invariant: the two buffers of a sheet are used again and again.

mod digits;
mod escape;
pub mod fields;
pub mod line;
pub mod policy;
mod time;

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::{self, Thread};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, Uri};
use weft_proxy_core::Moment;

use crate::metrics::Metrics;
use crate::metrics::plain::Dropped;
use crate::record::clock::Clock;
use crate::record::entry::Entry;
use line::Style;
use policy::ALL_PPM;
pub use policy::{Format, Mode, Policy};

/// The log, shared by all workers. Without a [`Writer`] (the default) nothing is ever written.
#[derive(Clone, Debug, Default)]
pub struct AccessLog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    mode: AtomicU8,
    /// The policy says more than the mode: something of each head is kept.
    keeps: AtomicBool,
    policy: ArcSwap<Policy>,
    sheets: Mutex<Vec<Arc<Page>>>,
    writer: OnceLock<Thread>,
    /// The writer waits for a line, not for the next time it looks.
    asleep: AtomicBool,
    stopping: AtomicBool,
}

/// Lines that wait for the writer.
#[derive(Debug, Default)]
struct Page(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    count: u64,
}

impl AccessLog {
    /// Starts the log: a thread that writes to `out`. Drops are counted in `metrics`.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(out: Box<dyn Write + Send>, metrics: Arc<Metrics>) -> std::io::Result<(Self, Writer)> {
        let log = Self::default();
        let (done, wait) = mpsc::sync_channel(1);
        let shared = Arc::clone(&log.0);
        let thread = thread::Builder::new().name("access-log".into()).spawn(move || {
            run(&shared, out, &metrics);
            // Nobody waits when the writer was let go: then there is nobody to tell.
            let _ = done.send(());
        })?;
        // The cell is empty: this log was made three lines above.
        let _ = log.0.writer.set(thread.thread().clone());
        Ok((log.clone(), Writer { log, done: wait }))
    }

    /// Sets what is written, from now on.
    pub fn set(&self, policy: Policy) {
        if **self.0.policy.load() == policy {
            return;
        }
        let (mode, keeps) = (policy.mode, policy.keeps());
        self.0.policy.store(Arc::new(policy));
        self.0.keeps.store(keeps, Ordering::Relaxed);
        self.0.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// Which requests are written.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.0.mode.load(Ordering::Relaxed) {
            1 => Mode::Errors,
            2 => Mode::All,
            _ => Mode::Off,
        }
    }

    /// A sheet for one worker.
    #[must_use]
    pub fn sheet(&self, metrics: Arc<Metrics>) -> Sheet {
        let page = Arc::new(Page::default());
        lock(&self.0.sheets).push(Arc::clone(&page));
        Sheet { log: self.clone(), page, metrics, share: AtomicU32::new(0) }
    }
}

/// The thread that writes; to be finished before the process ends.
#[derive(Debug)]
pub struct Writer {
    log: AccessLog,
    done: mpsc::Receiver<()>,
}

impl Writer {
    /// Writes what is left and ends the thread; gives up after a second on an output that does not take it.
    pub fn finish(self) {
        self.log.0.stopping.store(true, Ordering::SeqCst);
        self.log.0.wake();
        // Either it is done or its output is stuck; both end here.
        let _ = self.done.recv_timeout(FINISH);
    }
}

/// Where one worker writes its lines.
#[derive(Debug)]
pub struct Sheet {
    log: AccessLog,
    page: Arc<Page>,
    metrics: Arc<Metrics>,
    /// Counts up by the share that is written; a line for each million that it passes.
    share: AtomicU32,
}

impl Sheet {
    /// Whether a line may be written at all, so that its texts are worth keeping.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.log.mode() != Mode::Off
    }

    /// Keeps what of a head is to be written beyond method, path and host.
    pub fn keep(&self, entry: &mut Entry, uri: &Uri, headers: &HeaderMap) {
        if self.log.0.keeps.load(Ordering::Relaxed) {
            let policy = self.log.0.policy.load();
            policy.keep_query(uri.query().unwrap_or_default(), &mut entry.query);
            policy.keep_headers(headers, &mut entry.fields);
        }
    }

    /// Whether it is the turn of the next line, where so many of a million are written. Two threads at once
    /// may take one too many.
    fn is_next(&self, ppm: u32) -> bool {
        let counted = self.share.fetch_add(ppm, Ordering::Relaxed).wrapping_add(ppm);
        let passed = counted >= ALL_PPM;
        if passed {
            self.share.fetch_sub(ALL_PPM, Ordering::Relaxed);
        }
        passed
    }

    /// Whether every request has its line.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        self.log.mode() == Mode::All
    }

    /// Writes the line of a request or connection that ended, if such are written.
    pub fn write(&self, entry: &Entry, ended: Moment, clock: &Clock) {
        let wanted = match self.log.mode() {
            Mode::Off => false,
            Mode::Errors => entry.went_wrong(),
            Mode::All => true,
        };
        if !wanted || self.log.0.writer.get().is_none() {
            return;
        }
        let policy = self.log.0.policy.load();
        if policy.ppm < ALL_PPM && !entry.went_wrong() && !self.is_next(policy.ppm) {
            return;
        }
        let mut lines = lock(&self.page.0);
        if lines.bytes.len() >= SHEET {
            self.metrics.plain().dropped(Dropped::LogLine).up();
            return;
        }
        line::write(&mut lines.bytes, entry, ended, Style { format: policy.format, clock });
        lines.count += 1;
        let first = lines.count == 1;
        drop(lines);
        if first && self.log.0.asleep.swap(false, Ordering::SeqCst) {
            self.log.0.wake();
        }
    }
}

impl Shared {
    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    fn is_empty(&self) -> bool {
        lock(&self.sheets).iter().all(|page| lock(&page.0).count == 0)
    }
}

/// The writer: sleeps until a line comes, lets more gather, writes them with one call.
fn run(shared: &Shared, mut out: Box<dyn Write + Send>, metrics: &Metrics) {
    let mut spare = Lines::default();
    loop {
        // Before looking: a line that comes after the look finds the writer asleep and wakes it.
        shared.asleep.store(true, Ordering::SeqCst);
        let stopping = shared.stopping.load(Ordering::SeqCst);
        if shared.is_empty() {
            if stopping {
                return;
            }
            thread::park();
            continue;
        }
        shared.asleep.store(false, Ordering::SeqCst);
        if !stopping {
            thread::park_timeout(GATHER);
        }
        let pages = {
            let mut pages = lock(&shared.sheets);
            pages.retain(|page| Arc::strong_count(page) > 1 || lock(&page.0).count > 0);
            pages.clone()
        };
        for page in pages {
            std::mem::swap(&mut *lock(&page.0), &mut spare);
            if !spare.bytes.is_empty() && out.write_all(&spare.bytes).and_then(|()| out.flush()).is_err() {
                metrics.plain().dropped(Dropped::LogLine).add(spare.count);
            }
            let used = spare.bytes.len().max(SPARE);
            spare.bytes.clear();
            // A sheet that is as full each time keeps its room; one that was needed once does not.
            if spare.bytes.capacity() / 4 > used {
                spare.bytes.shrink_to(used * 2);
            }
            spare.count = 0;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of lines that may wait for the writer, for each worker. Source: about 2,000 lines, a tenth of
/// a second at 20,000 requests a second, ten times what the writer waits.
const SHEET: usize = 1 << 20;
/// Bytes that an empty sheet keeps. Source: a hundred lines, so an idle sidecar holds little.
const SPARE: usize = 64 << 10;
/// How long lines gather before they are written. Source: fifty writes a second are nothing, and a
/// person does not see the delay.
const GATHER: Duration = Duration::from_millis(20);
/// Source: a pipe whose reader is gone or stuck must not hold up the end of the process.
const FINISH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

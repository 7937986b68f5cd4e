//! Logs: one JSON line an event on standard error, with a filter that can change while running.
//!
//! Invariant: the filter's syntax is that of `RUST_LOG`; a filter that does not parse changes nothing.

use std::sync::Arc;

use tracing::{Level, Metadata};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The live filter.
#[derive(Clone, Default)]
pub struct LogLevel {
    handle: Option<Arc<reload::Handle<EnvFilter, Registry>>>,
}

impl LogLevel {
    /// Starts logging for this process.
    ///
    /// # Errors
    /// The filter does not parse. A process that already logs keeps its own subscriber, and then
    /// the filter cannot be changed here.
    pub fn start(filter: &str) -> anyhow::Result<Self> {
        let (filter, handle) = reload::Layer::new(EnvFilter::try_new(filter)?);
        let lines = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_writer(std::io::stderr)
            .with_filter(filter_fn(|event| !is_repeated(event)));
        match tracing_subscriber::registry().with(filter).with(lines).try_init() {
            Ok(()) => Ok(Self { handle: Some(Arc::new(handle)) }),
            Err(_) => Ok(Self::default()),
        }
    }

    /// Replaces the filter.
    ///
    /// # Errors
    /// The filter does not parse, or this process's log is not ours.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(filter.trim()).map_err(|error| error.to_string())?;
        let handle = self.handle.as_ref().ok_or("the log of this process is not ours to change")?;
        handle.reload(filter).map_err(|error| error.to_string())
    }

    /// The filter in force, as text.
    pub fn current(&self) -> String {
        let read = |handle: &Arc<reload::Handle<_, _>>| handle.with_current(EnvFilter::to_string).ok();
        self.handle.as_ref().and_then(read).unwrap_or_default()
    }
}

/// The Kubernetes client logs every failed request as an error; whoever asked has it as a value, and
/// says what it means once.
fn is_repeated(event: &Metadata<'_>) -> bool {
    event.target().starts_with("kube_client") && *event.level() <= Level::INFO
}

//! The diagnostic log: what the sidecar says about itself, on standard error.
//!
//! Started first; its filter changes live through `admin`.
//!
//! Invariant: requests are not logged here but in the access log.
//! Invariant: a filter that cannot be read changes nothing.

use std::sync::Arc;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For a person.
    Text,
}

/// The log, while it runs; cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Log {
    filter: Arc<reload::Handle<EnvFilter, Registry>>,
}

/// Why the log cannot be as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter cannot be read.
    #[error("the log filter {filter:?} cannot be read: {why}; write e.g. info,weft_proxy=debug")]
    BadFilter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// The process has a log already.
    #[error("the process has a log already")]
    Running,
    /// The log has ended.
    #[error("the log has ended")]
    Ended,
}

impl Log {
    /// Starts the process's log on standard error.
    ///
    /// # Errors
    /// `BadFilter`; `Running` when it was started before.
    pub fn start(format: Format, filter: &str) -> Result<Self, Error> {
        let (log, subscriber) = Self::build(format, filter, std::io::stderr)?;
        subscriber.try_init().map_err(|_| Error::Running)?;
        Ok(log)
    }

    fn build<W>(format: Format, filter: &str, out: W) -> Result<(Self, impl Subscriber + Send + Sync), Error>
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let (filter, handle) = reload::Layer::new(parse(filter)?);
        let lines = match format {
            Format::Json => fmt::layer().json().flatten_event(true).with_writer(out).boxed(),
            Format::Text => fmt::layer().with_ansi(false).with_writer(out).boxed(),
        };
        let subscriber = Registry::default().with(filter).with(lines);
        Ok((Self { filter: Arc::new(handle) }, subscriber))
    }

    /// Takes another filter, from now on.
    ///
    /// # Errors
    /// `BadFilter`: the old one stays; `Ended`.
    pub fn set(&self, filter: &str) -> Result<(), Error> {
        self.filter.reload(parse(filter)?).map_err(|_| Error::Ended)
    }

    /// The filter in force.
    #[must_use]
    pub fn filter(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    let bad = |why: String| Error::BadFilter { filter: filter.to_owned(), why };
    if filter.trim().is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    EnvFilter::builder().parse(filter.trim()).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A log that nobody reads; its subscriber must live as long as the log.
    pub(crate) fn silent() -> (Log, impl Subscriber + Send + Sync) {
        Log::build(Format::Json, "info", std::io::sink).unwrap()
    }

    #[test]
    fn the_filter_changes_live_and_a_bad_one_changes_nothing() {
        let kept = Kept::default();
        let writer = kept.clone();
        let (log, subscriber) = Log::build(Format::Json, "info", move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "room", "unseen");
            log.set("warn,room=debug").unwrap();
            tracing::debug!(target: "room", peer = 7, "seen");
            tracing::info!(target: "other", "unseen");
            assert!(matches!(log.set("room=loudly"), Err(Error::BadFilter { .. })));
            assert!(matches!(log.set(" "), Err(Error::BadFilter { .. })));
            tracing::debug!(target: "room", "seen too");
            assert!(log.filter().contains("room=debug"), "{}", log.filter());
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["seen", "seen too"]);
        assert_eq!(lines[0]["peer"], 7);
    }
}

//! The injector as it stands: `injector.yaml` and the roots, read again when either changes.
//!
//! Before it: the chart's ConfigMap, mounted as a file; the trust bundle. After it: `serve` takes the
//! injector that holds at the moment of a request.
//!
//! Invariant: settings that cannot be used change nothing: the last good ones stay, and a gauge says so.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use weft_control_plane_core::inject::{Injector, InjectorConfig};

use super::metrics::InjectMetrics;
use crate::authority::Authority;
use crate::files;

/// Time between looks at the file. Source: the kubelet renews mounted ConfigMaps once a minute or so.
const LOOK: Duration = Duration::from_secs(5);
/// Largest file that is read. Source: a ConfigMap holds 1 MiB at most.
const FILE_LIMIT: u64 = 1024 * 1024;

/// The injector, swapped live.
#[derive(Debug)]
pub struct Settings {
    path: PathBuf,
    authority: Arc<Authority>,
    current: ArcSwapOption<Injector>,
    taken: watch::Sender<()>,
    metrics: InjectMetrics,
    told: Mutex<Option<String>>,
}

/// Reads `injector.yaml`.
///
/// # Errors
/// The file cannot be read, or holds what is no InjectorConfig; the message says where.
pub fn read_settings(path: &Path) -> anyhow::Result<InjectorConfig> {
    let text = files::read_limited(path, FILE_LIMIT)?;
    let text = std::str::from_utf8(&text).context("not UTF-8")?;
    let config: InjectorConfig = serde_saphyr::from_str(text)?;
    config.check()?;
    Ok(config)
}

impl Settings {
    /// Reads them for the first time.
    pub fn open(path: PathBuf, authority: Arc<Authority>, metrics: InjectMetrics) -> Self {
        let current = ArcSwapOption::empty();
        let taken = watch::Sender::new(());
        let settings = Self { path, authority, current, taken, metrics, told: Mutex::new(None) };
        settings.look();
        settings
    }

    /// The injector that holds now; none: there were no good settings yet.
    pub fn current(&self) -> Option<Arc<Injector>> {
        self.current.load_full()
    }

    /// Tells whenever another injector was taken.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.taken.subscribe()
    }

    /// Looks at the file now and then, and at once when the roots change.
    ///
    /// # Cancel safety
    /// Dropping it ends the looking; the current injector stays.
    pub async fn follow(&self) {
        let mut changes = self.authority.changes();
        loop {
            tokio::select! {
                // The authority lives as long as this value, so that this waits as long as nothing changes.
                _ = changes.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            self.look();
        }
    }

    /// Takes what is there, if it is good and new.
    pub fn look(&self) {
        let found = injector(&self.path, &self.authority.anchors_pem());
        self.metrics.settings_broken.set(i64::from(found.is_err()));
        match found {
            Ok(injector) => {
                self.tell(None);
                if self.current.load_full().is_none_or(|current| *current != injector) {
                    self.current.store(Some(Arc::new(injector)));
                    self.taken.send_replace(());
                    tracing::info!("the injector's settings were taken");
                }
            }
            Err(error) => self.tell(Some(format!("{error:#}"))),
        }
    }

    /// One line per problem, not one per look.
    fn tell(&self, problem: Option<String>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != problem {
            if let Some(problem) = &problem {
                tracing::error!(
                    problem,
                    "the injector's settings cannot be used; the last good ones stay, if there were any"
                );
            }
            *told = problem;
        }
    }
}

fn injector(path: &Path, roots: &str) -> anyhow::Result<Injector> {
    let config = read_settings(path).with_context(|| path.display().to_string())?;
    Injector::new(config, roots).with_context(|| path.display().to_string())
}

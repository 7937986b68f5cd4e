//! How the sidecar stands, for its metrics: what certifier and subscriber report, and the trusted roots.
//!
//! The chores look at each change.
//!
//! Invariant: roots are read only when they are others than at the last look.

use std::sync::Arc;
use std::time::SystemTime;

use weft_proxy_net::tls::validity;

use super::chores::Desk;
use crate::adopt::Trust;
use crate::certify::unix;
use crate::metrics::own::{CertificateState, ConfigState};

/// What the roots said when they were last read.
#[derive(Debug, Default)]
pub(super) struct Standing {
    trust: Option<Arc<Trust>>,
    roots: Vec<Vec<u8>>,
    changed: u64,
    first_end: u64,
}

impl Standing {
    /// Shows how the sidecar stands now.
    pub(super) fn show(&mut self, desk: &Desk) {
        self.read(desk.credentials.trust());
        let plain = desk.plane.telemetry.metrics.plain();
        let stream = desk.stream.borrow();
        plain.config.set(ConfigState {
            generation: stream.generation,
            adopted_at: stream.last_epoch,
            adopted: stream.epochs,
            refused: stream.refusals,
            refused_now: stream.refused.len() as u64,
            connected: stream.connected,
            since: stream.since,
            connects: stream.connects,
            disconnects: stream.disconnects,
        });
        let certificate = desk.certificate.borrow();
        plain.certificate.set(CertificateState {
            obtained: certificate.taken,
            failed: certificate.failed,
            issued: certificate.issued,
            renew_after: certificate.renew_after,
            not_after: certificate.not_after,
            roots: self.roots.len() as u64,
            roots_changed: self.changed,
            root_not_after: self.first_end,
        });
    }

    fn read(&mut self, trust: Option<Arc<Trust>>) {
        let same = match (&self.trust, &trust) {
            (Some(known), Some(trust)) => Arc::ptr_eq(known, trust),
            (known, trust) => known.is_none() && trust.is_none(),
        };
        if same {
            return;
        }
        let roots = trust.as_deref().map(|trust| trust.roots.as_slice()).unwrap_or_default();
        let ends = roots.iter().filter_map(validity).map(|(_, until)| until.as_secs());
        self.first_end = ends.min().unwrap_or(0);
        let roots: Vec<Vec<u8>> = roots.iter().map(|root| root.to_vec()).collect();
        if roots != self.roots {
            self.changed = unix(SystemTime::now());
            self.roots = roots;
        }
        self.trust = trust;
    }
}

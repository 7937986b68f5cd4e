//! What became of every object, and of which of them something new is to be said.
//!
//! Before it: `take` tells the report of every compile. After it: `conditions::writer`, on the replica
//! that leads.
//!
//! Invariant: a report is shared, never copied; what was seen last is held to compare.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_control_plane_core::model::{Kind, ObjectKey};
use weft_control_plane_core::report::{ObjectReport, Report};

use crate::take::Reports;

/// The newest report that was looked at.
pub(super) struct Seen {
    reports: Reports,
    last: Arc<Report>,
}

impl Seen {
    /// Nothing was looked at yet.
    pub(super) fn new(reports: Reports) -> Self {
        Self { reports, last: Arc::default() }
    }

    /// Looks at the newest report: the objects of which it says something else than the one before.
    pub(super) fn look(&mut self) -> BTreeSet<ObjectKey> {
        let newest = Arc::clone(&self.reports.borrow_and_update());
        let before = std::mem::replace(&mut self.last, newest);
        differences(&before, &self.last)
    }

    /// What the report that was looked at says of an object.
    pub(super) fn of(&self, key: &ObjectKey) -> Option<&ObjectReport> {
        self.last.objects.get(key)
    }

    /// Objects with a status of which something is said.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.last.objects.keys().filter(|key| has_status(key.kind))
    }

    /// Waits for a newer report; false: there will be none.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn changed(&mut self) -> bool {
        self.reports.changed().await.is_ok()
    }
}

fn differences(before: &Report, now: &Report) -> BTreeSet<ObjectKey> {
    let (before, now) = (&before.objects, &now.objects);
    let new = now.iter().filter(|(key, report)| before.get(key) != Some(report)).map(|(key, _)| key);
    let gone = before.keys().filter(|key| !now.contains_key(key));
    new.chain(gone).filter(|key| has_status(key.kind)).cloned().collect()
}

/// Whether a kind has a status that is ours to write.
fn has_status(kind: Kind) -> bool {
    match kind {
        Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TlsRoute
        | Kind::TcpRoute
        | Kind::UdpRoute
        | Kind::AuthorizationPolicy
        | Kind::TrafficPolicy
        | Kind::TlsPolicy
        | Kind::TelemetryPolicy
        | Kind::Mesh => true,
        Kind::Service | Kind::EndpointSlice | Kind::Pod | Kind::Node | Kind::Namespace => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_anew_of_objects_with_a_status_is_looked_at() {
        let (sender, reports) = tokio::sync::watch::channel(Arc::<Report>::default());
        let mut seen = Seen::new(reports);
        assert!(seen.look().is_empty());
        let key = |kind, name: &str| ObjectKey::new(kind, "shop", name);
        let (route, service) = (key(Kind::HttpRoute, "r"), key(Kind::Service, "s"));
        let mut report = Report::default();
        report.objects.insert(route.clone(), ObjectReport::default());
        report.objects.insert(service, ObjectReport::default());
        sender.send_replace(Arc::new(report.clone()));
        assert_eq!(seen.look(), BTreeSet::from([route.clone()]));
        sender.send_replace(Arc::new(report.clone()));
        assert!(seen.look().is_empty(), "an equal report is no news");

        // Deleted and made again within one look: only its UID tells.
        let again = ObjectReport { uid: Some("2".to_owned()), ..ObjectReport::default() };
        report.objects.insert(route.clone(), again);
        sender.send_replace(Arc::new(report.clone()));
        assert_eq!(seen.look(), BTreeSet::from([route.clone()]));
        report.objects.remove(&route);
        sender.send_replace(Arc::new(report));
        assert_eq!((seen.look(), seen.of(&route)), (BTreeSet::from([route]), None));
    }
}

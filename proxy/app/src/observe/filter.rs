//! Which records a tap wants.
//!
//! Invariant: asking allocates nothing; it happens on the data threads.

use http::Method;
use rustc_hash::FxHashSet;
use weft_proto::names::Workload;
use weft_proto::v1;
use weft_proxy_core::Moment;

use crate::metrics::edge::{Direction, EdgeLabels, Party};
use crate::record::entry::Entry;

/// Longest text of a question that is compared with. Source: what a record keeps of a path.
const TEXT: usize = 2_048;

/// What a record must be like.
#[derive(Debug)]
pub(super) struct Filter {
    since: Moment,
    from: Option<End>,
    to: Option<End>,
    direction: Option<Direction>,
    method: Option<Method>,
    path: String,
    status: Option<(u16, u16)>,
    identity: String,
    refused: bool,
}

/// One end of an edge.
#[derive(Debug)]
enum End {
    /// Workload of these names.
    Named { namespace: String, names: FxHashSet<String> },
    /// The pod that this sidecar stands beside.
    Own,
    /// Everybody in a namespace.
    Namespace(String),
    /// What calls of a service are labelled with begins so.
    Service(String),
}

/// Which side of an edge is looked at.
#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

impl Filter {
    /// What is asked of the sidecar of `own`, from `since` on.
    ///
    /// # Errors
    /// It asks for what is not known here.
    pub(super) fn new(asked: &v1::TapQuestion, own: &Workload, since: Moment) -> Result<Self, String> {
        let direction = match asked.direction.as_str() {
            "" => None,
            "inbound" => Some(Direction::Inbound),
            "outbound" => Some(Direction::Outbound),
            other => return Err(format!("a direction {other:?} is not known here")),
        };
        let method = match asked.method.as_str() {
            "" => None,
            method => Some(Method::try_from(method).map_err(|_| format!("{method:?} is no method"))?),
        };
        if asked.path.len() > TEXT || asked.identity.len() > TEXT {
            return Err(format!("a path or identity of more than {TEXT} bytes"));
        }
        let number = |status: u32| u16::try_from(status).map_err(|_| format!("{status} is no status"));
        let status = match (number(asked.status_from)?, number(asked.status_to)?) {
            (0, 0) => None,
            range => Some(range),
        };
        Ok(Self {
            since,
            from: asked.from.as_ref().map(|subject| end(subject, own)).transpose()?.flatten(),
            to: asked.to.as_ref().map(|subject| end(subject, own)).transpose()?.flatten(),
            direction,
            method,
            path: asked.path.clone(),
            status,
            identity: asked.identity.clone(),
            refused: asked.refused,
        })
    }

    /// Whether a record that closed is wanted. What began before the tap was not watched from the start.
    pub(super) fn wants(&self, entry: &Entry) -> bool {
        let status = entry.status.map_or(0, |status| status.as_u16());
        entry.probe.is_none()
            && entry.started >= self.since
            && self.direction.is_none_or(|direction| direction == entry.direction)
            && self.method.as_ref().is_none_or(|method| entry.method.as_ref() == Some(method))
            && (self.path.is_empty() || (!entry.connection && entry.path.starts_with(&self.path)))
            && self.status.is_none_or(|(from, to)| (from..=to).contains(&status))
            && (!self.refused || entry.reason.is_some())
            && self.parties(entry)
    }

    fn parties(&self, entry: &Entry) -> bool {
        if self.from.is_none() && self.to.is_none() && self.identity.is_empty() {
            return true;
        }
        let Some(labels) = entry.edge.as_ref().map(|edge| edge.labels()) else { return false };
        let at = |end: &Option<End>, side| end.as_ref().is_none_or(|end| end.is(labels, side));
        at(&self.from, Side::Source) && at(&self.to, Side::Destination) && self.identities(labels)
    }

    fn identities(&self, labels: &EdgeLabels) -> bool {
        let is = |party: &Party| party.identity.as_ref().is_some_and(|own| own.as_str() == self.identity);
        self.identity.is_empty() || is(&labels.source) || is(&labels.destination)
    }
}

impl End {
    fn is(&self, labels: &EdgeLabels, side: Side) -> bool {
        let party = match side {
            Side::Source => &labels.source,
            Side::Destination => &labels.destination,
        };
        match self {
            Self::Named { namespace, names } => {
                party.namespace.as_str() == namespace && names.contains(party.workload.as_str())
            }
            Self::Own => matches!(
                (side, labels.direction),
                (Side::Source, Direction::Outbound) | (Side::Destination, Direction::Inbound)
            ),
            Self::Namespace(namespace) => party.namespace.as_str() == namespace,
            Self::Service(start) => labels.service.as_str().starts_with(start.as_str()),
        }
    }
}

/// The end that a subject means; `None`: anybody.
fn end(subject: &v1::Subject, own: &Workload) -> Result<Option<End>, String> {
    let v1::Subject { kind, name, namespace, also } = subject;
    Ok(Some(match kind.as_str() {
        "" => return Ok(None),
        "namespace" => End::Namespace(name.clone()),
        "workload" | "pod" | "service" if name.is_empty() => End::Namespace(namespace.clone()),
        "service" => End::Service(format!("{namespace}/{name}:")),
        "pod" if own.namespace == *namespace && own.pod == *name => End::Own,
        "workload" | "pod" => {
            End::Named { namespace: namespace.clone(), names: also.iter().chain([name]).cloned().collect() }
        }
        other => return Err(format!("a kind {other:?} is not known here")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::metrics::edge::{Protocol, Security};
    use http::StatusCode;
    use weft_proxy_core::{Identity, Name, Reason};

    fn subject(kind: &str, name: &str) -> Option<v1::Subject> {
        Some(v1::Subject {
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: "shop".to_owned(),
            also: Vec::new(),
        })
    }

    fn party(name: &str) -> Party {
        let identity = Identity::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap();
        Party { workload: Name::from(name), namespace: Name::from("shop"), identity: Some(identity) }
    }

    fn entry() -> Box<Entry> {
        let metrics = Metrics::default();
        let mut entry = Entry::blank();
        entry.direction = Direction::Outbound;
        entry.method = Some(Method::GET);
        entry.path.push_str("/items/7");
        entry.status = Some(StatusCode::NOT_FOUND);
        entry.started = Moment(10);
        entry.edge = Some(metrics.edge(
            0,
            &EdgeLabels {
                direction: Direction::Outbound,
                protocol: Protocol::Http,
                security: Security::MutualTls,
                source: party("web"),
                destination: party("catalog-0"),
                service: Name::from("shop/catalog:80"),
                route: Name::from("default"),
            },
        ));
        entry
    }

    fn wants(asked: &v1::TapQuestion, entry: &Entry) -> bool {
        let own = Workload { namespace: "shop".to_owned(), pod: "web-0".to_owned() };
        Filter::new(asked, &own, Moment(5)).unwrap().wants(entry)
    }

    #[test]
    fn every_condition_that_is_said_must_hold() {
        let all = v1::TapQuestion::default();
        assert!(wants(&all, &entry()));
        let identity = "spiffe://cluster.local/ns/shop/sa/web".to_owned();
        for (asked, matches) in [
            (v1::TapQuestion { method: "GET".into(), ..all.clone() }, true),
            (v1::TapQuestion { method: "POST".into(), ..all.clone() }, false),
            (v1::TapQuestion { path: "/items".into(), ..all.clone() }, true),
            (v1::TapQuestion { path: "/carts".into(), ..all.clone() }, false),
            (v1::TapQuestion { status_from: 400, status_to: 499, ..all.clone() }, true),
            (v1::TapQuestion { status_from: 500, status_to: 599, ..all.clone() }, false),
            (v1::TapQuestion { direction: "outbound".into(), ..all.clone() }, true),
            (v1::TapQuestion { direction: "inbound".into(), ..all.clone() }, false),
            (v1::TapQuestion { identity, ..all.clone() }, true),
            (v1::TapQuestion { identity: "spiffe://a/ns/b/sa/c".into(), ..all.clone() }, false),
            (v1::TapQuestion { from: subject("workload", "web"), ..all.clone() }, true),
            (v1::TapQuestion { from: subject("pod", "web-0"), ..all.clone() }, true),
            (v1::TapQuestion { from: subject("pod", "web-1"), ..all.clone() }, false),
            (v1::TapQuestion { to: subject("pod", "catalog-0"), ..all.clone() }, true),
            (v1::TapQuestion { to: subject("service", "catalog"), ..all.clone() }, true),
            (v1::TapQuestion { to: subject("service", "cat"), ..all.clone() }, false),
            (v1::TapQuestion { to: subject("workload", "catalog"), ..all.clone() }, false),
            (v1::TapQuestion { to: subject("namespace", "shop"), ..all.clone() }, true),
            (v1::TapQuestion { refused: true, ..all.clone() }, false),
        ] {
            assert_eq!(wants(&asked, &entry()), matches, "{asked:?}");
        }
        let mut of_a_pod = subject("workload", "catalog").unwrap();
        of_a_pod.also.push("catalog-0".to_owned());
        assert!(wants(&v1::TapQuestion { to: Some(of_a_pod), ..all.clone() }, &entry()));
        let mut refused = entry();
        refused.reason = Some(Reason::DeniedByPolicy);
        assert!(wants(&v1::TapQuestion { refused: true, ..all.clone() }, &refused));
        refused.started = Moment(1);
        assert!(!wants(&all, &refused), "it began before");
    }

    #[test]
    fn what_is_not_known_is_refused_in_words() {
        let own = Workload { namespace: "shop".to_owned(), pod: "web-0".to_owned() };
        for asked in [
            v1::TapQuestion { direction: "sideways".into(), ..Default::default() },
            v1::TapQuestion { method: "G E T".into(), ..Default::default() },
            v1::TapQuestion { status_from: 70_000, ..Default::default() },
            v1::TapQuestion { path: "x".repeat(5_000), ..Default::default() },
            v1::TapQuestion { to: subject("planet", "mars"), ..Default::default() },
        ] {
            assert!(Filter::new(&asked, &own, Moment(0)).is_err(), "{asked:?}");
        }
    }
}

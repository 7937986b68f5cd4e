//! What a reason means and what to do about it, in words for the person who looks.
//!
//! Stands beside the closed list: `weft explain`, `weft tap` and `docs/reasons.md` show these sentences.
//!
//! Invariant: no two reasons have the same words: a new one that gets another's fails the tests.
//! Invariant: a remedy is something that its reader can do.

use super::{Blame, Reason};

/// A reason, put for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What happened.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

const fn advice(meaning: &'static str, remedy: &'static str) -> Advice {
    Advice { meaning, remedy }
}

impl Reason {
    /// What happened, in one sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.advice().meaning
    }

    /// What to do about it, in one sentence.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        self.advice().remedy
    }

    /// What happened, and what to do.
    #[must_use]
    pub fn advice(self) -> Advice {
        match self.blame() {
            Blame::Downstream => self.of_downstream(),
            Blame::Config => self.of_configuration(),
            Blame::Policy => self.of_policy(),
            Blame::Us => self.of_the_mesh(),
            Blame::Upstream => self.of_upstream(),
        }
    }

    fn of_downstream(self) -> Advice {
        match self {
            Self::MalformedHost => advice(
                "Host or :authority is missing, repeated, invalid or contradictory.",
                "Make the client send exactly one valid Host; behind a gateway, look at what it rewrites.",
            ),
            Self::MalformedFraming => advice(
                "Content-Length and Transfer-Encoding do not tell one length: the shape of request smuggling.",
                "Find who sent it (src in the log); a correct client sends one of the two, once.",
            ),
            Self::MalformedPath => advice(
                "The path can be read differently by different servers, e.g. with a fragment or a control character.",
                "Percent-encode the path where the client builds it.",
            ),
            Self::HeadersTooLarge => advice(
                "The header fields are more, or larger, than the sidecar takes.",
                "Shorten cookies and tokens, or raise the sidecar's limits --max-header-bytes and --max-headers.",
            ),
            Self::HeaderTimeout => advice(
                "The request's head did not arrive whole within its deadline.",
                "Look for a client that stalls or a network that loses packets; a slow head is also an attack.",
            ),
            Self::AmbiguousPath => advice(
                "A policy judges paths, and this one holds %2F, %5C or ; which servers read differently.",
                "Send the path plainly, or write the policy for the port without `paths`.",
            ),
            Self::UpgradeRefused => advice(
                "The request asked for an upgrade that cannot be passed on.",
                "Upgrade over HTTP/1.1 with one Connection and one Upgrade field, or declare the port opaque.",
            ),
            Self::IdleTimeout => advice(
                "No byte moved on the connection for longer than the idle limit.",
                "Send keep-alives more often than the limit, or raise --tcp-idle-timeout of the sidecar.",
            ),
            Self::DownstreamTls => advice(
                "The caller's TLS handshake with the sidecar failed.",
                "Compare the roots of both sides (`weft check`), and look at weft_tls_handshakes_total by outcome.",
            ),
            Self::DownstreamProtocol => advice(
                "The caller broke the protocol it spoke, e.g. with an invalid frame of HTTP/2.",
                "Find the caller in the log (src) and update its HTTP library.",
            ),
            Self::Cancelled => advice(
                "The caller went away before the answer was complete.",
                "Compare the caller's own timeout with the time the answer takes; alone it is no failure of the mesh.",
            ),
            _ => advice(
                "The request line, a field name or a field value breaks the grammar of HTTP.",
                "Find who sent it (src in the log); what is no HTTP needs its port declared opaque.",
            ),
        }
    }

    fn of_configuration(self) -> Advice {
        match self {
            Self::InvalidBackend => advice(
                "The rule has no backend, or refers to a Service or port that does not exist.",
                "Read the route's status (ResolvedRefs) with kubectl or `weft status`, and correct backendRefs.",
            ),
            Self::InvalidFilter => advice(
                "A filter of the rule could not be resolved or applied to this request.",
                "Read the route's status, and correct the filter that the message names.",
            ),
            Self::ConfigReply => advice(
                "The route answers this request itself, as configured: a redirect or a fixed reply.",
                "Nothing, if that is meant; `weft explain` names the rule.",
            ),
            Self::UnknownDestination => advice(
                "Nothing in the mesh is at this address, and the Mesh says to refuse such destinations.",
                "Make a Service for it, or set unknownDestination: PassThrough in the Mesh.",
            ),
            _ => advice(
                "Routes are attached to this Service, and no rule of theirs matches the request.",
                "Ask `weft explain` why each rule does not match; add a rule, or a catch-all with path prefix /.",
            ),
        }
    }

    fn of_policy(self) -> Advice {
        match self {
            Self::MtlsRequired => advice(
                "The caller came in plaintext where mutual TLS is demanded.",
                "Give the caller a sidecar, or set a TlsPolicy with mode Permissive for this port.",
            ),
            _ => advice(
                "An AuthorizationPolicy denies it, or there are Allow policies and none of their rules allows it.",
                "The log and `weft explain` name the policy and rule; allow the caller's identity there if it may.",
            ),
        }
    }

    fn of_the_mesh(self) -> Advice {
        match self {
            Self::PolicyMissing => advice(
                "A policy applies here and has not arrived: everything is denied until it has.",
                "Look at the sidecar's refusals in `weft status`; it heals by itself once the control plane answers.",
            ),
            Self::ConfigTimeout => advice(
                "The configuration for this destination did not arrive in time.",
                "Look whether the control plane runs and is connected: `weft status`, weft_control_connected.",
            ),
            Self::OverLimit => advice(
                "A limit of the sidecar is reached: connections, memory, or a peer's control frames.",
                "weft_limits_hit_total names the limit; raise it, or stop the peer that floods.",
            ),
            Self::Draining => advice(
                "The sidecar is leaving and had to end what was still in flight.",
                "Raise drain.deadline of the Mesh (and the pod's grace period) for longer exchanges.",
            ),
            _ => advice(
                "A fault of the sidecar or of its redirection, not of the traffic.",
                "Look at the sidecar's log at this time, and report it; a missing redirect is mended by `weft proxy init`.",
            ),
        }
    }

    fn of_upstream(self) -> Advice {
        match self {
            Self::CircuitOpen => advice(
                "All endpoints of the backend are ejected because they failed again and again.",
                "Mend the endpoints; they are tried again by themselves. TrafficPolicy.fallback serves meanwhile.",
            ),
            Self::PendingOverflow => advice(
                "Too many requests wait for a connection to the backend.",
                "Add endpoints, or raise limits.maxPendingRequests of the TrafficPolicy.",
            ),
            Self::ConnectionOverflow => advice(
                "All connections to the endpoint that are allowed are taken, and none came free in time.",
                "Add endpoints, or raise limits.maxConnections of the TrafficPolicy.",
            ),
            Self::ConnectTimeout => advice(
                "Connect or TLS handshake with the endpoint took longer than its deadline.",
                "Look at the endpoint's node and network policy; TrafficPolicy.connectTimeout sets the deadline.",
            ),
            Self::ConnectRefused => advice(
                "The endpoint refused the connection, or cannot be reached.",
                "Look whether its process listens on the port that the Service targets.",
            ),
            Self::UpstreamReset => advice(
                "The endpoint closed or reset before its answer was complete.",
                "Look at the endpoint's log and restarts; its keep-alive may be shorter than its answers.",
            ),
            Self::WrongIdentity => advice(
                "The endpoint proved another identity than the one it is known to have.",
                "An address was reused, or somebody poses as the endpoint: compare dst.identity with the pod's account.",
            ),
            Self::TlsFailure => advice(
                "The TLS handshake with the endpoint's sidecar failed.",
                "Compare certificates and roots of both sides: `weft check`.",
            ),
            Self::UpstreamProtocol => advice(
                "The endpoint's answer is not valid for the protocol of its port.",
                "Declare what it speaks (appProtocol), or mend its answer.",
            ),
            Self::RequestTimeout => advice(
                "The exchange, retries included, took longer than its deadline.",
                "The deadline is the rule's timeouts.request or the TrafficPolicy's requestTimeout: `weft explain` says which.",
            ),
            Self::AttemptTimeout => advice(
                "The last attempt took longer than the rule's deadline for one attempt.",
                "The deadline is the rule's timeouts.backendRequest.",
            ),
            _ => advice(
                "The backend has no ready endpoint.",
                "Look at the Service's selector and at the readiness of its pods: kubectl get endpointslices.",
            ),
        }
    }
}

/// The page `docs/reasons.md`.
#[must_use]
pub fn page() -> String {
    use std::fmt::Write as _;
    let mut page = String::from(HEAD);
    for reason in super::ALL {
        // A string takes every byte.
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | `{}` | {} | {} |",
            reason.name(),
            reason.status().as_u16(),
            reason.grpc().name(),
            reason.flags(),
            reason.blame().name(),
            reason.meaning(),
            reason.remedy()
        );
    }
    page
}

const HEAD: &str = "# Reasons

Every way in which a request or connection can end without the upstream's own answer. The code stands in the answer's
field `weft-reason`, in the access log (`reason`, with `blame` and Envoy's `flags`), in the metrics `weft_refusals_total` and
`weft_requests_total`, in spans (`weft.reason`), and in `weft tap` and `weft explain`. Beside it an answer of the sidecar's own carries
`weft-request-id`, by which `weft explain --request ID` finds what was decided.

`blame` says who has to look: `downstream` the caller, `upstream` the endpoint, `policy` who wrote the policy or wants in, `config` who
wrote the routes, `us` the mesh. Relayed connections have no status: they are reset.

Made from the table in `proxy/core/src/reason/advice.rs`; a test keeps the two equal, and another (`tests/reasons.rs`) produces every
code through a real sidecar.

| Reason | HTTP | gRPC | Envoy | Blame | Meaning | What to do |
|---|---|---|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_reasons_is_as_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reasons.md");
        if std::env::var("WEFT_GOLDEN").is_ok_and(|value| value == "write") {
            std::fs::write(path, page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), page(), "WEFT_GOLDEN=write writes it");
    }

    #[test]
    fn no_two_reasons_mean_the_same() {
        let meanings: std::collections::HashSet<_> = super::super::ALL.map(Reason::meaning).into();
        assert_eq!(meanings.len(), super::super::ALL.len());
        for reason in super::super::ALL {
            let Advice { meaning, remedy } = reason.advice();
            assert!(meaning.ends_with('.') && remedy.ends_with('.'), "{reason:?}");
            assert!(!meaning.contains('|') && !remedy.contains('|'), "{reason:?} breaks the page's table");
        }
    }
}

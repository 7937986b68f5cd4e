//! Every family that a sidecar shows: the one table of names, labels and meanings.
//!
//! `render` writes them in this order, `docs/metrics.md` is made from it, and a test finds each of them on
//! a real sidecar.
//!
//! Invariant: names and labels are what operators build on: they change by addition only.

use weft_exposition::{Family, Group, process};

/// What tells one edge of the mesh from another.
///
/// Source: Istio's standard labels, so that its dashboards map.
pub static EDGE: Group = Group {
    name: "edge",
    labels: &[
        "direction",
        "source_workload",
        "source_workload_namespace",
        "source_principal",
        "destination_workload",
        "destination_workload_namespace",
        "destination_principal",
        "destination_service",
        "destination_service_name",
        "destination_service_namespace",
        "request_protocol",
        "connection_security_policy",
        "route",
    ],
};

/// A service port that the sidecar calls.
pub static BACKEND: Group = Group { name: "backend", labels: &["destination_service"] };

const WHEN_HTTP: &str = "once a request of the edge ended";
const WHEN_TCP: &str = "once a connection of the edge was relayed";
const WHEN_BACKEND: &str = "once the service was called";

/// Requests.
pub static REQUESTS: Family = Family::counter("weft_requests", "Requests that ended")
    .of(&EDGE)
    .by(&["response_code", "grpc_response_status", "response_flags", "reason"])
    .appears(WHEN_HTTP);
/// Durations.
pub static DURATION: Family =
    Family::histogram("weft_request_duration_seconds", "Time from a request's head to the end of its answer")
        .of(&EDGE)
        .appears(WHEN_HTTP);
/// Time to first byte.
pub static FIRST_BYTE: Family =
    Family::histogram("weft_response_first_byte_seconds", "Time from a request's head to its answer's head")
        .of(&EDGE)
        .appears("once a request of the edge was answered");
/// Sizes of requests.
pub static REQUEST_SIZE: Family =
    Family::histogram("weft_request_size_bytes", "Sizes of request bodies").of(&EDGE).appears(WHEN_HTTP);
/// Sizes of answers.
pub static RESPONSE_SIZE: Family =
    Family::histogram("weft_response_size_bytes", "Sizes of response bodies").of(&EDGE).appears(WHEN_HTTP);
/// Bytes of requests.
pub static REQUEST_BYTES: Family =
    Family::counter("weft_request_bytes", "Bytes of request bodies").of(&EDGE).appears(WHEN_HTTP);
/// Bytes of answers.
pub static RESPONSE_BYTES: Family =
    Family::counter("weft_response_bytes", "Bytes of response bodies").of(&EDGE).appears(WHEN_HTTP);
/// Retries.
pub static RETRIES: Family =
    Family::counter("weft_retries", "Attempts beyond the first").of(&EDGE).appears(WHEN_HTTP);
/// Connections opened.
pub static TCP_OPENED: Family =
    Family::counter("weft_tcp_connections_opened", "Connections opened that are relayed as bytes")
        .of(&EDGE)
        .appears(WHEN_TCP);
/// Connections closed.
pub static TCP_CLOSED: Family =
    Family::counter("weft_tcp_connections_closed", "Connections closed that were relayed as bytes")
        .of(&EDGE)
        .appears(WHEN_TCP);
/// Bytes from downstream.
pub static TCP_RECEIVED: Family =
    Family::counter("weft_tcp_received_bytes", "Bytes relayed from downstream").of(&EDGE).appears(WHEN_TCP);
/// Bytes to downstream.
pub static TCP_SENT: Family =
    Family::counter("weft_tcp_sent_bytes", "Bytes relayed to downstream").of(&EDGE).appears(WHEN_TCP);
/// Edges beyond the bound.
pub static SERIES_OVERFLOW: Family = Family::counter(
    "weft_series_overflow",
    "Edges counted as overflow because the bound on series was reached",
);

/// Ejections.
pub static EJECTIONS: Family =
    Family::counter("weft_ejections", "Endpoints ejected").of(&BACKEND).appears(WHEN_BACKEND);
/// Restorations.
pub static RESTORATIONS: Family =
    Family::counter("weft_restorations", "Ejected endpoints taken back").of(&BACKEND).appears(WHEN_BACKEND);
/// Limits of a backend.
pub static BACKEND_OVERFLOWS: Family =
    Family::counter("weft_backend_overflows", "Requests refused by a limit of the backend")
        .of(&BACKEND)
        .appears(WHEN_BACKEND);
/// Fallbacks.
pub static FALLBACKS: Family =
    Family::counter("weft_fallbacks", "Requests sent to the fallback").of(&BACKEND).appears(WHEN_BACKEND);
/// Retries not made.
pub static BUDGET_SPENT: Family =
    Family::counter("weft_retry_budget_spent", "Retries not made because the budget was spent")
        .of(&BACKEND)
        .appears(WHEN_BACKEND);
/// Circuits that opened.
pub static CIRCUIT_OPENINGS: Family =
    Family::counter("weft_circuit_openings", "Times a worker found all endpoints ejected")
        .of(&BACKEND)
        .appears(WHEN_BACKEND);
/// Endpoints that take their share.
pub static ENDPOINTS_READY: Family =
    Family::gauge("weft_endpoints_ready", "Endpoints that take requests now, over all workers")
        .of(&BACKEND)
        .appears(WHEN_BACKEND);
/// Endpoints that are out.
pub static ENDPOINTS_EJECTED: Family =
    Family::gauge("weft_endpoints_ejected", "Endpoints ejected now, over all workers")
        .of(&BACKEND)
        .appears(WHEN_BACKEND);
/// The circuit's state.
pub static CIRCUIT_OPEN: Family =
    Family::gauge("weft_circuit_open", "1 while all endpoints are ejected on a worker")
        .of(&BACKEND)
        .appears(WHEN_BACKEND);
/// The queue.
pub static PENDING: Family = Family::gauge("weft_requests_pending", "Requests waiting for a connection")
    .of(&BACKEND)
    .appears(WHEN_BACKEND);

/// What policies decided.
pub static VERDICTS: Family =
    Family::counter("weft_policy_verdicts", "Decisions of authorization policies, by rule")
        .by(&["policy", "rule", "verdict"])
        .appears("once a policy decided");
/// What ended with a reason of ours.
pub static REFUSALS: Family = Family::counter(
    "weft_refusals",
    "Requests and connections that ended with a reason of the sidecar's own",
)
.by(&["direction", "reason", "blame"])
.appears("once there was one for the reason");

/// Handshakes.
pub static HANDSHAKES: Family =
    Family::counter("weft_tls_handshakes", "TLS handshakes of the mesh").by(&["direction", "outcome"]);
/// What handshakes agreed on.
pub static TLS_CONNECTIONS: Family =
    Family::counter("weft_tls_connections", "TLS connections of the mesh, by what was agreed").by(&[
        "direction",
        "version",
        "key_exchange",
    ]);
/// Why handshakes failed.
pub static TLS_FAILURES: Family =
    Family::counter("weft_tls_failures", "TLS handshakes of the mesh that failed, by why")
        .by(&["direction", "cause"])
        .appears("once one failed for the cause");
/// Guessed protocols.
pub static GUESSES: Family = Family::counter(
    "weft_protocol_guesses",
    "Connections whose protocol was not declared, by what was found",
)
.by(&["direction", "outcome"]);
/// Probes.
pub static PROBES: Family =
    Family::counter("weft_probes", "Probes of the kubelet, by kind; they are no requests").by(&["kind"]);
/// Lookups.
pub static LOOKUPS: Family =
    Family::counter("weft_lookups", "Searches for a destination's configuration").by(&["outcome"]);
/// Names resolved.
pub static DNS: Family = Family::counter(
    "weft_dns_lookups",
    "Names that the sidecar itself resolved: its control plane's, and its collectors' where it dials them",
)
.by(&["purpose", "outcome"]);
/// Telemetry dropped.
pub static DROPPED: Family =
    Family::counter("weft_telemetry_dropped", "Log lines and spans dropped rather than waited for")
        .by(&["kind", "stage"]);
/// Spans exported.
pub static SPANS_EXPORTED: Family = Family::counter("weft_spans_exported", "Spans that a collector took");
/// Limits.
pub static LIMITS: Family = Family::counter("weft_limits_hit", "Times a limit of the sidecar was hit")
    .by(&["limit"])
    .appears("once the limit was hit");

/// Epochs.
pub static ADOPTIONS: Family =
    Family::counter("weft_config_adoptions", "Epochs of configuration taken into use");
/// Refusals of configuration.
pub static CONFIG_REFUSALS: Family =
    Family::counter("weft_config_refusals", "Resources of the configuration refused");
/// Refused now.
pub static CONFIG_REFUSED: Family = Family::gauge(
    "weft_config_refused",
    "Resources whose newest version is refused now; the last good one, if there was one, is in force",
);
/// The epoch.
pub static GENERATION: Family = Family::gauge("weft_config_generation", "Epoch of configuration in use");
/// Its age.
pub static CONFIG_ADOPTED: Family = Family::gauge(
    "weft_config_adopted_timestamp_seconds",
    "When the configuration in use was taken into use",
);
/// Streams opened.
pub static CONNECTS: Family =
    Family::counter("weft_control_connects", "Times a stream to the control plane brought configuration");
/// Streams lost.
pub static DISCONNECTS: Family =
    Family::counter("weft_control_disconnects", "Streams to the control plane that ended or did not open");
/// Connected.
pub static CONNECTED: Family =
    Family::gauge("weft_control_connected", "1 while the stream to the control plane is open");
/// Since when.
pub static CONTROL_SINCE: Family = Family::gauge(
    "weft_control_changed_timestamp_seconds",
    "When the stream to the control plane was opened or, while there is none, was lost",
)
.appears("once a stream was tried");
/// Certificates.
pub static RENEWALS: Family = Family::counter("weft_certificate_renewals", "Certificates obtained");
/// Failed attempts.
pub static RENEWAL_FAILURES: Family =
    Family::counter("weft_certificate_failures", "Attempts to obtain a certificate that failed");
/// The certificate's beginning.
pub static CERTIFICATE_ISSUED: Family =
    Family::gauge("weft_certificate_issued_timestamp_seconds", "When the certificate was obtained")
        .appears("once there is a certificate");
/// The certificate's renewal.
pub static CERTIFICATE_RENEWAL: Family =
    Family::gauge("weft_certificate_renewal_timestamp_seconds", "When the certificate is to be renewed")
        .appears("once there is a certificate");
/// The certificate's end.
pub static CERTIFICATE_EXPIRY: Family =
    Family::gauge("weft_certificate_expiry_timestamp_seconds", "When the certificate expires")
        .appears("once there is a certificate");
/// Roots.
pub static TRUST_ROOTS: Family = Family::gauge("weft_trust_roots", "Roots that are trusted");
/// The bundle's age.
pub static TRUST_ADOPTED: Family = Family::gauge(
    "weft_trust_adopted_timestamp_seconds",
    "When the trusted roots last changed, as far as this process has seen",
)
.appears("once there is a certificate");
/// The roots' end.
pub static TRUST_EXPIRY: Family =
    Family::gauge("weft_trust_expiry_timestamp_seconds", "When the first root expires")
        .appears("once there is a certificate");
/// The version.
pub static BUILD: Family =
    Family::info("weft_build", "Always 1; the version is in the label").by(&["version"]);

/// All of them, in the order of a page.
pub static CATALOG: [&Family; 60] = [
    &REQUESTS,
    &DURATION,
    &FIRST_BYTE,
    &REQUEST_SIZE,
    &RESPONSE_SIZE,
    &REQUEST_BYTES,
    &RESPONSE_BYTES,
    &RETRIES,
    &TCP_OPENED,
    &TCP_CLOSED,
    &TCP_RECEIVED,
    &TCP_SENT,
    &SERIES_OVERFLOW,
    &EJECTIONS,
    &RESTORATIONS,
    &BACKEND_OVERFLOWS,
    &FALLBACKS,
    &BUDGET_SPENT,
    &CIRCUIT_OPENINGS,
    &ENDPOINTS_READY,
    &ENDPOINTS_EJECTED,
    &CIRCUIT_OPEN,
    &PENDING,
    &VERDICTS,
    &REFUSALS,
    &HANDSHAKES,
    &TLS_CONNECTIONS,
    &TLS_FAILURES,
    &GUESSES,
    &PROBES,
    &LOOKUPS,
    &DNS,
    &DROPPED,
    &SPANS_EXPORTED,
    &LIMITS,
    &ADOPTIONS,
    &CONFIG_REFUSALS,
    &CONFIG_REFUSED,
    &GENERATION,
    &CONFIG_ADOPTED,
    &CONNECTS,
    &DISCONNECTS,
    &CONNECTED,
    &CONTROL_SINCE,
    &RENEWALS,
    &RENEWAL_FAILURES,
    &CERTIFICATE_ISSUED,
    &CERTIFICATE_RENEWAL,
    &CERTIFICATE_EXPIRY,
    &TRUST_ROOTS,
    &TRUST_ADOPTED,
    &TRUST_EXPIRY,
    &BUILD,
    &process::CPU,
    &process::RESIDENT,
    &process::VIRTUAL,
    &process::THREADS,
    &process::OPEN_FDS,
    &process::MAX_FDS,
    &process::START,
];

/// What each label says.
pub const LABELS: [(&str, &str); 29] = [
    (
        "direction",
        "`inbound`: to the pod; `outbound`: from it. A request between two sidecars is counted by both",
    ),
    (
        "source_workload",
        "the workload that calls (a Deployment and the like, not the pod); `unknown` where the mesh cannot tell",
    ),
    ("source_workload_namespace", "its namespace"),
    ("source_principal", "the identity that it proved, or `unknown`"),
    ("destination_workload", "the workload that is called"),
    ("destination_workload_namespace", "its namespace"),
    ("destination_principal", "its identity"),
    ("destination_service", "`namespace/service:port`, an outside host, or `unknown`"),
    ("destination_service_name", "the service's name alone"),
    ("destination_service_namespace", "the service's namespace alone"),
    ("request_protocol", "`http`, `grpc`, `tls` (the application's own) or `tcp`"),
    (
        "connection_security_policy",
        "the hop between the sidecars: `mutual_tls`, `none`, or `unknown` where a request ended before that was clear",
    ),
    ("route", "`namespace/route` that was taken; `default` where none is attached"),
    ("response_code", "HTTP status; `0` where there was no answer; `other` beyond the bound on outcomes"),
    ("grpc_response_status", "gRPC status, empty where it is no gRPC"),
    ("response_flags", "Envoy's flag letters for the reason, `-` where there is none"),
    ("reason", "the sidecar's own reason, see the reason codes; empty where the upstream answered"),
    ("blame", "who has to look: `downstream`, `upstream`, `policy`, `config` or `us`"),
    ("policy", "`namespace/policy`, or all whose rules do not allow"),
    ("rule", "the rule's name or number; empty where no rule matched"),
    ("verdict", "`allow`, `deny`, or `shadow_deny`: it would be denied were the policy enforced"),
    ("outcome", "how it ended"),
    ("version", "of TLS (`TLSv1.3`), or of the build"),
    ("key_exchange", "the group that was agreed: `X25519MLKEM768` withstands quantum computers"),
    (
        "cause",
        "why the handshake failed: `wrong_identity`, `certificate_expired`, `unknown_issuer`, `timed_out` and so on",
    ),
    ("kind", "which kind of probe, or of telemetry"),
    ("purpose", "whose name: `control_plane` or `collector`"),
    ("stage", "`queue`: it was full; `export`: the collector did not take it"),
    ("limit", "the limit's name, see ARCHITECTURE.md, \"Limits\""),
];

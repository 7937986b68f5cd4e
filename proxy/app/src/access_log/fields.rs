//! The fields of a line of the access log: what each is called, what it means, when it is absent.
//!
//! [`super::line`] writes them, `docs/access-log.md` is made from them.
//!
//! Invariant: names are part of what operators build on: they change by addition only.

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub weft: &'static str,
    /// Its name in the Elastic Common Schema; where that has none, in Weft's own corner of it.
    pub ecs: &'static str,
    /// What it holds.
    pub meaning: &'static str,
    /// When it is absent; empty: never.
    pub absent: &'static str,
    /// How it begins within a line: by its name, and by that in the Elastic Common Schema.
    begins: [&'static str; 2],
}

impl Field {
    /// Its beginning in the schema asked for: comma, name, colon.
    pub(super) fn begin(&self, ecs: bool) -> &'static str {
        let [weft, other] = self.begins;
        if ecs { other } else { weft }
    }
}

/// A field: its two names, what it holds, when it is absent.
macro_rules! field {
    ($weft:literal, $ecs:literal, $meaning:expr, $absent:expr $(,)?) => {
        Field {
            weft: $weft,
            ecs: $ecs,
            meaning: $meaning,
            absent: $absent,
            begins: [concat!(",\"", $weft, "\":"), concat!(",\"", $ecs, "\":")],
        }
    };
}

pub(super) const TIME: Field =
    field!("time", "@timestamp", "end of the request, RFC 3339, UTC, microseconds", "");
pub(super) const KIND: Field = field!("kind", "weft.kind", "`request` or `connection`", "");
pub(super) const REQUEST_ID: Field = field!(
    "request.id",
    "http.request.id",
    "name of the request: the caller's x-request-id, else the sidecar's own; `weft explain --request` takes it",
    "",
);
pub(super) const DIRECTION: Field =
    field!("direction", "network.direction", "`inbound` or `outbound`, seen from the pod", "");
pub(super) const PROTOCOL: Field = field!("protocol", "network.protocol", "`http`, `grpc`, `tls`, `tcp`", "");
const NO_HEAD: &str = "a connection, or an unreadable head";
pub(super) const HTTP_VERSION: Field =
    field!("http.version", "http.version", "version the caller spoke: `1.0`, `1.1`, `2`", NO_HEAD);
pub(super) const HTTP_METHOD: Field =
    field!("http.method", "http.request.method", "method of the request", NO_HEAD);
pub(super) const HTTP_PATH: Field =
    field!("http.path", "url.path", "path of the request as it came, without query", NO_HEAD);
pub(super) const HTTP_QUERY: Field = field!(
    "http.query",
    "url.query",
    "the query, the value of each parameter that is not allowed replaced by `*`",
    "no parameter is allowed, or there is no query",
);
pub(super) const HTTP_HOST: Field =
    field!("http.host", "url.domain", "host asked for, with the port if it was given", NO_HEAD);
pub(super) const HTTP_STATUS: Field =
    field!("http.status", "http.response.status_code", "status sent downstream", "none was sent");
pub(super) const GRPC_STATUS: Field =
    field!("grpc.status", "weft.grpc.status", "gRPC status sent downstream", "not gRPC, or none was sent");
const OWN_ANSWER: &str = "the upstream's own answer";
pub(super) const REASON: Field =
    field!("reason", "event.reason", "the sidecar's own [reason](reasons.md)", OWN_ANSWER);
pub(super) const BLAME: Field = field!(
    "blame",
    "weft.blame",
    "who has to look: `downstream`, `upstream`, `policy`, `config`, `us`",
    OWN_ANSWER,
);
pub(super) const FLAGS: Field =
    field!("flags", "weft.flags", "Envoy's letters for the reason; `-` where it has none", OWN_ANSWER);
pub(super) const POLICY: Field = field!(
    "policy",
    "rule.name",
    "what decided: `namespace/policy#rule`; without a rule the Allow policies of which none allows, the policy that has not arrived, the TlsPolicy or `mesh/name` that demands mTLS",
    "none did",
);
pub(super) const PROBE: Field = field!(
    "probe",
    "weft.probe",
    "the kubelet's probe that it is: `http`, `https`, `grpc`, `tcp`",
    "it is none",
);
const UNKNOWN: &str = "not known";
pub(super) const SRC_ADDRESS: Field =
    field!("src.address", "source", "address and port of the caller", UNKNOWN);
pub(super) const SRC_WORKLOAD: Field =
    field!("src.workload", "weft.source.workload", "workload that called", UNKNOWN);
pub(super) const SRC_NAMESPACE: Field =
    field!("src.namespace", "weft.source.namespace", "its namespace", UNKNOWN);
pub(super) const SRC_IDENTITY: Field =
    field!("src.identity", "weft.source.identity", "identity that it proved", "none was proved");
pub(super) const DST_ADDRESS: Field =
    field!("dst.address", "destination", "address and port that the caller wanted", UNKNOWN);
pub(super) const DST_ENDPOINT: Field =
    field!("dst.endpoint", "weft.endpoint", "address and port that the last attempt went to", "no attempt");
pub(super) const DST_SERVICE: Field = field!(
    "dst.service",
    "service.target.name",
    "service port that was called, `namespace/service:port`",
    UNKNOWN,
);
pub(super) const DST_WORKLOAD: Field =
    field!("dst.workload", "weft.destination.workload", "workload that was called", UNKNOWN);
pub(super) const DST_NAMESPACE: Field =
    field!("dst.namespace", "weft.destination.namespace", "its namespace", UNKNOWN);
pub(super) const DST_IDENTITY: Field =
    field!("dst.identity", "weft.destination.identity", "its identity", "it has none");
pub(super) const SECURITY: Field =
    field!("security", "weft.security", "the hop between the sidecars: `mutual_tls`, `none`, `unknown`", "");
const UNDECIDED: &str = "not decided";
pub(super) const ROUTE: Field = field!(
    "route",
    "weft.route",
    "route taken, `namespace/name`; `default` where none is attached",
    UNDECIDED,
);
pub(super) const RULE: Field = field!("rule", "weft.rule", "rule of the route", UNDECIDED);
pub(super) const BACKEND: Field =
    field!("backend", "weft.backend", "backend chosen, `namespace/service:port`", UNDECIDED);
pub(super) const ATTEMPTS: Field = field!("attempts", "weft.attempts", "attempts made", "none");
pub(super) const BYTES_UP: Field =
    field!("bytes.up", "source.bytes", "bytes of body towards the upstream", "");
pub(super) const BYTES_DOWN: Field =
    field!("bytes.down", "destination.bytes", "bytes of body towards the downstream", "");
pub(super) const DURATION: Field = field!(
    "duration_ms",
    "event.duration",
    "start to end, milliseconds (nanoseconds in the Elastic Common Schema)",
    "",
);
pub(super) const FIRST_BYTE: Field =
    field!("first_byte_ms", "weft.first_byte_ms", "start to the first byte of the answer", "no answer");
pub(super) const UPSTREAM: Field = field!(
    "upstream_ms",
    "weft.upstream_ms",
    "from the last attempt's start, its connect included, to the first byte of the answer",
    "no answer from upstream",
);
pub(super) const OWN: Field = field!(
    "own_ms",
    "weft.own_ms",
    "from the start to the last attempt's: deciding, waiting for configuration, attempts that failed",
    "no attempt",
);
const NOT_KEPT: &str = "the trace is not kept";
pub(super) const TRACE_ID: Field = field!("trace.id", "trace.id", "trace of the request", NOT_KEPT);
pub(super) const SPAN_ID: Field = field!("span.id", "span.id", "its span", NOT_KEPT);
pub(super) const HEADER: Field = field!(
    "header.NAME",
    "labels.NAME",
    "a header field of the request that a TelemetryPolicy names, under the name that it gives",
    "not configured, or not in the request",
);

/// All fields, in the order in which they are written.
pub const ALL: [&Field; 41] = [
    &TIME,
    &KIND,
    &REQUEST_ID,
    &DIRECTION,
    &PROTOCOL,
    &HTTP_VERSION,
    &HTTP_METHOD,
    &HTTP_PATH,
    &HTTP_QUERY,
    &HTTP_HOST,
    &HTTP_STATUS,
    &GRPC_STATUS,
    &REASON,
    &BLAME,
    &FLAGS,
    &POLICY,
    &PROBE,
    &SRC_ADDRESS,
    &DST_ADDRESS,
    &DST_ENDPOINT,
    &SRC_WORKLOAD,
    &SRC_NAMESPACE,
    &SRC_IDENTITY,
    &DST_WORKLOAD,
    &DST_NAMESPACE,
    &DST_IDENTITY,
    &DST_SERVICE,
    &SECURITY,
    &ROUTE,
    &RULE,
    &BACKEND,
    &ATTEMPTS,
    &BYTES_UP,
    &BYTES_DOWN,
    &DURATION,
    &FIRST_BYTE,
    &UPSTREAM,
    &OWN,
    &TRACE_ID,
    &SPAN_ID,
    &HEADER,
];

/// The page `docs/access-log.md`.
#[must_use]
pub fn page() -> String {
    use std::fmt::Write as _;
    let mut page = String::from(include_str!("page.md"));
    for Field { weft, ecs, meaning, absent, .. } in ALL {
        let ecs = match *ecs {
            "source" | "destination" => format!("`{ecs}.ip`, `{ecs}.port`"),
            name => format!("`{name}`"),
        };
        // A string takes every byte.
        let _ = writeln!(page, "| `{weft}` | {ecs} | {meaning} | {absent} |");
    }
    page
}

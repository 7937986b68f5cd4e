//! Every family that a control plane shows: the one table of names, labels and meanings.
//!
//! The registry writes them in this order, `docs/metrics.md` is made from it, and a test finds each of them
//! on a real control plane.
//!
//! Invariant: names and labels are what operators build on: they change by addition only.

use weft_exposition::{Family, process};

const CLUSTER: &str = "with `--kubernetes`";
const WEBHOOK: &str = "always; moves where the webhook is served";

/// Sidecars.
pub static SIDECARS: Family =
    Family::gauge("weft_control_plane_sidecars_connected", "Sidecars with an open stream");
/// Connections.
pub static CONNECTIONS: Family =
    Family::counter("weft_control_plane_connections", "TLS connections by outcome")
        .by(&["outcome"])
        .appears("once there was one of the outcome");
/// Streams.
pub static STREAMS_CLOSED: Family =
    Family::counter("weft_control_plane_streams_closed", "Streams that ended, by why")
        .by(&["outcome"])
        .appears("once one ended");
/// Epochs.
pub static EPOCHS: Family = Family::counter("weft_control_plane_epochs_sent", "Epochs sent");
/// Resources.
pub static RESOURCES: Family =
    Family::counter("weft_control_plane_resources_sent", "Resources sent within epochs");
/// Bytes of resources.
pub static RESOURCE_BYTES: Family =
    Family::counter("weft_control_plane_resource_sent_bytes", "Bytes of resource bodies sent");
/// Refusals.
pub static REFUSALS: Family =
    Family::counter("weft_control_plane_refusals", "Resources that sidecars refused");
/// Certificates.
pub static CERTIFICATES: Family =
    Family::counter("weft_control_plane_certificates", "Certificates issued and refused")
        .by(&["outcome"])
        .appears("once there was one of the outcome");
/// Reloads.
pub static RELOADS: Family =
    Family::counter("weft_control_plane_reloads", "Reads of the manifests or of the cluster, by outcome")
        .by(&["outcome"])
        .appears("once there was one of the outcome");
/// Compilation.
pub static COMPILE: Family =
    Family::histogram("weft_control_plane_compile_duration_seconds", "From a model to its compiled form");
/// Reloading.
pub static RELOAD: Family = Family::histogram(
    "weft_control_plane_reload_duration_seconds",
    "From the first event of a save to its publication",
);
/// The generation.
pub static GENERATION: Family =
    Family::gauge("weft_control_plane_config_generation", "Generation that is published");
/// Errors.
pub static MANIFEST_ERRORS: Family = Family::gauge(
    "weft_control_plane_manifest_errors",
    "Errors in the manifests as they stand; while above 0 the last good state serves",
);
/// Refused objects.
pub static OBJECTS_REFUSED: Family = Family::gauge(
    "weft_control_plane_objects_refused",
    "Objects that validation refuses in the published state",
);
/// The last good state.
pub static LAST_GOOD: Family = Family::gauge(
    "weft_control_plane_last_good_reload_seconds",
    "When the manifests were last taken, since 1970",
);
/// The own certificate.
pub static CERTIFICATE_EXPIRY: Family = Family::gauge(
    "weft_control_plane_certificate_expiry_timestamp_seconds",
    "When the control plane's own serving certificate expires",
);
/// Events.
pub static WATCH_EVENTS: Family =
    Family::counter("weft_control_plane_watch_events", "Events of watches by kind")
        .by(&["kind", "event"])
        .appears(CLUSTER);
/// Lists.
pub static WATCH_LISTS: Family = Family::counter(
    "weft_control_plane_watch_lists",
    "Lists begun by kind; one at the start, more after an expiry or an outage",
)
.by(&["kind"])
.appears(CLUSTER);
/// Failures.
pub static WATCH_FAILURES: Family =
    Family::counter("weft_control_plane_watch_failures", "Lists and watches that failed, by kind and why")
        .by(&["kind", "reason"])
        .appears("with `--kubernetes`, once one failed");
/// Contact.
pub static WATCH_CONTACT: Family = Family::gauge(
    "weft_control_plane_watch_contact_timestamp_seconds",
    "When the API server was last heard of for a kind, since 1970",
)
.by(&["kind"])
.appears(CLUSTER);
/// Whether all is listed.
pub static SYNCED: Family = Family::gauge(
    "weft_control_plane_synced",
    "1 once every kind that has to be there was listed; 0 with manifests",
);
/// Unreadable objects.
pub static UNREADABLE: Family = Family::gauge(
    "weft_control_plane_objects_unreadable",
    "Objects that could not be read and are not in force",
);
/// Injections.
pub static INJECTIONS: Family =
    Family::counter("weft_control_plane_injections", "Pods shown to the webhook by outcome")
        .by(&["outcome"])
        .appears("once a pod was shown");
/// The webhook.
pub static INJECTION: Family =
    Family::histogram("weft_control_plane_injection_duration_seconds", "From a whole request to its answer")
        .appears(WEBHOOK);
/// The injector's settings.
pub static SETTINGS_BROKEN: Family = Family::gauge(
    "weft_control_plane_injector_settings_broken",
    "1 while the injector's settings cannot be used and the last good ones serve",
)
.appears(WEBHOOK);
/// Pods without sidecar.
pub static UNMESHED: Family =
    Family::gauge("weft_control_plane_unmeshed_pods", "Pods that should have a sidecar and have none")
        .appears(WEBHOOK);
/// The leader.
pub static LEADER: Family =
    Family::gauge("weft_control_plane_leader", "1 while this replica holds the Lease").appears(CLUSTER);
/// Elections.
pub static ELECTED: Family =
    Family::counter("weft_control_plane_elected", "Times this replica began to lead").appears(CLUSTER);
/// Kubernetes events.
pub static EVENTS: Family = Family::counter("weft_control_plane_events", "Kubernetes events by outcome")
    .by(&["outcome"])
    .appears("with `--kubernetes`, once one was told");
/// Status.
pub static STATUS_WRITES: Family =
    Family::counter("weft_control_plane_status_writes", "Writes of status by outcome")
        .by(&["outcome"])
        .appears("with `--kubernetes`, once one was written");
/// Waiting status.
pub static STATUS_WAITING: Family =
    Family::gauge("weft_control_plane_status_waiting", "Objects whose status waits to be written")
        .appears(CLUSTER);
/// The signer.
pub static SIGNER_END: Family = Family::gauge(
    "weft_control_plane_signer_not_after_seconds",
    "End of the signing certificate, since 1970",
)
.appears(CLUSTER);
/// The first root to end.
pub static ROOT_END: Family = Family::gauge(
    "weft_control_plane_root_not_after_seconds",
    "End of the trusted root that ends first, since 1970",
)
.appears(CLUSTER);
/// Roots.
pub static ROOTS: Family =
    Family::gauge("weft_control_plane_roots", "Roots that are trusted").appears(CLUSTER);
/// A refused root.
pub static ROOT_REFUSED: Family = Family::gauge(
    "weft_control_plane_root_refused",
    "1 while the Secret of the authority cannot be used and the last good one stays",
)
.appears(CLUSTER);
/// The version.
pub static BUILD: Family =
    Family::info("weft_control_plane_build", "Always 1; the version is in the label").by(&["version"]);

/// All of them, in the order of a page.
pub static CATALOG: [&Family; 43] = [
    &SIDECARS,
    &CONNECTIONS,
    &STREAMS_CLOSED,
    &EPOCHS,
    &RESOURCES,
    &RESOURCE_BYTES,
    &REFUSALS,
    &CERTIFICATES,
    &RELOADS,
    &COMPILE,
    &RELOAD,
    &GENERATION,
    &MANIFEST_ERRORS,
    &OBJECTS_REFUSED,
    &LAST_GOOD,
    &CERTIFICATE_EXPIRY,
    &WATCH_EVENTS,
    &WATCH_LISTS,
    &WATCH_FAILURES,
    &WATCH_CONTACT,
    &SYNCED,
    &UNREADABLE,
    &INJECTIONS,
    &INJECTION,
    &SETTINGS_BROKEN,
    &UNMESHED,
    &LEADER,
    &ELECTED,
    &EVENTS,
    &STATUS_WRITES,
    &STATUS_WAITING,
    &SIGNER_END,
    &ROOT_END,
    &ROOTS,
    &ROOT_REFUSED,
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
pub const LABELS: [(&str, &str); 5] = [
    ("outcome", "how it ended"),
    ("kind", "the kind of object that is watched"),
    ("event", "`Applied` or `Removed`"),
    (
        "reason",
        "why it failed: `Request`, `Connection`, `Silent`, `Cut`, `Expired`, `Forbidden`, `Throttled`, `Server` or `Decode`",
    ),
    ("version", "of the build"),
];

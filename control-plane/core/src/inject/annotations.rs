//! What a pod's annotations may set: one table, from which the documentation and the checks are made.
//!
//! Where it stands: after `obstacle`; `build` takes the settings that come out.
//!
//! Invariant: an annotation under our prefix is known, or warned about; a value that cannot be
//! used is refused, never replaced by a default.
//! Invariant: the pod's word beats its namespace's, which beats the mesh's; lists of what is skipped add to
//! the mesh's.

use std::collections::BTreeMap;

use super::{InjectorConfig, NamespaceFacts, Resources, values};

/// What all of Weft's annotations begin with.
pub const PREFIX: &str = "weft.dev/";
/// Ports whose bytes the mesh passes on as they are; the control plane reads it too.
pub const OPAQUE_PORTS: &str = "weft.dev/opaque-ports";
/// Marks that may stand on a pod. Source: the contract of the injector and of the model.
const KNOWN_MARKS: [&str; 4] = ["inject", "sidecar", "sidecar-version", "pod-ip"];
/// How far a name may be from a known one to be taken for a slip of it. Source: Weft's own.
const SLIP: usize = 3;

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Name, after the prefix.
    pub name: &'static str,
    /// Form of the value, with an example.
    pub form: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    check: fn(&str) -> Result<(), String>,
}

/// Every annotation under [`PREFIX`], on a pod or, as a default for its pods, on a namespace.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "skip-inbound-ports",
        form: "ports and ranges: 22,9000-9100",
        default: "none",
        meaning: "Connections to these ports reach the application directly, without the mesh.",
        check: |text| values::ports(text).map(|_| ()),
    },
    Setting {
        name: "skip-outbound-ports",
        form: "ports and ranges: 25,3306",
        default: "none",
        meaning: "Connections to these ports of others leave the pod directly, without the mesh.",
        check: |text| values::ports(text).map(|_| ()),
    },
    Setting {
        name: "skip-inbound-cidrs",
        form: "networks and addresses: 10.0.0.0/8,fd00::1",
        default: "none",
        meaning: "Connections from these sources reach the application directly.",
        check: |text| values::cidrs(text).map(|_| ()),
    },
    Setting {
        name: "skip-outbound-cidrs",
        form: "networks and addresses: 169.254.169.254",
        default: "none",
        meaning: "Connections to these destinations leave the pod directly.",
        check: |text| values::cidrs(text).map(|_| ()),
    },
    Setting {
        name: "opaque-ports",
        form: "ports and ranges: 5432,6379",
        default: "none",
        meaning: "Bytes to these ports of the pod are passed on as they are, with mTLS, never read as HTTP.",
        check: |text| values::ports(text).map(|_| ()),
    },
    Setting {
        name: "log-level",
        form: "a filter: info, or warn,weft_proxy=debug",
        default: "info",
        meaning: "What the sidecar writes to its diagnostic log.",
        check: values::log_filter,
    },
    Setting {
        name: "access-log",
        form: "off, errors, all, mesh",
        default: "mesh",
        meaning: "Which requests the sidecar logs; mesh: what the Mesh resource says.",
        check: |text| values::one_of(text, values::ACCESS_LOG),
    },
    Setting {
        name: "cpu-request",
        form: "a quantity: 10m",
        default: "10m",
        meaning: "CPU the sidecar asks for.",
        check: |text| values::quantity(text).map(|_| ()),
    },
    Setting {
        name: "cpu-limit",
        form: "a quantity: 1",
        default: "none",
        meaning: "CPU the sidecar may use; it also sets the number of its data threads.",
        check: |text| values::quantity(text).map(|_| ()),
    },
    Setting {
        name: "memory-request",
        form: "a quantity: 20Mi",
        default: "20Mi",
        meaning: "Memory the sidecar asks for.",
        check: |text| values::quantity(text).map(|_| ()),
    },
    Setting {
        name: "memory-limit",
        form: "a quantity: 256Mi",
        default: "none",
        meaning: "Memory the sidecar may use.",
        check: |text| values::quantity(text).map(|_| ()),
    },
    Setting {
        name: "image",
        form: "an image: localhost/weft/weft-proxy:0.1.0",
        default: "the mesh's",
        meaning: "Image of the sidecar and of its init container.",
        check: values::image,
    },
    Setting {
        name: "drain-linger",
        form: "a span: 5s",
        default: "the Mesh resource's",
        meaning: "How long a stopping sidecar still accepts connections.",
        check: |text| values::span(text).map(|_| ()),
    },
    Setting {
        name: "drain-deadline",
        form: "a span: 20s",
        default: "the Mesh resource's",
        meaning: "How long a stopping sidecar waits for what is in flight.",
        check: |text| values::span(text).map(|_| ()),
    },
    Setting {
        name: "native-sidecar",
        form: "true, false",
        default: "true",
        meaning: "false for nodes whose kubelet is older than 1.29.",
        check: |text| values::one_of(text, &["true", "false"]),
    },
];

/// Warnings about annotations that look like ours and are not known.
pub fn unknown_annotations(annotations: &BTreeMap<String, String>) -> Vec<String> {
    annotations.keys().filter_map(|name| unknown(name)).collect()
}

fn unknown(name: &str) -> Option<String> {
    let (domain, rest) = name.split_once('/')?;
    let known = || SETTINGS.iter().map(|setting| setting.name).chain(KNOWN_MARKS);
    let ours = domain == "weft.dev" || domain.ends_with(".weft.dev");
    if !ours || (name.starts_with(PREFIX) && known().any(|known| known == rest)) {
        return None;
    }
    let nearest = known().min_by_key(|known| values::distance(rest, known));
    let hint = nearest.filter(|known| values::distance(rest, known) <= SLIP);
    let hint = hint.map(|known| format!(": is {PREFIX}{known} meant?")).unwrap_or_default();
    Some(format!("annotation {name} is not known and has no effect{hint}"))
}

/// Warnings about labels that mean something only as annotations.
pub(super) fn misplaced_labels(labels: &BTreeMap<String, String>) -> Vec<String> {
    let is_setting = |name: &&String| {
        name.strip_prefix(PREFIX).is_some_and(|rest| SETTINGS.iter().any(|setting| setting.name == rest))
    };
    let warning = |name: &String| format!("label {name} has no effect: write it as an annotation");
    labels.keys().filter(is_setting).map(warning).collect()
}

/// What the annotations of a pod and of its namespace say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Overrides(BTreeMap<&'static str, String>);

/// What holds for one pod.
#[derive(Debug, Clone)]
pub(super) struct Settings<'a> {
    pub(super) config: &'a InjectorConfig,
    pub(super) image: String,
    pub(super) resources: Resources,
    pub(super) log_level: String,
    pub(super) access_log: Option<String>,
    pub(super) drain_linger: Option<String>,
    pub(super) drain_deadline: Option<String>,
    pub(super) native_sidecar: bool,
    pub(super) skip_inbound_ports: String,
    pub(super) skip_outbound_ports: String,
    pub(super) skip_inbound_cidrs: String,
    pub(super) skip_outbound_cidrs: String,
    pub(super) opaque_ports: Option<String>,
}

impl Overrides {
    /// Reads and checks the annotations.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub(super) fn read(
        annotations: &BTreeMap<String, String>,
        namespace: &NamespaceFacts,
    ) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        for setting in SETTINGS {
            let name = format!("{PREFIX}{}", setting.name);
            let own = annotations.get(&name).map(|value| ("", value));
            let inherited = || namespace.annotations.get(&name).map(|value| ("namespace's ", value));
            let Some((whose, value)) = own.or_else(inherited) else { continue };
            (setting.check)(value).map_err(|reason| format!("{whose}annotation {name}: {reason}"))?;
            found.insert(setting.name, value.clone());
        }
        Ok(Self(found))
    }

    /// These, over what the mesh's settings say.
    ///
    /// # Errors
    /// Values that contradict each other.
    pub(super) fn over<'a>(&self, config: &'a InjectorConfig) -> Result<Settings<'a>, String> {
        let own = |name: &str| self.0.get(name).cloned();
        let defaults = &config.resources;
        let resources = Resources {
            cpu_request: own("cpu-request").unwrap_or_else(|| defaults.cpu_request.clone()),
            memory_request: own("memory-request").unwrap_or_else(|| defaults.memory_request.clone()),
            cpu_limit: own("cpu-limit").or_else(|| defaults.cpu_limit.clone()),
            memory_limit: own("memory-limit").or_else(|| defaults.memory_limit.clone()),
        };
        resources.check()?;
        let list = |name: &str, of_mesh: &str| {
            let both = [Some(of_mesh.to_owned()), own(name)];
            both.into_iter().flatten().filter(|list| !list.is_empty()).collect::<Vec<_>>().join(",")
        };
        Ok(Settings {
            config,
            image: own("image").unwrap_or_else(|| config.image.clone()),
            resources,
            log_level: own("log-level").unwrap_or_else(|| config.log_level.clone()),
            access_log: own("access-log").or_else(|| config.access_log.clone()),
            drain_linger: own("drain-linger").or_else(|| config.drain_linger.clone()),
            drain_deadline: own("drain-deadline").or_else(|| config.drain_deadline.clone()),
            native_sidecar: own("native-sidecar").map_or(config.native_sidecar, |text| text == "true"),
            skip_inbound_ports: list("skip-inbound-ports", &config.skip_inbound_ports),
            skip_outbound_ports: list("skip-outbound-ports", &config.skip_outbound_ports),
            skip_inbound_cidrs: list("skip-inbound-cidrs", &config.skip_inbound_cidrs),
            skip_outbound_cidrs: list("skip-outbound-cidrs", &config.skip_outbound_cidrs),
            opaque_ports: own("opaque-ports"),
        })
    }
}

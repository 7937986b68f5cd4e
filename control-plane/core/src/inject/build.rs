//! The sidecar itself: its init container, its container, its volumes and the marks, put onto a pod.
//!
//! Where it stands: last in the injector; everything is decided.
//!
//! Invariant: the init container comes first and the sidecar directly after it, so that every other
//! container has a network, through the mesh.
//! Invariant: everything but the init container satisfies Pod Security "restricted".

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Map, Value, json};

use super::annotations::{OPAQUE_PORTS, Settings};
use super::config::{ADMIN_PORT, INBOUND_PORT, OUTBOUND_PORT};
use super::evictable::{self, EVICTABLE};
use super::{IDENTITY_VOLUME, INIT_CONTAINER, INJECTED, STATE_VOLUME, VERSION_ANNOTATION};
use crate::model::{SIDECAR_ANNOTATION, SIDECAR_CONTAINER};

/// Where the token lies in the sidecar. Source: the contract between injector and sidecar.
const TOKEN_FOLDER: &str = "/var/run/secrets/weft.dev";
/// Where the sidecar keeps its last good configuration, and with it the roots it trusts: those in its
/// environment are of the day the pod was created. Source: Weft's own.
const STATE_FOLDER: &str = "/var/lib/weft";
/// What may lie there: who exceeds it is evicted. Source: twice what the sidecar writes at most, 15 MiB.
const STATE_LIMIT: &str = "32Mi";
/// Where Kubernetes puts the token for its own API into containers without a mount there.
/// Source: the ServiceAccount admission plugin.
const API_TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The sidecar's program in its image. Source: the image's entry point.
const PROGRAM: &str = "/weft-proxy";
/// Seconds between two looks at readiness once it was ready. Source: Weft's own.
const READY_PERIOD: u32 = 2;
/// Seconds for the answer to a probe. Source: Kubernetes' default of 1 fails on a loaded node.
const PROBE_TIMEOUT: u32 = 3;

/// What is built from.
pub(super) struct Build<'a> {
    pub(super) settings: &'a Settings<'a>,
    pub(super) roots: &'a str,
    pub(super) spec: &'a PodSpec,
}

impl Build<'_> {
    /// The pod with its sidecar.
    ///
    /// # Errors
    /// The pod's parts are no objects and lists.
    pub(super) fn onto(&self, pod: &Value) -> Result<Value, String> {
        let mut pod = pod.clone();
        let annotations = object(object(object_of(&mut pod)?, "metadata")?, "annotations")?;
        annotations.insert(SIDECAR_ANNOTATION.to_owned(), json!(INJECTED));
        annotations.insert(VERSION_ANNOTATION.to_owned(), json!(self.settings.config.version));
        let evictable = annotations.get(EVICTABLE).and_then(Value::as_str).unwrap_or_default();
        annotations.insert(EVICTABLE.to_owned(), json!(evictable::with(evictable)));
        if let Some(ports) = &self.settings.opaque_ports {
            // Those of the namespace too: the control plane reads the pod's.
            annotations.insert(OPAQUE_PORTS.to_owned(), json!(ports));
        }
        let spec = object(object_of(&mut pod)?, "spec")?;
        let state = json!({"name": STATE_VOLUME, "emptyDir": {"sizeLimit": STATE_LIMIT}});
        list(spec, "volumes")?.extend([self.identity(), state]);
        let init = list(spec, "initContainers")?;
        if self.settings.native_sidecar {
            init.splice(0..0, [self.init(), self.sidecar()]);
        } else {
            // Last, so that those before it still have a network: the sidecar runs only after them.
            init.push(self.init());
            list(spec, "containers")?.insert(0, self.sidecar());
        }
        Ok(pod)
    }

    fn identity(&self) -> Value {
        let config = self.settings.config;
        json!({
            "name": IDENTITY_VOLUME,
            "projected": {
                "defaultMode": 420,
                "sources": [{"serviceAccountToken": {
                    "audience": config.token_audience,
                    "expirationSeconds": config.token_expiration_seconds,
                    "path": "token",
                }}],
            },
        })
    }

    fn init(&self) -> Value {
        let mut args = vec![
            "init".to_owned(),
            format!("--inbound-port={INBOUND_PORT}"),
            format!("--outbound-port={OUTBOUND_PORT}"),
            format!("--admin-port={ADMIN_PORT}"),
            format!("--proxy-uid={}", self.settings.config.proxy_uid),
        ];
        let lists = [
            ("skip-inbound-ports", &self.settings.skip_inbound_ports),
            ("skip-outbound-ports", &self.settings.skip_outbound_ports),
            ("skip-inbound-cidrs", &self.settings.skip_inbound_cidrs),
            ("skip-outbound-cidrs", &self.settings.skip_outbound_cidrs),
        ];
        let given = lists.iter().filter(|(_, list)| !list.is_empty());
        args.extend(given.map(|(flag, list)| format!("--{flag}={}", list.replace(' ', ""))));
        let mut container = self.container(INIT_CONTAINER, &args);
        container.insert(
            "securityContext".to_owned(),
            json!({
                "allowPrivilegeEscalation": false,
                "privileged": false,
                "readOnlyRootFilesystem": true,
                "runAsUser": 0,
                "runAsGroup": 0,
                "runAsNonRoot": false,
                "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }),
        );
        Value::Object(container)
    }

    fn sidecar(&self) -> Value {
        let config = self.settings.config;
        let mut container = self.container(SIDECAR_CONTAINER, &["run".to_owned()]);
        let ready = json!({"path": "/ready", "port": ADMIN_PORT});
        let mut set = |name: &str, value: Value| container.insert(name.to_owned(), value);
        set("env", self.environment());
        set("ports", json!([{"name": "weft-admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}]));
        // At the second path too: Kubernetes would put the token for its API there, which the sidecar must
        // not hold.
        let mount = |path: &str| json!({"name": IDENTITY_VOLUME, "mountPath": path, "readOnly": true});
        let state = json!({"name": STATE_VOLUME, "mountPath": STATE_FOLDER});
        set("volumeMounts", json!([mount(TOKEN_FOLDER), mount(API_TOKEN_FOLDER), state]));
        set(
            "startupProbe",
            json!({
                "httpGet": ready,
                "periodSeconds": 1,
                "timeoutSeconds": PROBE_TIMEOUT,
                "failureThreshold": config.startup_seconds,
            }),
        );
        set(
            "readinessProbe",
            json!({
                "httpGet": ready,
                "periodSeconds": READY_PERIOD,
                "timeoutSeconds": PROBE_TIMEOUT,
                "failureThreshold": 3,
            }),
        );
        set(
            "securityContext",
            json!({
                "allowPrivilegeEscalation": false,
                "privileged": false,
                "readOnlyRootFilesystem": true,
                "runAsUser": config.proxy_uid,
                "runAsGroup": config.proxy_uid,
                "runAsNonRoot": true,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }),
        );
        if self.settings.native_sidecar {
            set("restartPolicy", json!("Always"));
        } else {
            // Containers start in order, and the next only after this has ended.
            set("lifecycle", json!({"postStart": {"exec": {"command": [PROGRAM, "wait"]}}}));
        }
        Value::Object(container)
    }

    /// What both containers have.
    fn container(&self, name: &str, args: &[String]) -> Map<String, Value> {
        let mut container = Map::new();
        let mut set = |name: &str, value: Value| container.insert(name.to_owned(), value);
        set("name", json!(name));
        set("image", json!(self.settings.image));
        if let Some(policy) = &self.settings.config.image_pull_policy {
            set("imagePullPolicy", json!(policy));
        }
        set("args", json!(args));
        // The reason why it ended shows in the pod's status.
        set("terminationMessagePolicy", json!("FallbackToLogsOnError"));
        if self.spec.resources.is_none() {
            // A pod with a budget of its own shares it with its sidecar.
            set("resources", self.resources());
        }
        container
    }

    fn resources(&self) -> Value {
        let resources = &self.settings.resources;
        let mut limits = Map::new();
        let both = [("cpu", &resources.cpu_limit), ("memory", &resources.memory_limit)];
        for (name, limit) in both {
            limits.extend(limit.as_ref().map(|limit| (name.to_owned(), json!(limit))));
        }
        let mut value =
            json!({"requests": {"cpu": resources.cpu_request, "memory": resources.memory_request}});
        if let Some(value) = value.as_object_mut().filter(|_| !limits.is_empty()) {
            value.insert("limits".to_owned(), Value::Object(limits));
        }
        value
    }

    fn environment(&self) -> Value {
        let settings = self.settings;
        let config = settings.config;
        let downward = [
            ("POD_NAMESPACE", "metadata.namespace"),
            ("POD_NAME", "metadata.name"),
            ("POD_IPS", "status.podIPs"),
            ("NODE_NAME", "spec.nodeName"),
            ("HOST_IP", "status.hostIP"),
        ];
        let field = |(name, path): (&str, &str)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let identity = format!(
            "spiffe://{}/ns/{}/sa/weft-control-plane",
            config.trust_domain, config.control_plane_namespace
        );
        let mut given: Vec<(&str, String)> = vec![
            ("WEFT_WORKLOAD", "$(POD_NAMESPACE)/$(POD_NAME)".to_owned()),
            ("WEFT_CONTROL_PLANE", config.control_plane.clone()),
            ("WEFT_CONTROL_PLANE_IDENTITY", identity),
            ("WEFT_TRUST_DOMAIN", config.trust_domain.clone()),
            ("WEFT_TRUST_ANCHORS_PEM", self.roots.to_owned()),
            ("WEFT_JOIN_TOKEN_FILE", format!("{TOKEN_FOLDER}/token")),
            ("WEFT_STATE_DIR", STATE_FOLDER.to_owned()),
            ("WEFT_TRANSPARENT_INBOUND", format!("[::]:{INBOUND_PORT}")),
            ("WEFT_TRANSPARENT_OUTBOUND", format!("[::]:{OUTBOUND_PORT}")),
            ("WEFT_ADMIN", format!("[::]:{ADMIN_PORT}")),
            ("WEFT_NODE_IS_GATEWAY", "true".to_owned()),
            ("WEFT_LOG", settings.log_level.clone()),
        ];
        if settings.native_sidecar {
            given.push(("WEFT_NATIVE_SIDECAR", "true".to_owned()));
        }
        let optional = [
            ("WEFT_ACCESS_LOG", &settings.access_log),
            ("WEFT_OTLP", &config.otlp),
            ("WEFT_DRAIN_LINGER", &settings.drain_linger),
            ("WEFT_DRAIN_DEADLINE", &settings.drain_deadline),
        ];
        given.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        let more = config.env.iter().map(|(name, value)| (name.as_str(), value.clone()));
        given.retain(|(name, _)| !config.env.contains_key(*name));
        let given = given.into_iter().chain(more).map(|(name, value)| json!({"name": name, "value": value}));
        Value::Array(downward.into_iter().map(field).chain(given).collect())
    }
}

fn object_of(value: &mut Value) -> Result<&mut Map<String, Value>, String> {
    value.as_object_mut().ok_or_else(|| "this is no pod".to_owned())
}

/// A part that is an object, made when it is absent.
fn object<'a>(of: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Map<String, Value>, String> {
    let part = of.entry(name).or_insert(Value::Null);
    if part.is_null() {
        *part = json!({});
    }
    part.as_object_mut().ok_or_else(|| format!("{name} is no object"))
}

/// A part that is a list, made when it is absent.
fn list<'a>(of: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Vec<Value>, String> {
    let part = of.entry(name).or_insert(Value::Null);
    if part.is_null() {
        *part = json!([]);
    }
    part.as_array_mut().ok_or_else(|| format!("{name} is no list"))
}

//! Facts in their Kubernetes form, as a person would have written them into the folder.
//!
//! Stands between the churn and the control plane's own reader.
//!
//! Invariant: the manifests say exactly what the facts say.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::facts::{Aim, Facts, Grant, Id, Match, Member, Pod, Route, Rule, Service, Traffic, parts};

impl Facts {
    /// All manifests, by kind and id.
    pub(super) fn manifests(&self) -> BTreeMap<(&'static str, Id), Value> {
        let mut all = BTreeMap::new();
        for (id, service) in &self.services {
            all.insert(("Service", id.clone()), service_manifest(id, service));
            if let Some(members) = &service.slice {
                all.insert(("EndpointSlice", id.clone()), slice_manifest(id, service, members));
            }
        }
        for (id, pod) in &self.pods {
            all.insert(("Pod", id.clone()), pod_manifest(id, pod));
        }
        for (id, route) in &self.routes {
            all.insert(("HTTPRoute", id.clone()), route_manifest(id, route));
        }
        for (id, policy) in &self.policies {
            let rules: Vec<Value> = policy.rules.iter().map(grant).collect();
            let spec = json!({
                "targetRefs": [aim(&policy.aim)], "action": if policy.allow { "Allow" } else { "Deny" },
                "mode": if policy.shadow { "Shadow" } else { "Enforce" }, "rules": rules,
            });
            all.insert(("AuthorizationPolicy", id.clone()), ours("AuthorizationPolicy", id, spec));
        }
        for (id, tls) in &self.tls {
            let ports: Vec<Value> =
                tls.port.iter().map(|(port, strict)| json!({"port": port, "mode": mode(*strict)})).collect();
            let spec = json!({"targetRefs": [aim(&tls.aim)], "mode": mode(tls.strict), "ports": ports});
            all.insert(("TlsPolicy", id.clone()), ours("TlsPolicy", id, spec));
        }
        for (id, traffic) in &self.traffic {
            all.insert(("TrafficPolicy", id.clone()), traffic_manifest(id, traffic));
        }
        all
    }
}

fn meta(id: &str) -> Value {
    let (namespace, name) = parts(id);
    json!({"namespace": namespace, "name": name})
}

fn ours(kind: &str, id: &str, spec: Value) -> Value {
    json!({"apiVersion": "weft.dev/v1alpha1", "kind": kind, "metadata": meta(id), "spec": spec})
}

fn service_manifest(id: &str, service: &Service) -> Value {
    let port = |port: &u16| json!({"name": format!("p{port}"), "port": port, "targetPort": port + 8000});
    let ports: Vec<Value> = service.ports.iter().map(port).collect();
    let spec = json!({"clusterIP": service.ip, "selector": {"app": parts(id).1}, "ports": ports});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(id), "spec": spec})
}

fn slice_manifest(id: &str, service: &Service, members: &[Member]) -> Value {
    let mut metadata = meta(id);
    metadata["labels"] = json!({"kubernetes.io/service-name": parts(id).1});
    let endpoint = |member: &Member| {
        let mut endpoint = json!({"addresses": [member.ip], "conditions": {"ready": member.ready}});
        if let Some(pod) = &member.pod {
            endpoint["targetRef"] = json!({"kind": "Pod", "name": pod});
        }
        endpoint
    };
    let endpoints: Vec<Value> = members.iter().map(endpoint).collect();
    let port = |port: &u16| json!({"name": format!("p{port}"), "port": port + 8000, "protocol": "TCP"});
    let ports: Vec<Value> = service.ports.iter().map(port).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
    })
}

fn pod_manifest(id: &str, pod: &Pod) -> Value {
    let mut metadata = meta(id);
    metadata["labels"] = json!({"app": pod.app});
    if pod.sidecar {
        metadata["annotations"] = json!({"weft.dev/sidecar": "injected"});
    }
    let ready = if pod.ready { "True" } else { "False" };
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"serviceAccountName": pod.app, "containers": [{"name": "app"}]},
        "status": {"podIP": pod.ip, "conditions": [{"type": "Ready", "status": ready}]},
    })
}

fn route_manifest(id: &str, route: &Route) -> Value {
    let mut metadata = meta(id);
    metadata["creationTimestamp"] = json!(format!("2026-01-01T00:00:{:02}Z", route.born % 60));
    let (namespace, name) = parts(&route.parent);
    let mut parent = json!({"group": "", "kind": "Service", "namespace": namespace, "name": name});
    if let Some(port) = route.port {
        parent["port"] = json!(port);
    }
    let rules: Vec<Value> = route.rules.iter().map(rule).collect();
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata,
        "spec": {"parentRefs": [parent], "rules": rules},
    })
}

fn rule(rule: &Rule) -> Value {
    let one = |one: &Match| {
        let kind = if one.exact { "Exact" } else { "PathPrefix" };
        let mut found = json!({"path": {"type": kind, "value": one.path}});
        if let Some(method) = &one.method {
            found["method"] = json!(method);
        }
        if one.canary {
            found["headers"] = json!([{"name": "canary", "value": "yes"}]);
        }
        found
    };
    let backend = |(id, port, weight): &(Id, u16, u32)| {
        let (namespace, name) = parts(id);
        json!({"name": name, "namespace": namespace, "port": port, "weight": weight})
    };
    let matches: Vec<Value> = rule.matches.iter().map(one).collect();
    let backends: Vec<Value> = rule.backends.iter().map(backend).collect();
    json!({"matches": matches, "backendRefs": backends})
}

fn grant(grant: &Grant) -> Value {
    let list = |text: &Option<String>| text.iter().cloned().collect::<Vec<String>>();
    let cidrs: Vec<String> = grant.net.iter().map(|[a, b, c]| format!("{a}.{b}.{c}.0/24")).collect();
    let ports: Vec<u16> = grant.port.into_iter().collect();
    let from = json!({
        "identities": list(&grant.identity), "namespaces": list(&grant.namespace),
        "serviceAccounts": list(&grant.account), "cidrs": cidrs,
    });
    json!({"from": [from], "to": [{"ports": ports, "methods": list(&grant.method), "paths": list(&grant.path)}]})
}

fn aim(aim: &Aim) -> Value {
    match aim {
        Aim::App(app) => json!({"kind": "Workload", "selector": {"app": app}}),
        Aim::Service(name) => json!({"kind": "Service", "name": name}),
        Aim::Namespace => json!({"kind": "Namespace"}),
        Aim::Mesh => json!({"kind": "Mesh"}),
    }
}

fn mode(strict: bool) -> &'static str {
    if strict { "Strict" } else { "Permissive" }
}

fn traffic_manifest(id: &str, traffic: &Traffic) -> Value {
    let mut spec = json!({
        "targetRefs": [{"kind": "Service", "name": parts(id).1}],
        "retryBudget": {"percent": traffic.budget.0, "minPerSecond": traffic.budget.1},
        "outlier": {
            "consecutiveFailures": traffic.failures, "baseEjection": format!("{}s", traffic.base),
            "maxEjection": "20s", "maxEjectedPercent": traffic.share,
        },
    });
    if let Some((service, port)) = &traffic.fallback {
        let (namespace, name) = parts(service);
        spec["fallback"] = json!({"namespace": namespace, "name": name, "port": port});
    }
    ours("TrafficPolicy", id, spec)
}

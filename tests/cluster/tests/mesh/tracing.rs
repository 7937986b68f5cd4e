//! Traces of pods in a Jaeger that runs as a pod, by a TelemetryPolicy alone.

use std::path::PathBuf;

use serde_json::Value;
use weft_cluster::image::Image;
use weft_cluster::part::JAEGER;
use weft_cluster::scenario::{App, Space};
use weft_cluster::skip;

const IMAGE: &str = "localhost/jaeger:2";

/// Jaeger 2 with memory for storage, on all addresses.
const CONFIG: &str = "\
service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines:
    traces: {receivers: [otlp], processors: [], exporters: [jaeger_storage_exporter]}
  telemetry: {metrics: {level: none}}
extensions:
  healthcheckv2: {use_v2: true, http: {endpoint: '[::]:13133'}}
  jaeger_query: {storage: {traces: mem}, http: {endpoint: '[::]:16686'}, grpc: {endpoint: '[::]:16685'}}
  jaeger_storage: {backends: {mem: {memory: {max_traces: 1000}}}}
receivers:
  otlp: {protocols: {grpc: {endpoint: '[::]:4317'}, http: {endpoint: '[::]:4318'}}}
exporters:
  jaeger_storage_exporter: {trace_storage: mem}
";

const MANIFESTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: jaeger}
spec:
  selector: {app: jaeger}
  ports: [{name: otlp, port: 4317}, {name: query, port: 16686}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: jaeger}
spec:
  selector: {matchLabels: {app: jaeger}}
  template:
    metadata: {labels: {app: jaeger}}
    spec:
      containers:
      - name: jaeger
        image: localhost/jaeger:2
        imagePullPolicy: Never
        ports: [{containerPort: 4317}, {containerPort: 16686}]
        readinessProbe: {httpGet: {path: /status, port: 13133}, periodSeconds: 1}
";

/// The archive of Jaeger's image, beside its program.
fn archive() -> anyhow::Result<PathBuf> {
    let folder = JAEGER.folder()?;
    let archive = folder.join("image.tar");
    if !archive.exists() {
        Image::new(IMAGE)
            .program("/jaeger", &folder.join("jaeger"))?
            .file("/config.yaml", CONFIG, 0o644)
            .folder("/tmp", 0o1777)
            .entry_point(&["/jaeger", "--config=/config.yaml"])
            .save(&archive)?;
    }
    Ok(archive)
}

/// What Jaeger answers, by way of the API server.
fn ask(jaeger: &Space<'_>, path: &str) -> anyhow::Result<Value> {
    let at = format!("/api/v1/namespaces/tracing/services/jaeger:16686/proxy{path}");
    let answer = jaeger.kubectl(&["get", "--raw", &at])?;
    Ok(serde_json::from_str::<Value>(&answer)?["data"].take())
}

fn tag<'a>(tags: &'a Value, name: &str) -> &'a Value {
    let mut tags = tags.as_array().into_iter().flatten();
    tags.find(|tag| tag["key"] == name).map_or(&Value::Null, |tag| &tag["value"])
}

#[test]
fn a_policy_leads_pods_traces_to_a_jaeger_in_the_cluster() {
    let Some(mesh) = super::mesh() else { return };
    let archive = match archive() {
        Ok(archive) => archive,
        Err(error) => return skip::say(&format!("{error:#}")),
    };
    mesh.cluster.import_image(&archive).unwrap();
    let jaeger = mesh.plain("tracing").unwrap();
    jaeger.apply(MANIFESTS).unwrap();
    jaeger.rolled_out("deployment/jaeger").unwrap();
    let space = mesh.meshed("traced").unwrap();
    space.run(&[App::new("server"), App::new("client")]).unwrap();
    space
        .apply(
            "{apiVersion: weft.dev/v1alpha1, kind: TelemetryPolicy, metadata: {name: to-jaeger},
              spec: {targetRefs: [{kind: Namespace}], tracing: {export: {endpoint: 'http://jaeger.tracing:4317'}}}}",
        )
        .unwrap();
    let status = space
        .until("both sidecars to have the policy", || {
            let status = space.object("telemetrypolicy/to-jaeger")?["status"].clone();
            Ok((status["sidecars"]["applied"] == 2).then_some(status))
        })
        .unwrap();
    assert_eq!(status["conditions"][0]["type"], "Accepted", "{status}");
    assert_eq!(status["targets"][0]["conditions"][0]["status"], "True", "{status}");

    let trace = space
        .until("a trace through both pods", || {
            space.get("deployment/client-v1", "http://server/hello", &[])?;
            let found = ask(&jaeger, "/api/traces?service=server-v1&limit=20&lookback=1h")?;
            let whole = |trace: &&Value| trace["spans"].as_array().is_some_and(|spans| spans.len() == 3);
            Ok(found.as_array().into_iter().flatten().find(whole).cloned())
        })
        .unwrap();
    let spans = trace["spans"].as_array().unwrap();
    let of = |service: &str, kind: &str| {
        let told_by = |span: &&Value| {
            let process = span["processID"].as_str().unwrap_or_default();
            trace["processes"][process]["serviceName"] == service && tag(&span["tags"], "span.kind") == kind
        };
        spans.iter().filter(told_by).collect::<Vec<_>>()
    };
    let server = of("server-v1", "server");
    assert_eq!((server.len(), of("client-v1", "client").len()), (1, 2), "{trace:#}");
    let server = server[0];
    assert_eq!(tag(&server["tags"], "url.path"), "/hello", "{server:#}");
    let identity = "spiffe://cluster.local/ns/traced/sa/client";
    assert_eq!(tag(&server["tags"], "weft.source.identity"), identity, "{server:#}");
    let parent = &server["references"][0]["spanID"];
    let attempt = spans.iter().find(|span| span["spanID"] == *parent).unwrap();
    assert_eq!(tag(&attempt["tags"], "weft.destination.service"), "traced/server:80", "{attempt:#}");
    let process = &trace["processes"][server["processID"].as_str().unwrap()]["tags"];
    let (pod, _) = space.pod("app=server").unwrap();
    let node = space.object(&format!("pod/{pod}")).unwrap()["spec"]["nodeName"].clone();
    assert_eq!(
        (tag(process, "k8s.pod.name"), tag(process, "k8s.node.name")),
        (&Value::from(pod), &node),
        "{process:#}"
    );
    assert_eq!(
        (tag(process, "service.version"), tag(process, "k8s.namespace.name")),
        (&"v1".into(), &"traced".into())
    );
}

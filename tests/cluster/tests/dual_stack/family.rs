//! IPv4 and IPv6 alike, and the pods of a StatefulSet by their names.

use serde_json::Value;
use weft_cluster::scenario::{App, LOAD_IMAGE, Space, field};

const CLIENT: &str = "deployment/client-v1";

/// A Service's or a pod's address of each family, IPv4 first.
fn addresses(list: &Value) -> [String; 2] {
    let of = |entry: &Value| entry.get("ip").unwrap_or(entry).as_str().unwrap_or_default().to_owned();
    let all: Vec<String> = list.as_array().unwrap().iter().map(of).collect();
    let find = |six: bool| all.iter().find(|address| address.contains(':') == six).unwrap().clone();
    [find(false), find(true)]
}

fn written(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

#[test]
fn both_families_carry_mutual_tls_to_services_and_pods() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("families").unwrap();
    space.run(&[App::new("client"), App::new("server")]).unwrap();
    let (server, _) = space.pod("app=server").unwrap();
    let pod = space.pods("app=server").unwrap().remove(0);
    let pod_addresses = addresses(field(&pod, "status.podIPs"));
    let service = addresses(field(&space.object("service/server").unwrap(), "spec.clusterIPs"));
    let tap = mesh.tap("a-secret-of-two-families", 8080).unwrap();
    for (at, base) in service
        .iter()
        .map(|address| written(address))
        .chain(pod_addresses.iter().map(|address| format!("{}:8080", written(address))))
        .enumerate()
    {
        let header = ["-H", "X-Secret: a-secret-of-two-families"];
        let answer = space.get(CLIENT, &format!("http://{base}/family-{at}"), &header).unwrap();
        assert_eq!((answer.status(), answer.told("pod")), (Some(200), server.as_str()), "{base}: {answer:?}");
        let path = format!("/family-{at}");
        let entry = space.logged("app=server", |entry| entry["http.path"] == path.as_str()).unwrap();
        assert_eq!(entry["security"], "mutual_tls", "{base}: {entry}");
        assert_eq!(entry["src.identity"], "spiffe://cluster.local/ns/families/sa/client", "{entry}");
    }
    let streams = tap.end().unwrap();
    assert!(!streams.iter().any(|stream| stream.readable), "{streams:?}");
    for address in &pod_addresses {
        assert!(
            streams.iter().any(|stream| stream.tls_1_3_server && stream.from == *address),
            "{address} {streams:?}"
        );
    }
}

/// Two pods with names, and the headless Service that gives them.
fn named_pods(space: &Space<'_>) {
    space
        .apply(&format!(
            "
apiVersion: v1
kind: ServiceAccount
metadata: {{name: db}}
---
apiVersion: v1
kind: Service
metadata: {{name: db}}
spec: {{clusterIP: None, ipFamilyPolicy: PreferDualStack, selector: {{app: db}}, ports: [{{name: http, port: 8080}}, {{name: lines, port: 9090}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  serviceName: db
  replicas: 2
  podManagementPolicy: Parallel
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      serviceAccountName: db
      containers:
      - name: app
        image: {LOAD_IMAGE}
        imagePullPolicy: Never
        args: [serve, --tcp=9090]
        readinessProbe: {{httpGet: {{path: /ready, port: 8080}}, periodSeconds: 1}}
"
        ))
        .unwrap();
    space.rolled_out("statefulset/db").unwrap();
}

#[test]
fn a_stateful_sets_pods_answer_by_name_with_mutual_tls_and_a_policy_of_their_own() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("named").unwrap();
    named_pods(&space);
    space.run(&[App::new("client")]).unwrap();
    for pod in ["db-0", "db-1"] {
        let url = format!("http://{pod}.db:8080/who-{pod}");
        let answer =
            space.get_until(CLIENT, &url, &["--timeout=5"], |answer| answer.status() == Some(200)).unwrap();
        assert_eq!(answer.told("pod"), pod, "{answer:?}");
        let path = format!("/who-{pod}");
        let entry = space.logged("app=db", |entry| entry["http.path"] == path.as_str()).unwrap();
        assert_eq!(entry["security"], "mutual_tls", "{entry}");
        let told = &space.load(CLIENT, &["tcp", &format!("{pod}.db:9090")]).unwrap()[0];
        assert_eq!(told["answer"], format!("{pod} heard hello"), "{told}");
    }
    let any = space.get(CLIENT, "http://db:8080/any", &[]).unwrap();
    assert!(any.told("pod").starts_with("db-"), "{any:?}");

    space
        .apply(
            "{apiVersion: weft.dev/v1alpha1, kind: AuthorizationPolicy, metadata: {name: closed},
              spec: {targetRefs: [{kind: Workload, selector: {statefulset.kubernetes.io/pod-name: db-1}}],
                     action: Deny, rules: [{from: [{serviceAccounts: [client]}]}]}}",
        )
        .unwrap();
    space.get_until(CLIENT, "http://db-1.db:8080/", &[], |answer| answer.status() == Some(403)).unwrap();
    assert_eq!(space.get(CLIENT, "http://db-0.db:8080/", &[]).unwrap().status(), Some(200));
}

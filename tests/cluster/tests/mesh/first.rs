//! The first quarter of an hour: a label, a restart, and what was readable is not any more.

use weft_cluster::scenario::{App, field};

const SECRET: &str = "nobody-on-the-node-may-read-this";

#[test]
fn a_labelled_and_restarted_namespace_speaks_mutual_tls_and_its_applications_do_not_notice() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.plain("first").unwrap();
    space.run(&[App::new("server"), App::new("client")]).unwrap();
    let ask =
        || space.get("deployment/client-v1", "http://server/hello", &["-H", &format!("X-Secret: {SECRET}")]);

    // A Service is real a moment after its pods are ready.
    space
        .get_until("deployment/client-v1", "http://server/", &[], |answer| answer.status() == Some(200))
        .unwrap();
    let tap = mesh.tap(SECRET, 8080).unwrap();
    assert_eq!(ask().unwrap().status(), Some(200));
    assert!(tap.end().unwrap().iter().any(|stream| stream.readable), "without a mesh the secret is readable");

    space.mesh.cluster.kubectl(&["label", "namespace", "first", "weft.dev/inject=enabled"]).unwrap();
    space.kubectl(&["rollout", "restart", "deployment"]).unwrap();
    space.rolled_out("deployment/server-v1").unwrap();
    space.rolled_out("deployment/client-v1").unwrap();
    let meshed = |label: &'static str| {
        space
            .until("only meshed pods", || {
                let pods = space.pods(label)?;
                let all = pods.iter().all(|pod| {
                    field(pod, "metadata.annotations").get("weft.dev/sidecar") == Some(&"injected".into())
                });
                (pods.len() == 1 && all).then(|| space.pod(label)).transpose()
            })
            .unwrap()
    };
    let (server, client) = (meshed("app=server"), meshed("app=client"));

    let tap = mesh.tap(SECRET, 8080).unwrap();
    let answer = ask().unwrap();
    let streams = tap.end().unwrap();
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    assert_eq!(answer.told("pod"), server.0);
    assert_eq!(answer.told("http"), "HTTP/1.1");
    assert_eq!(answer.received("x-secret"), Some(SECRET), "the server reads it");
    assert!(!streams.iter().any(|stream| stream.readable), "{streams:?}");
    let there = streams.iter().find(|stream| stream.from == client.1 && stream.to == server.1).unwrap();
    assert!(there.tls_client && there.to_port == 8080, "{there:?}");
    let back = streams.iter().find(|stream| stream.from == server.1 && stream.to == client.1).unwrap();
    assert!(back.tls_1_3_server && back.from_port == 8080, "{back:?}");

    let inbound = space.logged("app=server", |entry| entry["http.path"] == "/hello").unwrap();
    assert_eq!(inbound["direction"], "inbound", "{inbound}");
    assert_eq!(inbound["security"], "mutual_tls", "{inbound}");
    assert_eq!(inbound["src.identity"], "spiffe://cluster.local/ns/first/sa/client", "{inbound}");
    assert_eq!(inbound["dst.identity"], "spiffe://cluster.local/ns/first/sa/server", "{inbound}");
    assert_eq!(inbound["http.status"], 200, "{inbound}");
    let outbound = space.logged("app=client", |entry| entry["http.path"] == "/hello").unwrap();
    assert_eq!(outbound["direction"], "outbound", "{outbound}");
    assert_eq!(outbound["dst.identity"], "spiffe://cluster.local/ns/first/sa/server", "{outbound}");
}

#[test]
fn a_pod_without_a_sidecar_is_served_in_permissive_mode_and_refused_in_strict() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("strict").unwrap();
    let outside = mesh.plain("strict-outside").unwrap();
    space.run(&[App::new("server"), App::new("client")]).unwrap();
    outside.run(&[App::new("stranger")]).unwrap();
    let url = "http://server.strict/";
    let stranger = |url| outside.get("deployment/stranger-v1", url, &["--timeout=5"]);

    let served = stranger(url).unwrap();
    assert_eq!(served.status(), Some(200), "{served:?}");
    let entry = space
        .logged("app=server", |entry| entry["security"] == "none" && entry["kind"] == "request")
        .unwrap();
    assert_eq!(entry.get("src.identity"), None, "nobody vouched for it: {entry}");

    space
        .apply(
            "{apiVersion: weft.dev/v1alpha1, kind: TlsPolicy, metadata: {name: strict},
              spec: {targetRefs: [{kind: Workload, selector: {app: server}}], mode: Strict}}",
        )
        .unwrap();
    let refused = outside
        .until("the stranger to be refused", || {
            let answer = stranger(url)?;
            Ok((answer.status() != Some(200)).then_some(answer))
        })
        .unwrap();
    assert_eq!(refused.status(), Some(403), "{refused:?}");
    assert_eq!(refused.header("weft-reason"), Some("mtls_required"), "{refused:?}");
    let entry = space.logged("app=server", |entry| entry["reason"].is_string()).unwrap();
    assert_eq!(entry["security"], "none", "{entry}");
    assert!(entry["policy"].as_str().is_some_and(|policy| policy.contains("strict/strict")), "{entry}");

    let member = space.get("deployment/client-v1", "http://server/", &[]).unwrap();
    assert_eq!(member.status(), Some(200), "{member:?}");
    let other = stranger("http://client.strict/").unwrap();
    assert_eq!(other.status(), Some(200), "the policy is the server's alone: {other:?}");
}

//! Pods as Kubernetes has them, behind real redirection: the kubelet's probes, a pod that calls itself,
//! headless services, undeclared ports, and what the mesh leaves alone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "pods/place.rs"]
mod place;

use std::net::{TcpListener, TcpStream, UdpSocket};

use place::{DEADLINE, Place, application, get, run, send};
use weft_tests::in_netns;
use weft_tests::netns::has_other_users;

/// Mutual TLS for everybody.
const STRICT: &str = "\
apiVersion: weft.dev/v1alpha1
kind: TlsPolicy
metadata: {name: strict, namespace: test}
spec: {targetRefs: [{kind: Workload, selector: {app: server}}], mode: Strict}
";

/// Pod 1 with probes of every kind; its node probes it from the near end of its cable.
const PROBED: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: server-0, namespace: test, labels: {app: server}, annotations: {weft.dev/sidecar: injected}}
spec:
  serviceAccountName: server
  initContainers:
  - name: helper
    restartPolicy: Always
    startupProbe: {httpGet: {path: /started, port: 9000}}
  - name: weft-proxy
    restartPolicy: Always
    startupProbe: {httpGet: {path: /ready, port: 15020}}
  containers:
  - name: app
    ports: [{name: web, containerPort: 8080}]
    livenessProbe: {httpGet: {path: /healthz, port: web}}
    readinessProbe: {httpGet: {path: '/ready?full=1', port: 8080}}
  - name: store
    livenessProbe: {tcpSocket: {port: 6379}}
    readinessProbe: {grpc: {port: 9090}}
status:
  podIP: 10.88.1.2
  podIPs: [{ip: 10.88.1.2}, {ip: 'fd88:1::2'}]
  hostIP: 10.88.1.1
  hostIPs: [{ip: 10.88.1.1}, {ip: 'fd88:1::1'}]
---
";

fn is_ok(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 ")
}

#[test]
fn declared_probes_pass_under_strict_mutual_tls_from_the_node_and_nothing_else_does() {
    in_netns!(|| run(async {
        let mut place = Place::new(&["server-0", "other-0"], &format!("{PROBED}{STRICT}"));
        for port in ["8080", "9000", "6379"] {
            application(place.pod("server-0"), "server", &format!("[::]:{port}"));
        }
        place.start_control_plane().await;
        place.start_sidecar(1, "server-0").await;
        let (node, other) = (&place.node, place.pod("other-0"));
        for (address, target) in [
            ("10.88.1.2:8080", "/healthz"),
            ("10.88.1.2:8080", "/ready?full=1"),
            ("10.88.1.2:9000", "/started"),
            ("[fd88:1::2]:8080", "/healthz"),
        ] {
            let answer = get(node, None, address, target);
            assert!(is_ok(&answer) && answer.contains(target), "{address} {target}: {answer}");
        }
        for (from, source, address, target) in [
            (node, None, "10.88.1.2:8080", "/secret"),
            (node, None, "10.88.1.2:8080", "/healthz?secret"),
            (node, None, "10.88.1.2:8080", "/ready"),
            (node, None, "10.88.1.2:9000", "/healthz"),
            (node, None, "10.88.1.2:6379", "/healthz"),
            (node, Some("10.88.1.3"), "10.88.1.2:8080", "/healthz"),
            (other, None, "10.88.1.2:8080", "/healthz"),
            (other, None, "[fd88:1::2]:8080", "/healthz"),
        ] {
            let answer = get(from, source, address, target);
            assert!(!is_ok(&answer) && !answer.contains("server"), "{source:?} {address} {target}: {answer}");
        }
        // A second request on a probe's connection is judged for itself.
        let two = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET /secret HTTP/1.1\r\nhost: a\r\n\r\n";
        let answer = send(node, None, "10.88.1.2:8080", two);
        assert!(answer.contains("server /healthz") && !answer.contains("server /secret"), "{answer}");
        assert!(answer.contains("HTTP/1.1 403 "), "{answer}");
        let line = place.logged("server-0", "a probe", |line| line["probe"] == "http").await;
        assert_eq!((&line["src.address"].is_string(), &line["http.status"]), (&true, &200.into()), "{line}");
        let page = get(node, None, "10.88.1.2:15020", "/metrics");
        let probes = page.lines().find(|line| line.starts_with("weft_probes_total{kind=\"http\"}"));
        assert_eq!(probes, Some("weft_probes_total{kind=\"http\"} 5"), "{page}");
        // Counted as probes, not as traffic.
        let counted =
            page.lines().any(|line| line.starts_with("weft_requests_total") && line.contains("\"200\""));
        assert!(!counted, "{page}");
    }));
}

#[test]
fn a_tcp_probe_reaches_the_application_and_carries_no_byte() {
    in_netns!(|| run(async {
        let mut place = Place::new(&["server-0"], &format!("{PROBED}{STRICT}"));
        let application = place.pod("server-0").run(|| TcpListener::bind("[::]:6379").unwrap());
        place.start_control_plane().await;
        place.start_sidecar(1, "server-0").await;
        // As the kubelet does it: connect, close.
        drop(place.node.run(|| TcpStream::connect("10.88.1.2:6379").unwrap()));
        let (mut reached, _) = application.accept().unwrap();
        let line = place.logged("server-0", "the probe", |line| line["probe"] == "tcp").await;
        assert!(line["reason"].is_null(), "{line}");
        let mut heard = Vec::new();
        std::io::Read::read_to_end(&mut reached, &mut heard).unwrap();
        assert!(heard.is_empty());
        assert_eq!(send(&place.node, None, "10.88.1.2:6379", b"FLUSHALL\r\n"), "");
        place.logged("server-0", "the refusal", |line| line["reason"] == "mtls_required").await;
        application.set_nonblocking(true).unwrap();
        assert!(application.accept().is_err(), "what is no probe reached the application");
    }));
}

#[test]
fn from_outside_only_the_public_pages_of_the_sidecar_answer() {
    in_netns!(|| run(async {
        let mut place = Place::new(&["server-0"], PROBED);
        place.start_control_plane().await;
        place.start_sidecar(1, "server-0").await;
        for address in ["10.88.1.2:15020", "[fd88:1::2]:15020"] {
            assert!(is_ok(&get(&place.node, None, address, "/ready")), "{address}");
            assert!(get(&place.node, None, address, "/config").starts_with("HTTP/1.1 403 "), "{address}");
        }
        assert!(is_ok(&get(place.pod("server-0"), None, "127.0.0.1:15020", "/config")));
    }));
}

/// One pod that is its own only endpoint, an allowed client of itself and of nobody else.
const ALONE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: server, namespace: test}
spec: {clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10, 'fd96::10'], selector: {app: server}, ports: [{name: web, port: 80, targetPort: 8080}, {name: raw, port: 81, targetPort: 9000, appProtocol: tcp}]}
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: itself, namespace: test}
spec: {targetRefs: [{kind: Service, name: server}], action: Allow, rules: [{name: own, from: [{serviceAccounts: [test/server]}]}]}
---
";

#[test]
fn a_pod_that_calls_its_own_service_reaches_itself_by_its_identity_and_policy() {
    in_netns!(|| run(async {
        let mut place = Place::new(&["server-0"], &format!("{PROBED}{ALONE}{STRICT}"));
        for port in ["8080", "9000"] {
            application(place.pod("server-0"), "server", &format!("[::]:{port}"));
        }
        place.start_control_plane().await;
        place.start_sidecar(1, "server-0").await;
        let pod = place.pod("server-0");
        for address in ["10.96.0.10:80", "[fd96::10]:80"] {
            let answer = get(pod, None, address, "/self");
            assert!(is_ok(&answer) && answer.contains("server /self"), "{address}: {answer}");
        }
        assert_eq!(send(pod, None, "10.96.0.10:81", b"raw\n"), "server raw\n");
        let inbound = place
            .logged("server-0", "the inbound side", |line| {
                line["direction"] == "inbound" && line["http.path"] == "/self"
            })
            .await;
        assert_eq!(inbound["src.identity"], "spiffe://cluster.local/ns/test/sa/server", "{inbound}");
        assert_eq!(inbound["policy"], "test/itself#own", "{inbound}");
        assert!(inbound["src.address"].as_str().unwrap().starts_with("10.88.1.2:"), "{inbound}");
        // By its own address it does not leave the pod at all.
        for address in ["10.88.1.2:8080", "[fd88:1::2]:8080", "127.0.0.1:8080"] {
            assert!(get(pod, None, address, "/near").contains("server /near"), "{address}");
        }
    }));
}

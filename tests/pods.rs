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
fn a_sidecar_told_that_its_gateway_is_its_node_takes_probes_from_there_and_nothing_else() {
    // Many networks probe from an address that no Node and no pod's status names.
    let silent: String =
        PROBED.lines().filter(|line| !line.contains("hostIP")).map(|line| line.to_owned() + "\n").collect();
    in_netns!(|| for flag in [None, Some("--node-is-gateway")] {
        run(async {
            let mut place = Place::new(&["server-0", "other-0"], &format!("{silent}{STRICT}"));
            application(place.pod("server-0"), "server", "[::]:8080");
            place.start_control_plane().await;
            place.start_sidecar_with(1, "server-0", flag).await;
            let (node, other) = (&place.node, place.pod("other-0"));
            for address in ["10.88.1.2:8080", "[fd88:1::2]:8080"] {
                assert_eq!(
                    is_ok(&get(node, None, address, "/healthz")),
                    flag.is_some(),
                    "{flag:?} {address}"
                );
                assert!(!is_ok(&get(node, None, address, "/secret")), "{flag:?} {address}");
                assert!(!is_ok(&get(other, None, address, "/healthz")), "{flag:?} {address}");
            }
            assert!(!is_ok(&get(node, Some("10.88.1.3"), "10.88.1.2:8080", "/healthz")), "{flag:?}");
        });
    });
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

/// A client, and two pods that answer behind services of their own and behind one for both. `extra` are
/// routes and policies.
fn shop(extra: &str) -> String {
    let pod = |number: u8, name: &str, app: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: test, labels: {{app: {app}, all: web}}, annotations: {{weft.dev/sidecar: injected}}}}\n\
             spec: {{serviceAccountName: {app}, containers: [{{name: app, ports: [{{name: web, containerPort: 8080}}]}}]}}\n\
             status: {{podIP: 10.88.{number}.2, podIPs: [{{ip: 10.88.{number}.2}}, {{ip: 'fd88:{number}::2'}}]}}\n---\n"
        )
    };
    let service = |name: &str, selector: &str, ip: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: test}}\n\
             spec: {{clusterIP: {ip}, selector: {{{selector}}}, ports: [{{name: http, port: 80, targetPort: web, appProtocol: http}}, {{name: alt, port: 8080, targetPort: web}}]}}\n---\n"
        )
    };
    [
        pod(1, "client-0", "client").replace("all: web", "all: none"),
        pod(2, "one-0", "one"),
        pod(3, "two-0", "two"),
        service("web", "all: web", "10.96.1.1"),
        service("one", "app: one", "10.96.1.2"),
        service("two", "app: two", "10.96.1.3"),
        service("two-headless", "app: two", "None"),
        extra.to_owned(),
    ]
    .concat()
}

const PODS: [&str; 3] = ["client-0", "one-0", "two-0"];

async fn opened(extra: &str) -> Place {
    let mut place = Place::new(&PODS, &shop(extra));
    for (pod, name) in [("one-0", "one"), ("two-0", "two")] {
        for port in ["8080", "9000"] {
            application(place.pod(pod), name, &format!("[::]:{port}"));
        }
    }
    place.start_control_plane().await;
    for (number, pod) in (1..).zip(PODS) {
        place.start_sidecar(number, pod).await;
    }
    place
}

fn marking(name: &str, parent: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: test}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, {parent}}}]\n  rules:\n  - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-marked, value: {name}}}]}}}}]\n    \
         backendRefs: [{{name: {name}, port: 80}}]\n---\n"
    )
}

#[test]
fn the_cluster_address_decides_and_never_the_host_and_a_pods_own_address_has_no_route() {
    in_netns!(|| run(async {
        let routes = [marking("two", "name: two"), marking("one", "name: one, port: 80")].concat();
        let place = opened(&routes).await;
        let client = place.pod("client-0");
        let asking = |address: &str, host: &str| {
            let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            let answer = send(client, None, address, request.as_bytes());
            assert!(is_ok(&answer), "{address} {host}: {answer}");
            let marked = answer.lines().find_map(|line| line.strip_prefix("x-marked: ")).map(str::to_owned);
            (answer.lines().last().unwrap_or_default().to_owned(), marked)
        };
        for (address, host, by, mark) in [
            ("10.96.1.3:80", "one", "two /", Some("two")),
            ("10.96.1.3:8080", "one", "two /", Some("two")),
            ("10.96.1.2:80", "two", "one /", Some("one")),
            // The route names port 80 of this service alone.
            ("10.96.1.2:8080", "two", "one /", None),
            // By the pod's own address there is no service and no route.
            ("10.88.3.2:8080", "two", "two /", None),
            ("[fd88:3::2]:8080", "two", "two /", None),
        ] {
            assert_eq!(asking(address, host), (by.to_owned(), mark.map(str::to_owned)), "{address} {host}");
        }
    }));
}

#[test]
fn five_hundred_calls_at_once_are_shared_by_weight_and_soon_done() {
    in_netns!(|| run(async {
        let split = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split, namespace: test}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules: [{backendRefs: [{name: one, port: 80, weight: 70}, {name: two, port: 80, weight: 30}, {name: nobody, port: 80, weight: 0}]}]
";
        let place = opened(split).await;
        let client = place.pod("client-0");
        let begun = std::time::Instant::now();
        let answers: Vec<String> = client.run(|| {
            std::thread::scope(|scope| {
                let calls: Vec<_> = (0..50)
                    .map(|_| {
                        scope.spawn(|| {
                            (0..10).map(|_| get(client, None, "10.96.1.1:80", "/")).collect::<Vec<_>>()
                        })
                    })
                    .collect();
                calls.into_iter().flat_map(|call| call.join().unwrap()).collect()
            })
        });
        let took = begun.elapsed();
        let by = |name: &str| answers.iter().filter(|answer| is_ok(answer) && answer.ends_with(name)).count();
        let (one, two) = (by("one /\n"), by("two /\n"));
        assert_eq!(one + two, 500, "{:?}", answers.iter().find(|answer| !is_ok(answer)));
        assert!((325..=375).contains(&one), "{one} of 500 went to the backend of weight 70");
        eprintln!("500 calls, each on a connection of its own, took {took:?}");
    }));
}

#[test]
fn headless_pods_and_undeclared_ports_are_mutual_tls_under_the_pods_own_policy() {
    in_netns!(|| run(async {
        if !has_other_users() {
            return;
        }
        let policy = "\
apiVersion: weft.dev/v1alpha1
kind: TlsPolicy
metadata: {name: strict, namespace: test}
spec: {targetRefs: [{kind: Workload, selector: {app: two}}], mode: Strict}
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: not-nine, namespace: test}
spec: {targetRefs: [{kind: Workload, selector: {app: two}}], action: Deny, rules: [{name: port, from: [{serviceAccounts: [test/one]}]}]}
";
        let place = opened(policy).await;
        let client = place.pod("client-0");
        assert!(get(client, None, "10.88.3.2:8080", "/direct").contains("two /direct"));
        assert_eq!(send(client, None, "10.88.3.2:9000", b"undeclared\n"), "two undeclared\n");
        assert_eq!(send(client, None, "[fd88:3::2]:9000", b"undeclared\n"), "two undeclared\n");
        let line = place
            .logged("two-0", "an undeclared port", |line| {
                line["kind"] == "connection" && line["bytes.up"] == 11
            })
            .await;
        assert_eq!(line["security"], "mutual_tls", "{line}");
        assert_eq!(line["src.identity"], "spiffe://cluster.local/ns/test/sa/client", "{line}");
        assert_eq!(send(place.pod("one-0"), None, "10.88.3.2:9000", b"let me in\n"), "");
        let line = place.logged("two-0", "a refusal", |line| line["reason"] == "denied_by_policy").await;
        assert_eq!(line["policy"], "test/not-nine#port", "{line}");
    }));
}

#[test]
fn the_api_server_foreign_addresses_and_datagrams_are_left_as_they_are() {
    in_netns!(|| run(async {
        let kubernetes = "\
apiVersion: v1
kind: Service
metadata: {name: kubernetes, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443, targetPort: 6443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
ports: [{name: https, port: 6443}]
endpoints: [{addresses: [10.88.1.1], conditions: {ready: true}}]
";
        let place = opened(kubernetes).await;
        let client = place.pod("client-0");
        // A handshake of the application's own: it must arrive byte for byte, and so must what comes back.
        let server = place.node.run(|| TcpListener::bind("10.88.1.1:6443").unwrap());
        let hello =
            [&[22, 3, 1, 0, 47, 1, 0, 0, 43, 3, 3][..], &[7; 32], &[0, 0, 2, 19, 1, 1, 0, 0, 0]].concat();
        let mut stream = client.run(|| TcpStream::connect("10.96.0.1:443").unwrap());
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        std::io::Write::write_all(&mut stream, &hello).unwrap();
        let (mut arrived, _) = server.accept().unwrap();
        arrived.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut heard = vec![0; hello.len()];
        std::io::Read::read_exact(&mut arrived, &mut heard).unwrap();
        assert_eq!(heard, hello);
        std::io::Write::write_all(&mut arrived, b"\x15\x03\x01").unwrap();
        std::io::Read::read_exact(&mut stream, &mut heard[..3]).unwrap();
        assert_eq!(heard[..3], *b"\x15\x03\x01");
        // What an ExternalName leads to is an address that the mesh knows nothing about.
        application(&place.node, "outside", "10.88.1.3:7777");
        assert_eq!(send(client, None, "10.88.1.3:7777", b"hello\n"), "outside hello\n");
        let socket = place.node.run(|| UdpSocket::bind("10.88.1.1:5353").unwrap());
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let asking = client.run(|| UdpSocket::bind("10.88.1.2:0").unwrap());
        asking.send_to(b"?", "10.88.1.1:5353").unwrap();
        let (length, from) = socket.recv_from(&mut [0; 8]).unwrap();
        assert_eq!((length, from), (1, asking.local_addr().unwrap()));
    }));
}

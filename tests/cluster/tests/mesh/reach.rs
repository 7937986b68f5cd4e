//! Everything that Kubernetes' network can do still works, and is the mesh's where it can be.

use weft_cluster::scenario::{App, field};

const CLIENT: &str = "deployment/client-v1";

#[test]
fn a_pod_reaches_itself_others_directly_names_outside_and_services_without_selectors() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("reach").unwrap();
    space.run(&[App::new("client"), App::new("server")]).unwrap();
    let (server, address) = space.pod("app=server").unwrap();
    let own = space.pod("app=client").unwrap().0;
    let get = |url: &str| space.get(CLIENT, url, &["--timeout=10"]).unwrap();

    let hairpin = get("http://client/itself");
    assert_eq!((hairpin.status(), hairpin.told("pod")), (Some(200), own.as_str()), "{hairpin:?}");

    let direct = get(&format!("http://{address}:8080/direct"));
    assert_eq!((direct.status(), direct.told("pod")), (Some(200), server.as_str()), "{direct:?}");
    let entry = space.logged("app=server", |entry| entry["http.path"] == "/direct").unwrap();
    assert_eq!(entry["security"], "mutual_tls", "{entry}");

    space
        .apply(&format!(
            "
{{apiVersion: v1, kind: Service, metadata: {{name: by-hand}}, spec: {{ports: [{{name: http, port: 80, targetPort: 8080}}]}}}}
---
{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
  metadata: {{name: by-hand-1, labels: {{kubernetes.io/service-name: by-hand}}}},
  ports: [{{name: http, port: 8080, protocol: TCP}}], endpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: alias}}, spec: {{type: ExternalName, externalName: server.reach.svc.cluster.local}}}}
"
        ))
        .unwrap();
    let by_hand = space
        .get_until(CLIENT, "http://by-hand/selectorless", &["--timeout=5"], |answer| {
            answer.status() == Some(200)
        })
        .unwrap();
    assert_eq!(by_hand.told("pod"), server, "{by_hand:?}");
    let alias = get("http://alias/alias");
    assert_eq!((alias.status(), alias.told("pod")), (Some(200), server.as_str()), "{alias:?}");
    let entry = space.logged("app=server", |entry| entry["http.path"] == "/alias").unwrap();
    assert_eq!(entry["security"], "mutual_tls", "{entry}");

    let api = get("https://kubernetes.default/version");
    assert_eq!(api.status(), Some(200), "{api:?}");
    assert_eq!(field(&api.0, "json.gitVersion"), "v1.34.4", "{api:?}");
}

#[test]
fn undeclared_ports_and_protocols_that_speak_first_pass_with_mutual_tls() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("bytes").unwrap();
    space.run(&[App::new("client"), App::new("server").arguments(&["--tcp=9500"])]).unwrap();
    let (server, address) = space.pod("app=server").unwrap();
    let tap = mesh.tap("a-line-to-hide", 9091).unwrap();
    let told = &space.load(CLIENT, &["tcp", "server:9091", "--greeted", "--say=a-line-to-hide"]).unwrap()[0];
    assert_eq!(told["greeting"], format!("welcome to {server}"), "{told}");
    assert_eq!(told["answer"], format!("{server} heard a-line-to-hide"), "{told}");
    let streams = tap.end().unwrap();
    assert!(!streams.iter().any(|stream| stream.readable), "{streams:?}");
    assert!(streams.iter().any(|stream| stream.tls_1_3_server && stream.from == address), "{streams:?}");

    let told = &space.load(CLIENT, &["tcp", "server:9090"]).unwrap()[0];
    assert_eq!(told["answer"], format!("{server} heard hello"), "{told}");
    // Neither the Service nor the pod declares this port.
    let told = &space.load(CLIENT, &["tcp", &format!("{address}:9500")]).unwrap()[0];
    assert_eq!(told["answer"], format!("{server} heard hello"), "{told}");
    let entry = space
        .logged("app=server", |entry| {
            entry["kind"] == "connection" && entry["dst.address"] == format!("{address}:9500")
        })
        .unwrap();
    assert_eq!(entry["security"], "mutual_tls", "{entry}");
    // HTTP on a port that says nothing of its protocol, in both versions.
    for flags in [&[][..], &["--http2"]] {
        let answer = space.get(CLIENT, "http://server:8081/guessed", flags).unwrap();
        assert_eq!(answer.status(), Some(200), "{answer:?}");
        assert_eq!(answer.told("http"), if flags.is_empty() { "HTTP/1.1" } else { "HTTP/2.0" }, "{answer:?}");
    }
}

#[test]
fn host_ports_exec_and_port_forward_work_for_meshed_pods() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("host-port").unwrap();
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: on-host, labels: {app: on-host}}
spec:
  containers:
  - {name: app, image: 'localhost/weft/load:test', imagePullPolicy: Never, args: [serve],
     ports: [{containerPort: 8080, hostPort: 18081}]}
";
    space.apply(pod).unwrap();
    space.kubectl(&["wait", "pod/on-host", "--for=condition=Ready", "--timeout=60s"]).unwrap();
    let told = space.until("the host's port to answer", || {
        let told = mesh.on_node(&["get", "http://172.30.99.1:18081/host", "--timeout=5"])?;
        if told[0]["status"] == 200 { Ok(Some(told)) } else { anyhow::bail!("{told:?}") }
    });
    assert_eq!(told.unwrap()[0]["json"]["pod"], "on-host");
    let forward = mesh.forwarded(&space.name, "pod/on-host", 8080, "/forwarded").unwrap();
    assert_eq!(forward["json"]["pod"], "on-host", "{forward}");
    // `exec` is what every request of these scenarios is made by.
    let own = space.get("pod/on-host", "http://127.0.0.1:8080/self", &[]).unwrap();
    assert_eq!(own.told("pod"), "on-host", "{own:?}");
}

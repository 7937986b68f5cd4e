//! Services, slices and pods: addresses, endpoints, ports, protocols.

use super::*;

#[test]
fn addresses_mean_services_pods_or_nothing() {
    let config = shop("").config;
    for (address, expected) in [
        ("10.96.0.7:80", "service shop/catalog:80"),
        ("10.96.0.7:9000", "service shop/catalog:9000"),
        ("[::ffff:10.96.0.7]:80", "service shop/catalog:80"),
        ("10.96.0.7:81", "unknown"),
        ("10.1.0.1:8080", "pod shop/catalog-0 at 10.1.0.1:8080"),
        ("10.1.0.1:1", "pod shop/catalog-0 at 10.1.0.1:1"),
        ("10.1.0.9:8080", "unknown"),
    ] {
        assert_eq!(meaning(&config, address), expected, "{address}");
    }
}

#[test]
fn a_pod_address_carries_the_identity_of_a_pod_with_a_sidecar_only() {
    let config = shop("").config;
    let identity = |address: &str| match config.address(address.parse().unwrap()) {
        Address::Workload(endpoint) => endpoint.identity,
        other => panic!("{other:?}"),
    };
    assert_eq!(identity("10.1.0.1:1"), "spiffe://cluster.local/ns/shop/sa/catalog");
    assert_eq!(identity("10.1.0.2:1"), "");
    assert_eq!(identity("10.1.0.3:1"), "spiffe://cluster.local/ns/shop/sa/cart");
}

#[test]
fn pods_that_share_an_address_are_told_apart_by_the_ports_they_declare() {
    let pod = |name: &str, port: u16| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, annotations: {{weft.dev/pod-ip: 127.0.0.1}}}}\nspec: {{containers: [{{name: a, ports: [{{containerPort: {port}}}]}}]}}"
        )
    };
    let config = compile(&model(&format!("{}\n---\n{}", pod("a", 1001), pod("b", 1002))));
    assert_eq!(meaning(&config, "127.0.0.1:1001"), "pod default/a at 127.0.0.1:1001");
    assert_eq!(meaning(&config, "127.0.0.1:1002"), "pod default/b at 127.0.0.1:1002");
    assert_eq!(meaning(&config, "127.0.0.1:1003"), "unknown");
}

#[test]
fn a_pod_on_its_nodes_address_owns_only_the_ports_it_declares() {
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: true, containers: [{name: a, ports: [{containerPort: 99}]}]}\nstatus: {podIP: 10.9.9.9}";
    let config = compile(&model(yaml));
    assert_eq!(meaning(&config, "10.9.9.9:99"), "pod default/a at 10.9.9.9:99");
    assert_eq!(meaning(&config, "10.9.9.9:22"), "unknown");
}

#[test]
fn a_pod_that_has_ended_no_longer_has_its_address_nor_settings() {
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {podIP: 10.9.9.9, phase: Succeeded}";
    let config = compile(&model(yaml));
    assert_eq!(meaning(&config, "10.9.9.9:80"), "unknown");
    assert_eq!(config.resources.len(), 1);
}

#[test]
fn of_two_services_with_one_address_the_older_has_it_and_the_other_is_told() {
    let service = |name: &str, date: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, creationTimestamp: '{date}'}}\nspec: {{clusterIP: 127.1.0.1, ports: [{{port: 80}}]}}"
        )
    };
    let yaml =
        format!("{}\n---\n{}", service("a", "2026-02-01T00:00:00Z"), service("b", "2026-01-01T00:00:00Z"));
    let compiled = build(&model(&yaml));
    assert_eq!(meaning(&compiled.config, "127.1.0.1:80"), "service default/b:80");
    assert_eq!(
        compiled.report.lines(),
        [
            "shop.yaml:1: Service default/a: warning: address 127.1.0.1:80 belongs to default/b:80, which is older"
        ]
    );
}

#[test]
fn without_slices_endpoints_are_the_selected_pods_at_their_own_port() {
    let compiled = shop("");
    assert_eq!(
        compiled.endpoints("shop/catalog:80"),
        ["10.1.0.1:8080", "10.1.0.2:8081"],
        "by name, pod by pod"
    );
    assert_eq!(compiled.endpoints("shop/catalog:9000"), ["10.1.0.1:9001", "10.1.0.2:9001"]);
    let backend = compiled.config.backend("shop/catalog:80").unwrap();
    assert_eq!(backend.endpoints[0].workload, "shop/catalog-0");
    assert_eq!(backend.endpoints[0].identity, "spiffe://cluster.local/ns/shop/sa/catalog");
    assert_eq!((backend.endpoints[1].identity.as_str(), backend.endpoints[1].weight), ("", 1));
}

const UNREADY: &str = "
apiVersion: v1
kind: Pod
metadata: {name: catalog-2, namespace: shop, labels: {app: catalog}}
spec: {containers: [{name: app, ports: [{name: http, containerPort: 80}]}]}
status: {podIP: 10.1.0.4, conditions: [{type: Ready, status: 'False'}]}
";

#[test]
fn an_unready_pod_is_no_endpoint_unless_the_service_says_so() {
    assert_eq!(shop(UNREADY).endpoints("shop/catalog:80").len(), 2);
    let early = SHOP
        .replace("selector: {app: catalog}", "selector: {app: catalog}\n  publishNotReadyAddresses: true");
    let compiled = build(&model(&format!("{early}\n---{UNREADY}")));
    assert_eq!(compiled.endpoints("shop/catalog:80").len(), 3);
}

#[test]
fn one_slice_is_enough_for_pods_not_to_be_selected() {
    let slice = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: catalog-x, namespace: shop, labels: {kubernetes.io/service-name: catalog}}
addressType: IPv4
ports: [{name: web, port: 8080}, {name: admin, port: 9001, protocol: UDP}]
endpoints:
- {addresses: [10.1.0.1, 10.1.0.77], zone: a, targetRef: {kind: Pod, name: catalog-0}}
- {addresses: [10.1.0.50]}
- {addresses: [10.1.0.51], conditions: {ready: false}}
- {addresses: [10.1.0.3], conditions: {ready: true}}
- {addresses: [nonsense]}
";
    let compiled = shop(slice);
    assert_eq!(compiled.endpoints("shop/catalog:80"), ["10.1.0.1:8080", "10.1.0.3:8080", "10.1.0.50:8080"]);
    assert_eq!(compiled.endpoints("shop/catalog:9000"), Vec::<&str>::new(), "UDP is not the mesh's");
    let endpoints = &compiled.config.backend("shop/catalog:80").unwrap().endpoints;
    let who: Vec<(&str, &str)> =
        endpoints.iter().map(|one| (one.workload.as_str(), one.zone.as_str())).collect();
    assert_eq!(who, [("shop/catalog-0", "a"), ("shop/cart-0", ""), ("", "")]);
}

#[test]
fn an_endpoint_that_two_slices_name_is_one_and_ready_if_either_says_so() {
    let slice = |name: &str, rest: &str| {
        format!(
            "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: cart}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints: [{{addresses: [192.0.2.7], {rest}}}]
"
        )
    };
    let known = "conditions: {ready: false}, targetRef: {kind: Pod, name: catalog-1}";
    for slices in [[("a", ""), ("b", known)], [("a", known), ("b", "")]] {
        let compiled = shop(&slices.map(|(name, rest)| slice(name, rest)).join("---"));
        let endpoints = &compiled.config.backend("shop/cart:80").unwrap().endpoints;
        assert_eq!(endpoints.len(), 1);
        assert_eq!(
            (endpoints[0].address.as_str(), endpoints[0].workload.as_str()),
            ("192.0.2.7:8080", "shop/catalog-1")
        );
    }
}

#[test]
fn a_service_without_selector_has_the_endpoints_made_by_hand() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: legacy, namespace: shop}
spec: {clusterIP: 10.96.0.9, ports: [{port: 3306, appProtocol: mysql}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: legacy-1, namespace: shop, labels: {kubernetes.io/service-name: legacy}}
addressType: IPv4
ports: [{port: 33060}]
endpoints: [{addresses: [192.0.2.7]}]
";
    let compiled = shop(yaml);
    assert_eq!(compiled.endpoints("shop/legacy:3306"), ["192.0.2.7:33060"]);
    assert_eq!(compiled.outbound("shop/legacy:3306", "any").protocol, Protocol::Opaque);
}

#[test]
fn a_headless_service_has_a_backend_and_its_pods_are_called_directly() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: peers, namespace: shop}
spec: {clusterIP: None, selector: {app: catalog}, ports: [{port: 7000}]}
";
    let compiled = shop(yaml);
    assert_eq!(compiled.endpoints("shop/peers:7000"), ["10.1.0.1:7000", "10.1.0.2:7000"]);
    assert_eq!(meaning(&compiled.config, "10.1.0.1:7000"), "pod shop/catalog-0 at 10.1.0.1:7000");
    assert_eq!(compiled.inbound("shop/catalog-0").services, ["shop/catalog", "shop/peers"]);
}

#[test]
fn an_external_name_is_no_service_of_the_mesh() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: away, namespace: shop}
spec: {type: ExternalName, externalName: example.com, ports: [{port: 80}]}
";
    let config = shop(yaml).config;
    assert!(config.outbound("shop/away:80", "shop").is_none() && config.backend("shop/away:80").is_none());
}

#[test]
fn a_pod_of_both_families_is_one_endpoint_of_the_services_family() {
    let service = |ips: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{clusterIPs: {ips}, selector: {{a: b}}, ports: [{{port: 80}}]}}"
        )
    };
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {a: b}}\nstatus: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}";
    let endpoints = |ips: &str| {
        let compiled = build(&model(&format!("{}\n---\n{pod}", service(ips))));
        compiled.endpoints("default/s:80").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(endpoints("[10.96.0.1]"), ["10.0.0.1:80"]);
    assert_eq!(endpoints("['fd00:1::1']"), ["[fd00::1]:80"]);
}

#[test]
fn app_protocol_is_what_the_port_speaks() {
    for (declared, protocol) in [
        ("http", Protocol::Http1),
        ("HTTP", Protocol::Http1),
        ("kubernetes.io/ws", Protocol::Http1),
        ("grpc", Protocol::Http2),
        ("kubernetes.io/h2c", Protocol::Http2),
        ("https", Protocol::Tls),
        ("kubernetes.io/wss", Protocol::Tls),
        ("tcp", Protocol::Opaque),
        ("postgres", Protocol::Opaque),
        ("smtp", Protocol::Opaque),
        ("example.com/own", Protocol::Unspecified),
    ] {
        let yaml = SHOP.replace(
            "name: admin, port: 9000,",
            &format!("name: admin, port: 9000, appProtocol: {declared},"),
        );
        let compiled = build(&model(&yaml));
        assert_eq!(compiled.outbound("shop/catalog:9000", "shop").protocol, protocol, "{declared}");
        assert_eq!(compiled.config.backend("shop/catalog:9000").unwrap().protocol, protocol, "{declared}");
        let inbound = compiled.inbound("shop/catalog-0");
        let port = inbound.ports.iter().find(|port| port.port == 9001).unwrap();
        assert_eq!(
            (port.protocol, port.service_ports.as_slice()),
            (protocol, ["shop/catalog:9000".to_owned()].as_slice())
        );
        let told = compiled
            .report
            .lines()
            .iter()
            .any(|line| line.contains("appProtocol \"example.com/own\" is not known"));
        assert_eq!(told, protocol == Protocol::Unspecified, "{declared}");
    }
}

#[test]
fn a_port_of_which_two_services_disagree_is_detected() {
    let service = |name: &str, protocol: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{selector: {{app: cart}}, ports: [{{port: 80, targetPort: 8080, appProtocol: {protocol}}}]}}"
        )
    };
    let protocol = |first: &str, second: &str| {
        let compiled = shop(&format!("{}\n---\n{}", service("x", first), service("y", second)));
        compiled.inbound("shop/cart-0").ports[0].protocol
    };
    assert_eq!(protocol("http", "http"), Protocol::Http1);
    assert_eq!(protocol("http", "grpc"), Protocol::Unspecified);
}

#[test]
fn inbound_names_account_owner_services_and_ports() {
    let compiled = shop("");
    let inbound = compiled.inbound("shop/catalog-0");
    assert_eq!(
        (inbound.namespace.as_str(), inbound.service_account.as_str(), inbound.owner.as_str()),
        ("shop", "catalog", "catalog-0")
    );
    assert_eq!(inbound.services, ["shop/catalog"]);
    let ports: Vec<(u16, &str)> =
        inbound.ports.iter().map(|port| (port.port, port.service_ports[0].as_str())).collect();
    assert_eq!(ports, [(8080, "shop/catalog:80"), (9001, "shop/catalog:9000")]);
    assert_eq!(compiled.inbound("shop/catalog-1").ports[0].port, 8081);
}

/// What the shop's catalog pod says about its own ports.
fn with_opaque_ports(ports: &str) -> String {
    SHOP.replace(
        "annotations: {weft.dev/pod-ip: 10.1.0.2}",
        &format!("annotations: {{weft.dev/pod-ip: 10.1.0.2, weft.dev/opaque-ports: '{ports}'}}"),
    )
}

#[test]
fn opaque_ports_hold_for_the_pods_sidecar_and_for_every_client() {
    let compiled = build(&model(&with_opaque_ports("8081")));
    assert_eq!(compiled.outbound("shop/catalog:80", "web").protocol, Protocol::Opaque);
    assert_eq!(compiled.outbound("shop/catalog:9000", "web").protocol, Protocol::Unspecified);
    assert_eq!(compiled.config.backend("shop/catalog:80").unwrap().protocol, Protocol::Opaque);
    let port = |pod: &str, port: u16| compiled.inbound(pod).ports.iter().find(|it| it.port == port).cloned();
    assert_eq!(port("shop/catalog-1", 8081).unwrap().protocol, Protocol::Opaque);
    // The service's clients speak bytes to all of its pods.
    assert_eq!(port("shop/catalog-0", 8080).unwrap().protocol, Protocol::Opaque);
    assert_eq!(port("shop/catalog-1", 9001).unwrap().protocol, Protocol::Unspecified);
}

#[test]
fn opaque_ports_that_no_service_names_are_listed_and_ranges_mean_declared_ports() {
    let compiled = build(&model(&with_opaque_ports("5432,8000-9000")));
    let ports: Vec<_> =
        compiled.inbound("shop/catalog-1").ports.iter().map(|it| (it.port, it.protocol)).collect();
    let (opaque, detected) = (Protocol::Opaque, Protocol::Unspecified);
    assert_eq!(ports, [(5432, opaque), (8081, opaque), (9001, detected)]);
}

#[test]
fn opaque_ports_that_make_no_sense_change_nothing() {
    assert_eq!(build(&model(&with_opaque_ports("web"))).config, shop("").config);
}

#[test]
fn a_pods_probes_and_where_they_come_from_are_part_of_its_inbound_settings() {
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  nodeName: n1
  initContainers:
  - {name: helper, restartPolicy: Always, startupProbe: {httpGet: {port: 9000}}}
  - {name: weft-proxy, restartPolicy: Always, startupProbe: {httpGet: {path: /ready, port: 15020}}}
  containers:
  - name: app
    ports: [{name: web, containerPort: 8080}, {name: grpc, containerPort: 9090}]
    livenessProbe: {httpGet: {path: 'healthz?full=1', port: web}}
    readinessProbe: {grpc: {port: 9090, service: cart}}
    startupProbe: {httpGet: {path: /healthz, port: 8443, scheme: HTTPS}}
  - name: store
    livenessProbe: {tcpSocket: {port: 6379}}
    readinessProbe: {exec: {command: [ping]}}
    startupProbe: {httpGet: {host: elsewhere, port: 80}}
  - name: same
    ports: [{name: web, containerPort: 8081}]
    livenessProbe: {tcpSocket: {port: 6379}}
    readinessProbe: {httpGet: {path: /, port: nobody}}
status: {podIP: 10.9.9.9, hostIP: 10.0.0.1, hostIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}
";
    let node = "
---
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDR: 10.244.3.0/24, podCIDRs: [10.244.3.0/24, 'fd44:3::/64']}
status: {addresses: [{type: InternalIP, address: 10.0.0.1}, {type: ExternalIP, address: 192.0.2.1}, {type: Hostname, address: n1}]}
";
    let told = |yaml: &str| match compile(&model(yaml))
        .resources
        .remove(&Key::new(ResourceType::Inbound, "default/a"))
    {
        Some(Resource::Inbound(inbound)) => (
            inbound.probes.into_iter().map(|probe| (probe.port, probe.kind)).collect::<Vec<_>>(),
            inbound.probe_sources.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ),
        other => panic!("{other:?}"),
    };
    let (probes, sources) = told(pod);
    assert_eq!(
        probes,
        [
            (6379, ProbeKind::Tcp),
            (8080, ProbeKind::Http("/healthz?full=1".to_owned())),
            (8443, ProbeKind::Https),
            (9000, ProbeKind::Http("/".to_owned())),
            (9090, ProbeKind::Grpc("cart".to_owned())),
        ]
    );
    assert_eq!(sources, ["10.0.0.1", "fd00::1"]);
    let (again, sources) = told(&format!("{pod}{node}"));
    assert_eq!(again, probes);
    assert_eq!(sources, ["10.0.0.1", "10.244.3.1", "192.0.2.1", "fd00::1", "fd44:3::1"]);
}

#[test]
fn endpoints_that_end_serve_while_no_other_is_ready() {
    let slice = |first: &str, second: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{clusterIP: 10.96.0.1, selector: {{app: s}}, ports: [{{port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s-1, labels: {{kubernetes.io/service-name: s}}}}\naddressType: IPv4\nports: [{{port: 8080}}]\n\
             endpoints: [{{addresses: [10.1.0.1], conditions: {first}}}, {{addresses: [10.1.0.2], conditions: {second}}}]"
        )
    };
    let (ready, ending) = ("{ready: true}", "{ready: false, serving: true, terminating: true}");
    let gone = "{ready: false, serving: false, terminating: true}";
    for (first, second, expected) in [
        (ready, ending, &["10.1.0.1:8080"][..]),
        (ending, ending, &["10.1.0.1:8080", "10.1.0.2:8080"]),
        (ending, gone, &["10.1.0.1:8080"]),
        (gone, "{ready: false}", &[]),
    ] {
        let config = compile(&model(&slice(first, second)));
        let key = Key::new(ResourceType::Backend, "default/s:80");
        let Some(Resource::Backend(backend)) = config.resources.get(&key) else { panic!("no backend") };
        let addresses: Vec<&str> =
            backend.endpoints.iter().map(|endpoint| endpoint.address.as_str()).collect();
        assert_eq!(addresses, expected, "{first} {second}");
    }
}

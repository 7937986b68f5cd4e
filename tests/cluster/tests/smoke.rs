//! The cluster itself: a pod gets ready, has a name, and can be reached.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's own helpers may fail the test")]

use weft_cluster::cluster::{Cluster, Options, ProxyMode};
use weft_cluster::workload;

#[test]
fn a_pod_gets_ready_and_answers_by_its_services_name() {
    let Some(cluster) = Cluster::shared() else { return };
    cluster.namespace("smoke", &["purpose=smoke"]).unwrap();
    cluster.apply(&workload::manifests("smoke", "web", "v1")).unwrap();
    cluster.rolled_out("smoke", "deployment/web-v1").unwrap();
    let called = || {
        let answers = cluster.call("smoke", "deployment/web-v1", "http://web/path", &["--count=3"])?;
        Ok((answers.len() == 3).then_some(answers))
    };
    for answer in cluster.wait_until("smoke", "three answers of http://web", called).unwrap() {
        assert_eq!(answer.field("StatusCode"), Some("200"), "{answer:?}");
        assert_eq!(answer.field("ServiceVersion"), Some("v1"), "{answer:?}");
        assert!(answer.field("Hostname").is_some_and(|name| name.starts_with("web-v1-")), "{answer:?}");
    }
}

#[test]
fn a_failing_command_says_what_it_was_and_what_it_answered() {
    let Some(cluster) = Cluster::shared() else { return };
    let error = cluster.kubectl(&["get", "pod", "nobody"]).unwrap_err().to_string();
    assert!(error.contains("get pod nobody") && error.contains("NotFound"), "{error}");
}

#[test]
fn what_pod_security_forbids_is_refused_as_on_any_cluster() {
    let Some(cluster) = Cluster::shared() else { return };
    cluster.namespace("guarded", &["pod-security.kubernetes.io/enforce=restricted"]).unwrap();
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: bold, namespace: guarded}
spec: {hostNetwork: true, containers: [{name: bold, image: 'localhost/echo:1'}]}
";
    let error = cluster.apply(pod).unwrap_err().to_string();
    assert!(error.contains("violates PodSecurity \"restricted:latest\""), "{error}");
}

#[test]
fn a_second_cluster_has_both_families_and_iptables() {
    if Cluster::shared().is_none() {
        return;
    }
    let name = format!("second-{}", std::process::id());
    let mut options = Options::new(&name).with_echo().unwrap();
    (options.dual_stack, options.proxy_mode) = (true, ProxyMode::Iptables);
    let cluster = Cluster::start(&options).unwrap();
    cluster.namespace("both", &[]).unwrap();
    cluster.apply(&workload::manifests("both", "web", "v1")).unwrap();
    let families = r#"{"spec": {"ipFamilyPolicy": "RequireDualStack"}}"#;
    cluster.kubectl(&["patch", "service", "web", "--namespace=both", "--patch", families]).unwrap();
    cluster.rolled_out("both", "deployment/web-v1").unwrap();
    let path = "--output=jsonpath={.spec.clusterIPs[*]}";
    let addresses = cluster.kubectl(&["get", "service", "web", "--namespace=both", path]).unwrap();
    let (four, six) = addresses.split_once(' ').expect("two addresses");
    for url in [format!("http://{four}/"), format!("http://[{six}]/"), "http://web/".to_owned()] {
        let called = || Ok(Some(cluster.call("both", "deployment/web-v1", &url, &[])?));
        let answers = cluster.wait_until("both", &url, called).unwrap();
        assert_eq!(answers[0].field("StatusCode"), Some("200"), "{url}: {answers:?}");
    }
    let folder = cluster.folder().to_owned();
    drop(cluster);
    assert!(!folder.exists(), "{} is left", folder.display());
    let cgroup = format!("/sys/fs/cgroup/memory/weft-{name}");
    assert!(!std::path::Path::new(&cgroup).exists(), "{cgroup} is left");
}

#[test]
fn the_api_is_reached_from_outside_and_pods_from_a_thread_inside() {
    let Some(cluster) = Cluster::shared() else { return };
    let mut kubectl = std::process::Command::new(cluster.programs().join("kubectl"));
    kubectl.arg("--kubeconfig").arg(cluster.outside_kubeconfig()).args(["get", "nodes", "--output=name"]);
    assert_eq!(String::from_utf8_lossy(&kubectl.output().unwrap().stdout), "node/node1\n");
    // The name server's own address exists only in there.
    let server = "10.96.0.10:53";
    let inside = cluster.inside(|| std::net::TcpStream::connect(server)).unwrap();
    assert_eq!(inside.unwrap().peer_addr().unwrap().to_string(), server);
}

//! The cluster itself: a pod gets ready, has a name, and can be reached.

use weft_cluster::cluster::Cluster;
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

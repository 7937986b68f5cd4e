//! What is found, from facts alone.

use serde_json::json;

use super::facts::Installation;
use super::*;
use crate::cluster::{Answer, ObjectLine, Page, Refusal, Replica, Sidecar, Sidecars};

fn states(findings: &Findings) -> Vec<(&'static str, State)> {
    findings.list.iter().map(|finding| (finding.check, finding.state)).collect()
}

fn nothing() -> Installation {
    Installation {
        deployment: None,
        lease: None,
        roots: None,
        injector: None,
        webhook: None,
        kinds: Vec::new(),
    }
}

/// A root that is good until 2036. Made with openssl for this test; its key was thrown away.
const ROOT: &str = include_str!("tests/root.pem");
/// 2026-11-21.
const TODAY: i64 = 1_795_219_200;

fn installation() -> Installation {
    let bundle = k8s_openapi::ByteString(ROOT.as_bytes().to_vec());
    Installation {
        deployment: serde_json::from_value(json!({
            "metadata": {"labels": {"app.kubernetes.io/version": weft_k8s::chart::version()}},
            "spec": {"replicas": 3, "selector": {}, "template": {}},
            "status": {"readyReplicas": 3, "updatedReplicas": 3},
        }))
        .unwrap(),
        lease: serde_json::from_value(
            json!({"metadata": {}, "spec": {"holderIdentity": "weft-control-plane-a"}}),
        )
        .unwrap(),
        roots: Some(ROOT.to_owned()),
        injector: Some(Ok(weft_control_plane_core::inject::InjectorConfig::new(
            "localhost/weft/weft-proxy:1",
        ))),
        webhook: serde_json::from_value(json!({
            "metadata": {},
            "webhooks": [{
                "name": "pod.injector.weft.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "failurePolicy": "Ignore", "clientConfig": {"caBundle": bundle},
            }],
        }))
        .unwrap(),
        kinds: weft_k8s::crds::values()
            .into_iter()
            .map(|value| serde_json::from_value(value).unwrap())
            .collect(),
    }
}

#[test]
fn a_whole_installation_is_well() {
    let installation = installation();
    let found =
        [installed::control_plane(&installation, "weft-system"), installed::trust(&installation, TODAY)];
    for findings in found {
        assert!(findings.list.iter().all(|finding| finding.state == State::Ok), "{findings:?}");
    }
}

#[test]
fn what_is_not_installed_fails_with_the_command_that_installs_it() {
    let findings = installed::control_plane(&nothing(), "weft-system");
    assert_eq!(states(&findings), [("installed", State::Failed)]);
    assert!(findings.list[0].remedy.contains("weft install"));
}

#[test]
fn a_missing_replica_leader_setting_or_kind_fails() {
    let mut part = installation();
    part.deployment.as_mut().unwrap().status.as_mut().unwrap().ready_replicas = Some(2);
    part.lease = None;
    part.injector = Some(Err("unknown field".to_owned()));
    part.kinds[0].spec.versions[0].additional_printer_columns = None;
    let findings = installed::control_plane(&part, "weft-system");
    let failed: Vec<&str> =
        findings.list.iter().filter(|it| it.state == State::Failed).map(|it| it.check).collect();
    assert_eq!(failed, ["replicas", "kinds", "leader", "injector's settings"]);
    assert!(findings.list.iter().all(|it| it.state == State::Ok || !it.remedy.is_empty()), "{findings:?}");
}

#[test]
fn another_version_is_a_warning() {
    let mut part = installation();
    let labels = part.deployment.as_mut().unwrap().metadata.labels.as_mut().unwrap();
    labels.insert("app.kubernetes.io/version".to_owned(), "9.9.9".to_owned());
    let findings = installed::control_plane(&part, "weft-system");
    assert!(states(&findings).contains(&("version", State::Warning)), "{findings:?}");
}

#[test]
fn a_bundle_that_is_not_the_roots_fails() {
    let mut part = installation();
    part.webhook.as_mut().unwrap().webhooks.as_mut().unwrap()[0].client_config.ca_bundle = None;
    let findings = installed::trust(&part, TODAY);
    assert_eq!(states(&findings), [("roots", State::Ok), ("webhook", State::Failed)]);
}

#[test]
fn a_root_that_ends_soon_is_a_warning_and_one_that_ended_a_failure() {
    let ends = TODAY + 10 * 365 * 86_400;
    for (now, state) in [(ends - 10 * 86_400, State::Warning), (ends + 30 * 86_400, State::Failed)] {
        assert_eq!(installed::trust(&installation(), now).list[0].state, state);
    }
    let mut none = installation();
    none.roots = None;
    assert_eq!(installed::trust(&none, TODAY).list[0].state, State::Failed);
}

#[test]
fn an_api_servers_defaults_are_no_difference() {
    let wanted = json!({"a": 1, "list": [{"x": 1.0}]});
    assert!(installed::holds(&json!({"a": 1, "b": 2, "list": [{"x": 1, "y": 2}]}), &wanted));
    assert!(!installed::holds(&json!({"a": 1, "list": [{"x": 1}, {}]}), &wanted));
    assert!(!installed::holds(&json!({"list": [{"x": 1}]}), &wanted));
}

#[test]
fn minor_versions_are_read() {
    for (text, minor) in [("v1.34.4", Some(34)), ("1.29+", Some(29)), ("v1.30.0-rc.1", Some(30)), ("x", None)]
    {
        assert_eq!(kubernetes::minor(text), minor, "{text}");
    }
}

fn replicas() -> Vec<Replica> {
    let sidecar = |workload: &str, version: &str, refuses: bool| Sidecar {
        workload: workload.to_owned(),
        version: version.to_owned(),
        refusals: if refuses { vec![Refusal::default()] } else { Vec::new() },
        ..Sidecar::default()
    };
    let object = ObjectLine {
        kind: "TlsPolicy".to_owned(),
        namespace: "a".to_owned(),
        name: "b".to_owned(),
        ..ObjectLine::default()
    };
    let list = vec![sidecar("a/1", weft_k8s::chart::version(), false), sidecar("a/2", "0.0.9", true)];
    let page = Page { generation: 1, objects: vec![object], sidecars: Sidecars { list } };
    vec![Replica {
        pod: "p".to_owned(),
        version: String::new(),
        ready: true,
        leader: true,
        page: Answer::Status(page),
    }]
}

#[test]
fn version_skew_and_refusals_are_named() {
    let mut findings = Findings::of("Mesh");
    mesh::sidecars(&replicas(), &mut findings);
    mesh::refused(&replicas(), &mut findings);
    let text = render(&findings.list);
    assert!(text.contains("warn  sidecars: 1 of 2 are of another version: a/2 0.0.9"), "{text}");
    assert!(text.contains("warn  configuration: 1 not in force everywhere: TlsPolicy a/b"), "{text}");
    assert!(text.contains("FAIL  refusals: 1 sidecar(s) keep an older configuration: a/2"), "{text}");
}

#[test]
fn a_pod_that_should_have_a_sidecar_is_found_and_one_that_cannot_says_why() {
    let injector = weft_control_plane_core::inject::Injector::new(
        weft_control_plane_core::inject::InjectorConfig::new("localhost/weft/weft-proxy:1"),
        ROOT,
    )
    .unwrap();
    let facts = weft_control_plane_core::inject::NamespaceFacts {
        name: "shop".to_owned(),
        labels: [("weft.dev/inject".to_owned(), "enabled".to_owned())].into(),
        ..Default::default()
    };
    let facts = [("shop".to_owned(), facts)].into();
    let judge = |spec: serde_json::Value, labels: serde_json::Value, phase: &str| {
        let pod = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "web", "labels": labels},
            "spec": spec, "status": {"phase": phase},
        }))
        .unwrap();
        mesh::judge(&pod, &facts, &injector)
    };
    let plain = json!({"containers": [{"name": "app", "image": "x"}]});
    let host = json!({"containers": [{"name": "app", "image": "x"}], "hostNetwork": true});
    assert_eq!(judge(plain.clone(), json!({}), "Running"), Some(("shop/web".to_owned(), None)));
    assert!(judge(host, json!({}), "Running").is_some_and(|(_, reason)| reason.is_some()));
    assert_eq!(judge(plain.clone(), json!({"weft.dev/inject": "disabled"}), "Running"), None);
    assert_eq!(judge(plain, json!({}), "Succeeded"), None);
}

#[test]
fn a_trial_fails_where_the_webhook_was_not_asked_and_not_where_a_policy_refused_the_pod() {
    let judged = |made| {
        let mut findings = Findings::of("Trial");
        trial::judge(made, "weft-system", &mut findings);
        findings.list.remove(0)
    };
    let pod =
        |annotations| Ok(serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap());
    assert_eq!(judged(pod(json!({"weft.dev/sidecar": "injected"}))).state, State::Ok);
    let without = judged(pod(json!({})));
    assert!(without.state == State::Failed && without.may_pass(), "{without:?}");
    let refused = |code| {
        let status = json!({"status": "Failure", "code": code, "message": "because", "reason": "x"});
        Err(kube::Error::Api(Box::new(serde_json::from_value(status).unwrap())))
    };
    assert_eq!(judged(refused(403)).state, State::Warning);
    assert_eq!(judged(refused(500)).state, State::Failed, "the webhook did not answer");
}

#[test]
fn what_time_does_not_mend_is_not_waited_for() {
    let none = installed::control_plane(&nothing(), "weft-system");
    assert!(
        none.list.iter().all(|finding| finding.state == State::Failed && !finding.may_pass()),
        "{none:?}"
    );
    let mut young = installation();
    young.roots = None;
    let young = installed::trust(&young, TODAY);
    assert!(young.list.iter().any(Finding::may_pass), "{young:?}");
}

#[test]
fn the_chart_and_the_check_ask_for_the_same_kubernetes() {
    let chart = include_str!("../../../k8s/chart/Chart.yaml");
    let asked = format!("kubeVersion: \">=1.{}.0-0\"", kubernetes::OLDEST);
    assert!(chart.lines().any(|line| line == asked), "{asked}\n{chart}");
}

mod elsewhere;

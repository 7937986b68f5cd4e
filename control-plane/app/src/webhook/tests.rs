//! The webhook over real TLS, and what it answers to pods, garbage and the API server.

use std::collections::BTreeMap;

use axum::body::Body;
use base64::Engine as _;
use serde_json::{Value, json};
use weft_control_plane_core::inject::{INJECT, Injector, InjectorConfig};
use weft_control_plane_core::model::{Kind, Model, ObjectKey, read};

use super::*;
use crate::authority::AuthoritySettings;
use crate::status::Status;
use crate::testing::Folder;

/// A root as far as the injector looks.
const ROOT: &str = "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n";

fn injector(block_refused: bool) -> Injector {
    let config = InjectorConfig { block_refused, ..InjectorConfig::new("localhost/weft/weft-proxy:0.1.0") };
    Injector::new(config, ROOT).unwrap()
}

fn review(pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u1",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "operation": "CREATE",
            "namespace": "shop",
            "object": pod,
        },
    })
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-"}, "spec": spec})
}

fn app() -> Value {
    json!({"containers": [{"name": "app", "image": "app", "futureField": {"a": [1]}}]})
}

fn meshed(name: &str) -> NamespaceFacts {
    let labels: BTreeMap<_, _> = [(INJECT.to_owned(), "enabled".to_owned())].into();
    NamespaceFacts { name: name.to_owned(), labels, annotations: BTreeMap::new() }
}

fn ask(review: &Value, injector: &Injector) -> (Value, Answer) {
    let answer = answer(&serde_json::to_vec(review).unwrap(), injector, &meshed).unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    (body.get("response").unwrap().clone(), answer)
}

#[test]
fn the_patch_makes_of_the_users_pod_what_the_injector_decided() {
    let mut pod = pod(app());
    let (response, answer) = ask(&review(&pod), &injector(false));
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("u1"), &json!(true)));
    assert_eq!(answer.outcome, Outcome::Injected);
    let patch =
        base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    assert_eq!(pod["spec"]["initContainers"][1]["name"], "weft-proxy");
    assert_eq!(pod["spec"]["containers"], app()["containers"]);
}

#[test]
fn garbage_is_an_error_in_words_and_never_a_panic() {
    let empty = json!({"apiVersion": "admission.k8s.io/v1"});
    let old = json!({"apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "a"}});
    for body in
        [b"".to_vec(), b"\xff{".to_vec(), b"[]".to_vec(), empty.to_string().into(), old.to_string().into()]
    {
        assert!(answer(&body, &injector(false), &meshed).is_err());
    }
    let objects =
        [json!(null), json!([]), json!({"spec": 3}), json!({"metadata": [], "spec": {"containers": {}}})];
    for object in objects {
        let (response, answer) = ask(&review(&object), &injector(false));
        assert_eq!((&response["allowed"], answer.outcome), (&json!(true), Outcome::Refused), "{object}");
    }
}

#[test]
fn a_refused_pod_is_allowed_with_a_warning_and_its_owner_is_told() {
    let mut pod = pod(json!({"hostNetwork": true, "containers": [{"name": "app"}]}));
    pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "r", "controller": true}]);
    let (response, answer) = ask(&review(&pod), &injector(false));
    assert_eq!(response["allowed"], true);
    assert!(response["warnings"][0].as_str().unwrap().contains("hostNetwork"), "{response}");
    let about = answer.refusal.unwrap().about;
    assert_eq!((about.kind.as_deref(), about.name.as_deref()), (Some("ReplicaSet"), Some("web-1")));
    assert_eq!(about.namespace.as_deref(), Some("shop"));
}

#[test]
fn a_mesh_that_says_so_blocks_what_it_cannot_inject() {
    let pod = pod(json!({"hostNetwork": true, "containers": [{"name": "app"}]}));
    let (response, _) = ask(&review(&pod), &injector(true));
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(403)));
}

fn authority() -> Arc<Authority> {
    let settings = AuthoritySettings {
        state: None,
        trust_domain: "cluster.local".to_owned(),
        intermediate: true,
        leaf_life: std::time::Duration::from_secs(3600),
    };
    Arc::new(Authority::open(&settings).unwrap())
}

fn metrics() -> InjectMetrics {
    InjectMetrics::register(&mut crate::metrics::registry())
}

fn told() -> (Notice, Arc<std::sync::Mutex<Vec<String>>>) {
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let list = Arc::clone(&told);
    let notice: Notice = Arc::new(move |about, reason, _| {
        list.lock().unwrap().push(format!("{reason} {}", about.name.unwrap_or_default()));
    });
    (notice, told)
}

#[tokio::test]
async fn the_leader_alone_tells_once_of_each_pod_without_its_sidecar() {
    let folder = Folder::new();
    let file = folder.path().join("injector.yaml");
    std::fs::write(&file, "image: a\n").unwrap();
    let metrics = metrics();
    let settings = Settings::open(file.clone(), authority(), metrics.clone());
    let (lead, leading) = tokio::sync::watch::channel(false);
    let (notice, told) = told();
    let settings = Arc::new(settings);
    let status = Arc::new(Status::default());
    let mut recheck =
        Recheck::new(Arc::clone(&settings), notice, metrics.clone(), leading, Arc::clone(&status));
    let mut model = Model::default();
    let asking = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {INJECT: "enabled"}}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "namespace": "shop", "uid": "u"}, "spec": app()});
    for object in [asking, pod] {
        model.apply(read(object).unwrap().unwrap().object, None);
    }
    let key = ObjectKey::new(Kind::Pod, "shop", "a");
    recheck.changed(&model, [&key].into_iter());
    assert_eq!((metrics.unmeshed.get(), status.unmeshed.load().len()), (1, 1));
    assert!(told.lock().unwrap().is_empty(), "this replica does not lead");
    lead.send_replace(true);
    recheck.due().await;
    recheck.changed(&model, [].into_iter());
    recheck.changed(&model, [&key].into_iter());
    assert_eq!(*told.lock().unwrap(), ["SidecarMissing a"]);
    std::fs::write(&file, "image: a\nskipNamespaces: [shop]\n").unwrap();
    settings.look();
    recheck.due().await;
    recheck.changed(&model, [].into_iter());
    assert_eq!((metrics.unmeshed.get(), status.unmeshed.load().len()), (0, 0));
}

#[test]
fn broken_settings_change_nothing_and_are_shown() {
    let folder = Folder::new();
    let file = folder.path().join("injector.yaml");
    std::fs::write(&file, "image: one\n").unwrap();
    let metrics = metrics();
    let settings = Settings::open(file.clone(), authority(), metrics.clone());
    std::fs::write(&file, "imag: two\n").unwrap();
    settings.look();
    assert_eq!(
        (settings.current().unwrap().config().image.as_str(), metrics.settings_broken.get()),
        ("one", 1)
    );
    std::fs::write(&file, "image: three\n").unwrap();
    settings.look();
    assert_eq!(
        (settings.current().unwrap().config().image.as_str(), metrics.settings_broken.get()),
        ("three", 0)
    );
    assert_eq!(Settings::open("/nowhere/injector.yaml".into(), authority(), metrics).current(), None);
}

#[test]
fn a_dry_run_tells_nobody() {
    let mut review = review(&pod(json!({"hostNetwork": true, "containers": [{"name": "app"}]})));
    review["request"]["dryRun"] = json!(true);
    let (_, answer) = ask(&review, &injector(false));
    assert_eq!((answer.outcome, answer.refusal), (Outcome::Refused, None));
}

#[test]
fn what_is_no_creation_of_a_pod_is_allowed_as_it_is() {
    for (pointer, value) in [("operation", json!("UPDATE")), ("subResource", json!("ephemeralcontainers"))] {
        let mut review = review(&pod(app()));
        review["request"][pointer] = value;
        let (response, answer) = ask(&review, &injector(false));
        assert_eq!((&response["allowed"], answer.outcome), (&json!(true), Outcome::Skipped));
        assert_eq!(response.get("patch"), None);
    }
}

/// Asks as the API server does: TLS with the mesh's roots, under the service's DNS name.
async fn call(running: &Running, authority: &Authority, request: http::Request<Body>) -> (u16, Vec<u8>) {
    let mut roots = rustls::RootCertStore::empty();
    authority.roots().into_iter().for_each(|root| roots.add(root).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = tokio::net::TcpStream::connect(running.address).await.unwrap();
    let name = "weft-control-plane.weft-system.svc".try_into().unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), usize::MAX).await.unwrap();
    (status, body.to_vec())
}

fn running(folder: &Folder, authority: &Arc<Authority>, metrics: &InjectMetrics) -> Running {
    let settings = folder.path().join("injector.yaml");
    std::fs::write(&settings, "image: localhost/weft/weft-proxy:0.1.0\n").unwrap();
    let parts = Parts {
        listen: "127.0.0.1:0".parse().unwrap(),
        settings,
        authority: Arc::clone(authority),
        names: service_names("weft-system"),
        namespaces: Arc::new(|name| (name != "new").then(|| meshed(name))),
        notice: told().0,
        metrics: metrics.clone(),
        beside: axum::Router::new(),
        stop: CancellationToken::new(),
    };
    start(parts).unwrap()
}

#[tokio::test]
async fn the_api_server_trusts_the_mesh_and_gets_an_answer_to_whatever_it_sends() {
    let (folder, authority, metrics) = (Folder::new(), authority(), metrics());
    let webhook = running(&folder, &authority, &metrics);
    let post = |path: &str, body: Vec<u8>| http::Request::post(path).body(Body::from(body)).unwrap();
    let good = serde_json::to_vec(&review(&pod(app()))).unwrap();
    let (status, body) = call(&webhook, &authority, post("/inject", good.clone())).await;
    assert_eq!(status, 200);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(body["response"]["patch"].is_string(), "{body}");
    assert_eq!(call(&webhook, &authority, post("/inject/enabled", good)).await.0, 200);
    for (request, expected) in [
        (post("/inject", b"{".to_vec()), 400),
        (post("/inject", vec![b' '; 5 * 1024 * 1024]), 413),
        (post("/other", Vec::new()), 404),
        (http::Request::get("/inject").body(Body::empty()).unwrap(), 405),
    ] {
        assert_eq!(call(&webhook, &authority, request).await.0, expected);
    }
    let count = |outcome| metrics.injections.of(&outcome).get();
    assert_eq!((count(Outcome::Injected), count(Outcome::Invalid)), (2, 1));
}

#[tokio::test]
async fn a_namespace_that_is_not_known_yet_is_one_that_asks() {
    let (folder, authority, metrics) = (Folder::new(), authority(), metrics());
    let webhook = running(&folder, &authority, &metrics);
    let mut review = review(&pod(app()));
    review["request"]["namespace"] = json!("new");
    let request = http::Request::post("/inject").body(Body::from(review.to_string())).unwrap();
    let body: Value = serde_json::from_slice(&call(&webhook, &authority, request).await.1).unwrap();
    assert!(body["response"]["patch"].is_string(), "{body}");
}

#[test]
fn the_serving_certificate_is_replaced_once_half_of_its_life_is_over() {
    let authority = authority();
    let own = ServingCertificate::issue(&authority, service_names("weft-system")).unwrap();
    assert!(!own.renew_if_due(&authority, crate::clock::unix_now()).unwrap());
    assert!(own.renew_if_due(&authority, crate::clock::unix_now() + 1801).unwrap());
    assert!(ServingCertificate::issue(&authority, vec!["no name\u{e4}".to_owned()]).is_err());
}

//! Looking at the mesh through the API server: an administrator sees all of it, others what they were granted.

use std::path::PathBuf;

use serde_json::{Value, json};
use weft_cluster::scenario::{App, Mesh, Space, field};

/// The edges that `weft stat` shows of a namespace.
fn edges(mesh: &Mesh, namespace: &str) -> anyhow::Result<Vec<Value>> {
    let text = mesh.weft(&["stat", "--namespace", namespace, "--output=json"])?;
    let page: Value = serde_json::from_str(&text)?;
    Ok(field(&page, "edges").as_array().cloned().unwrap_or_default())
}

/// A kubeconfig of a service account.
fn kubeconfig(mesh: &Mesh, space: &Space<'_>, account: &str) -> PathBuf {
    let token = space.kubectl(&["create", "token", account]).unwrap();
    let view = ["config", "view", "--raw", "--minify", "--output=json"];
    let mut config: Value = serde_json::from_str(&mesh.cluster.kubectl(&view).unwrap()).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let path = mesh.cluster.folder().join(format!("kubeconfig-{account}"));
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// Runs `weft` as the owner of a kubeconfig; what it printed, or what it said against it.
fn as_user(mesh: &Mesh, kubeconfig: &std::path::Path, words: &[&str]) -> Result<String, String> {
    let flag = format!("--kubeconfig={}", kubeconfig.display());
    let output = mesh.try_weft(&[words, &[flag.as_str()]].concat(), "").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn an_administrator_sees_edges_and_requests_through_the_api_server() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("looked-at").unwrap();
    space.run(&[App::new("server").replicas(2)]).unwrap();
    let _client = space.steadily("client", &["http://server/looked/at", "--rate=20"]).unwrap();

    let kinds = mesh.cluster.kubectl(&["api-resources", "--api-group=observe.weft.dev", "--output=name"]);
    assert!(kinds.unwrap().contains("stats.observe.weft.dev"));
    let edge = space
        .until("an edge that both ends see", || {
            let edges = edges(mesh, "looked-at")?;
            let both = |edge: &&Value| !field(edge, "client").is_null() && !field(edge, "server").is_null();
            match edges.iter().find(both) {
                Some(edge) => Ok(Some(edge.clone())),
                None => anyhow::bail!("{edges:?}"),
            }
        })
        .unwrap();
    assert_eq!(field(&edge, "server.security"), "mutual_tls", "{edge}");
    assert!(field(&edge, "server.total.requests").as_u64().unwrap() >= 20, "{edge}");
    assert_eq!(field(&edge, "server.total.failures"), 0, "{edge}");
    let table = mesh.weft(&["stat", "--namespace", "looked-at", "--to", "svc/server"]).unwrap();
    assert!(table.starts_with("source") && table.contains("yes"), "{table}");

    let tap = ["tap", "--namespace", "looked-at", "--path=/looked", "--direction=inbound", "--count=5"];
    let told = mesh.weft(&[&tap[..], &["--for=60", "--output=json"]].concat()).unwrap();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.len(), 5);
    for one in &told {
        assert_eq!((one["path"].as_str(), one["status"].as_u64()), (Some("/looked/at"), Some(200)), "{one}");
        assert!(one["workload"].as_str().is_some_and(|pod| pod.starts_with("looked-at/server-")), "{one}");
    }
    let nobody = mesh.weft(&["tap", "deploy/nobody", "--namespace", "looked-at", "--for=2"]).unwrap();
    assert_eq!(nobody, "");
}

#[test]
fn who_was_granted_one_namespace_sees_that_one_and_others_are_refused_in_words() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("granted").unwrap();
    space.run(&[App::new("server")]).unwrap();
    let _client = space.steadily("client", &["http://server/", "--rate=20"]).unwrap();
    space.kubectl(&["create", "serviceaccount", "looker"]).unwrap();
    let looker = kubeconfig(mesh, &space, "looker");
    let stat = ["stat", "--namespace=granted", "--output=json"];

    let refused = as_user(mesh, &looker, &stat).unwrap_err();
    assert!(refused.contains("weft-observer") && refused.contains("granted"), "{refused}");
    let refused = as_user(mesh, &looker, &["tap", "--namespace=granted", "--for=5"]).unwrap_err();
    assert!(refused.contains("weft-observer"), "{refused}");

    space
        .kubectl(&[
            "create",
            "rolebinding",
            "looker",
            "--clusterrole=weft-observer",
            "--serviceaccount=granted:looker",
        ])
        .unwrap();
    let page = space
        .until("the grant to hold", || match as_user(mesh, &looker, &stat) {
            Ok(text) if text.contains("\"requests\"") => Ok(Some(text)),
            Ok(other) | Err(other) => anyhow::bail!("{other}"),
        })
        .unwrap();
    let page: Value = serde_json::from_str(&page).unwrap();
    assert!(field(&page, "asked.sidecars").as_u64().unwrap() >= 2, "{page}");
    let tapped = as_user(mesh, &looker, &["tap", "--namespace=granted", "--count=1", "--for=60"]).unwrap();
    assert!(tapped.contains("granted/"), "{tapped}");
    for elsewhere in [&["stat", "--namespace=default"][..], &["stat", "--all-namespaces"], &["tap", "-A"]] {
        let refused = as_user(mesh, &looker, elsewhere).unwrap_err();
        assert!(refused.contains("not permitted") && refused.contains("weft-observer"), "{refused}");
    }

    space.kubectl(&["delete", "rolebinding", "looker"]).unwrap();
    space.until("the grant to be gone", || Ok(as_user(mesh, &looker, &stat).is_err().then_some(()))).unwrap();
}

#[test]
fn a_user_that_somebody_invents_is_nobody() {
    let Some(mesh) = super::mesh() else { return };
    let address = mesh.cluster.kubectl(&[
        "get",
        "service",
        "weft-control-plane",
        "--namespace=weft-system",
        "--output=jsonpath={.spec.clusterIP}",
    ]);
    let url = format!("https://{}/apis/observe.weft.dev/v1alpha1/stats", address.unwrap().trim());
    let mut curl = mesh.cluster.command("curl");
    curl.args(["--silent", "--insecure", "--max-time", "20"]);
    curl.args(["--header", "X-Remote-User: kubernetes-admin", "--header", "X-Remote-Group: system:masters"]);
    let answer = curl.arg(url).output().unwrap();
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer["code"], 401, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("front proxy"), "{answer}");
}

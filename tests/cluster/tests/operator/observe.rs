//! One answer of several replicas, each of which knows sidecars of its own.

use std::collections::BTreeSet;

use anyhow::bail;
use serde_json::Value;
use weft_cluster::scenario::{App, field};

#[test]
fn one_answer_holds_what_the_sidecars_of_all_replicas_saw() {
    // Three replicas, on the only node there is.
    let Some((mesh, _turn)) = super::installed(&["--ha", "--set", "spread=None"]) else { return };
    let space = mesh.meshed("spread").unwrap();
    space.run(&[App::new("server").replicas(5)]).unwrap();
    let _client = space.steadily("client", &["http://server/", "--rate=50", "--fresh"]).unwrap();
    // The sidecars are with several replicas, else this would show nothing.
    let status: Value = serde_json::from_str(&mesh.weft(&["status", "--output=json"]).unwrap()).unwrap();
    let served = status.as_array().unwrap().iter().filter(|replica| {
        field(replica, "status.sidecars.list").as_array().is_some_and(|list| !list.is_empty())
    });
    assert!(served.count() > 1, "{status}");

    let pods = ["server", "client"].map(|app| space.pods(&format!("app={app}")).unwrap().len());
    assert_eq!(pods, [5, 1]);
    let stat = ["stat", "pod", "--namespace=spread", "--output=json"];
    space
        .until("every pod to be seen in one answer", || {
            let page: Value = serde_json::from_str(&mesh.weft(&stat)?)?;
            let edges = field(&page, "edges").as_array().cloned().unwrap_or_default();
            let servers: BTreeSet<&str> = edges
                .iter()
                .filter(|edge| !field(edge, "server").is_null())
                .filter_map(|edge| field(edge, "destination.name").as_str())
                .collect();
            let asked = (field(&page, "asked.replicas").as_u64(), field(&page, "asked.sidecars").as_u64());
            let silent = field(&page, "silent").as_array().is_some_and(|silent| !silent.is_empty());
            if servers.len() == 5 && asked == (Some(3), Some(6)) && !silent {
                return Ok(Some(()));
            }
            bail!("{page}")
        })
        .unwrap();
    let tap = ["tap", "--namespace=spread", "--direction=inbound", "--count=60", "--for=60", "--output=json"];
    let told = mesh.weft(&tap).unwrap();
    let pods: BTreeSet<String> = told
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["workload"].to_string())
        .collect();
    assert!(pods.len() > 1, "{pods:?}");
}

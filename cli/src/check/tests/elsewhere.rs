//! Looking at a folder of manifests, and at a stand-alone control plane.

use std::path::{Path, PathBuf};

use super::*;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name)
}

#[test]
fn a_folder_is_looked_at_with_file_line_and_remedy() {
    let findings = manifests::look(&folder("check/tests/folder")).unwrap();
    let text = render(&findings);
    for says in [
        "ok    manifests: 7 objects",
        "FAIL  configuration: mesh.yaml:51: HTTPRoute shop/web: ResolvedRefs/BackendNotFound",
        "warn  policies on requests: mesh.yaml:35: AuthorizationPolicy shop/ledger-reads: rule 0 looks at",
        "shop/ledger:5432, so it allows nothing there",
        "warn  targets: mesh.yaml:44: TlsPolicy shop/strict: no pod of namespace shop has the labels app=gone",
        "warn  endpoints: mesh.yaml:27: Service shop/empty: it has no endpoint: no pod has the labels",
    ] {
        assert!(text.contains(says), "{says}\n{text}");
    }
    assert!(findings.iter().all(|it| it.state == State::Ok || !it.remedy.is_empty()), "{findings:?}");
    let refused = findings.iter().find(|it| it.state == State::Failed).unwrap();
    assert_eq!((refused.object.as_str(), refused.place.as_str()), ("HTTPRoute shop/web", "mesh.yaml:51"));
    let json = serde_json::to_value(refused).unwrap();
    assert_eq!(json["place"], "mesh.yaml:51");
}

#[test]
fn the_demos_manifests_are_well() {
    let findings = manifests::look(&folder("demo/manifests")).unwrap();
    assert!(findings.iter().all(|it| it.state != State::Failed), "{}", render(&findings));
}

/// A folder of one file, until it is dropped.
struct Made(PathBuf);

impl Made {
    fn of(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weft-check-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("a.yaml"), text).unwrap();
        Self(path)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_broken_folder_fails_with_every_problem() {
    let broken = Made::of("broken", "kind: [\n");
    let findings = manifests::look(&broken.0).unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].state == State::Failed && findings[0].detail.contains("a.yaml:"), "{findings:?}");
    let missing = manifests::look(Path::new("/nowhere/at/all")).unwrap();
    assert!(missing[0].detail.contains("is no folder"), "{missing:?}");
}

#[test]
fn what_deployments_make_is_not_held_against_a_folder() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n---\napiVersion: v1\nkind: Service\n\
                metadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80, appProtocol: http}]}\n";
    let made = Made::of("made", text);
    let text = render(&manifests::look(&made.0).unwrap());
    assert!(
        text.contains("ok    endpoints") && text.contains("warn  pods: 1 selectors match no Pod here"),
        "{text}"
    );
}

const STATUS: &str = r#"{
    "ready": true, "generation": 7,
    "problems": [{"file": "a.yaml", "line": 3, "reason": "unknown field"}],
    "objects": [],
    "sidecars": {"list": [
        {"workload": "shop/web-0", "version": "VERSION", "generation": 7, "certificateEnds": 90000, "refusals": []},
        {"workload": "shop/web-1", "version": "VERSION", "generation": 6, "certificateEnds": 1100, "refusals": []},
        {"workload": "shop/web-2", "version": "0.0.9", "generation": 7, "certificateEnds": 900,
         "refusals": [{"name": "shop/web:80", "reason": "no such field"}]}
    ]}
}"#;

#[test]
fn a_stand_alone_control_plane_tells_of_its_folder_and_its_sidecars() {
    let status = STATUS.replace("VERSION", weft_k8s::chart::version());
    let mut findings = Findings::of("Control plane");
    standalone::told("127.0.0.1:1", status.as_bytes(), 1_000, &mut findings).unwrap();
    let text = render(&findings.list);
    for says in [
        "ok    status: 127.0.0.1:1 serves generation 7",
        "FAIL  manifests: a.yaml:3: unknown field",
        "warn  sidecars: 1 of 3 are of another version: shop/web-2 0.0.9",
        "FAIL  certificates: 1 of 3 have ended: shop/web-2 (1m40s ago)",
        "warn  certificates: 1 of 3 end soon: shop/web-1 (in 1m40s)",
        "FAIL  acknowledged: 1 of 3 sidecars are behind: shop/web-1 (6 of 7)",
        "FAIL  refusals: 1 sidecar(s) keep an older configuration: shop/web-2 (shop/web:80: no such field)",
    ] {
        assert!(text.contains(says), "{says}\n{text}");
    }
    assert!(findings.list.iter().all(|it| it.state == State::Ok || !it.remedy.is_empty()), "{text}");
    let mut starting = Findings::of("Control plane");
    standalone::told("127.0.0.1:1", b"{\"ready\": false}", 0, &mut starting).unwrap();
    assert_eq!(starting.list[0].state, State::Failed);
}

#[test]
fn a_control_plane_that_is_not_there_is_a_finding_and_an_address_that_is_none_an_error() {
    let findings = crate::cluster::block_on(standalone::look("http://127.0.0.1:1")).unwrap();
    assert!(findings[0].state == State::Failed && findings[0].remedy.contains("--admin"), "{findings:?}");
    assert!(crate::cluster::block_on(standalone::look("https://127.0.0.1:1")).is_err());
}

#[test]
fn warnings_fail_only_when_that_is_asked_for() {
    let args = |words: &[&str]| {
        let folder = folder("demo/manifests");
        let mut line = vec!["check".to_owned(), "--manifests".to_owned(), folder.display().to_string()];
        line.extend(words.iter().map(|word| (*word).to_owned()));
        line
    };
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: CheckArgs,
    }
    let parse = |words: &[&str]| <Line as clap::Parser>::try_parse_from(args(words)).unwrap().args;
    let warned = [Finding {
        area: "Manifests",
        check: "protocols",
        state: State::Warning,
        detail: String::new(),
        remedy: "declare it".to_owned(),
        object: String::new(),
        place: String::new(),
    }];
    assert_eq!(failed(&parse(&[]), &warned), 0);
    assert_eq!(failed(&parse(&["--strict"]), &warned), 1);
}

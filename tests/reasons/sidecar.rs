//! What the sidecar itself and its policies say.

use weft_proto::v1::ResourceType;
use weft_proxy::hold::Hold;
use weft_tests::mesh;
use weft_tests::mesh::{App, Pod, Wire, until};

use super::seen;

const POLICIES: &str = "\
apiVersion: weft.dev/v1alpha1
kind: TlsPolicy
metadata: {name: strict, namespace: test}
spec: {targetRefs: [{kind: Workload, selector: {app: strict}}], mode: Strict}
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: everybody, namespace: test}
spec: {targetRefs: [{kind: Service, name: web}], action: Allow, rules: [{}]}
";
const ASK: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

pub(crate) async fn what_the_sidecar_and_its_policies_say() -> Vec<&'static str> {
    let app = App::saying("welcome").await;
    let echo = App::raw(|mut wire| async move {
        while let Some(line) = wire.try_until("\n").await {
            wire.send(line).await;
        }
    })
    .await;
    let plan = mesh!().service("web", 8080, Some("http")).service("strict", 8080, Some("http")).service(
        "echo",
        9090,
        Some("tcp"),
    );
    let astray = std::net::SocketAddr::new(plan.coming(0), 15_001);
    let mut mesh = plan
        .pod(Pod::named("astray-0").flag("--transparent-inbound", &astray.to_string()))
        .pod(Pod::named("web-0").serves(8080, app.address))
        .pod(Pod::named("strict-0").serves(8080, app.address))
        .pod(Pod::named("echo-0").serves(9090, echo.address))
        .pod(
            Pod::named("client-0")
                .calls("echo:9090")
                .flag("--drain-linger", "10ms")
                .flag("--drain-deadline", "100ms"),
        )
        .manifest("policies.yaml", POLICIES)
        .start()
        .await;
    let mut produced = Vec::new();

    let said = Wire::ask(std::net::SocketAddr::new(mesh.ip("strict-0"), 8080), ASK).await;
    assert!(!said.contains("welcome"), "{said}");
    produced.push(seen(mesh.sidecar("strict-0"), "mtls_required").await);

    let said = Wire::ask(astray, ASK).await;
    assert_eq!(said, "", "a listener for redirected connections answers nobody else");
    produced.push(seen(mesh.sidecar("astray-0"), "internal").await);

    let mut long = Wire::open(mesh.door("client-0", "echo:9090")).await;
    long.send("still there?\n").await;
    assert_eq!(long.until("\n").await, "still there?\n");
    let mut leaving = mesh.take_sidecar("client-0");
    leaving.terminate();
    leaving.ended().await;
    let line = leaving.log().into_iter().find(|line| line["reason"] == "draining");
    assert!(line.is_some(), "{:?}", leaving.log());
    produced.push("draining");

    produced.push(without_its_policy(&mut mesh).await);
    produced
}

/// A sidecar that comes back from what it kept, of which one policy has been lost, while no control plane
/// answers: nothing passes.
async fn without_its_policy(mesh: &mut mesh::Mesh) -> &'static str {
    let folder = mesh.folder().join("web-0.state");
    let hold = Hold::new(&folder, &"test/web-0".parse().unwrap());
    let kept = until("the policy is kept", async || {
        let epoch = hold.load().ok()??;
        epoch.upserts.iter().any(is_policy).then_some(epoch)
    })
    .await;
    mesh.kill_control_plane();
    let mut sidecar = mesh.take_sidecar("web-0");
    sidecar.terminate();
    sidecar.ended().await;
    let rest = kept.upserts.into_iter().filter(|resource| !is_policy(resource)).collect();
    hold.store(kept.generation, rest).unwrap();
    mesh.start_sidecar("web-0").await;
    let said = Wire::ask(std::net::SocketAddr::new(mesh.ip("web-0"), 8080), ASK).await;
    assert!(said.starts_with("HTTP/1.1 403 "), "{said}");
    seen(mesh.sidecar("web-0"), "policy_missing").await
}

fn is_policy(resource: &weft_proto::v1::Resource) -> bool {
    resource.key.as_ref().is_some_and(|key| key.r#type == ResourceType::Authorization as i32)
}

//! Every reason code of `docs/reasons.md`, produced through real sidecars and read back from their logs, as
//! the operator who meets it does.
//!
//! Invariant: a code that nothing produces fails the test; so does one that is logged with another status.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "reasons/downstream.rs"]
mod downstream;
#[path = "pods/place.rs"]
#[expect(dead_code, reason = "the pods' harness is larger than this test")]
mod place;
#[path = "reasons/sidecar.rs"]
mod sidecar;
#[path = "reasons/upstream.rs"]
mod upstream;

use std::collections::BTreeSet;

use weft_proxy_core::reason;
use weft_tests::in_netns;
use weft_tests::mesh::Sidecar;

/// The one that needs redirected connections: shown below.
const REDIRECTED: &str = "unknown_destination";

/// Waits until a sidecar has logged `expected`, and holds the line against the table of reasons.
async fn seen(sidecar: &Sidecar, expected: &'static str) -> &'static str {
    let line = sidecar.logged(expected, |line| line["reason"] == expected).await;
    let reason = reason::ALL.into_iter().find(|reason| reason.name() == expected).unwrap();
    assert_eq!(line["blame"], reason.blame().name(), "{line}");
    assert_eq!(line["flags"], reason.flags(), "{line}");
    assert!(line["request.id"].as_str().is_some_and(|id| !id.is_empty()), "{line}");
    let labels = [format!("reason=\"{expected}\"")];
    let counted = sidecar.metric("weft_refusals_total", &[&labels[0]]).await;
    assert!(counted >= 1.0, "{expected} is logged and not counted");
    expected
}

#[tokio::test]
async fn every_reason_is_produced_by_a_real_sidecar() {
    let (a, b, c, d, e) = tokio::join!(
        downstream::heads_that_break_the_rules(),
        downstream::connections_that_break_the_rules(),
        upstream::what_configuration_says(),
        upstream::what_endpoints_do(),
        sidecar::what_the_sidecar_and_its_policies_say(),
    );
    let produced: BTreeSet<&str> = [a, b, c, d, e].concat().into_iter().chain([REDIRECTED]).collect();
    let all: BTreeSet<&str> = reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(all.difference(&produced).collect::<Vec<_>>(), Vec::<&&str>::new(), "nothing produces these");
}

const REFUSING: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: mesh}
spec: {accessLog: All, unknownDestination: Refuse}
---
apiVersion: v1
kind: Pod
metadata: {name: client-0, namespace: test, labels: {app: client}, annotations: {weft.dev/sidecar: injected}}
spec: {serviceAccountName: client, containers: [{name: app}]}
status: {podIP: 10.88.1.2, phase: Running, conditions: [{type: Ready, status: 'True'}]}
";

#[test]
fn a_destination_that_nobody_claims_is_refused_where_the_mesh_says_so() {
    in_netns!(|| place::run(async {
        let mut place = place::Place::bare(&["client-0"], REFUSING);
        place.start_control_plane().await;
        place.start_sidecar(1, "client-0").await;
        let said = place::send(place.pod("client-0"), None, "10.96.9.9:80", b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(said, "", "nobody is there to answer");
        let line = place.logged("client-0", "the refusal", |line| line["reason"].is_string()).await;
        assert_eq!((&line["reason"], &line["blame"]), (&REDIRECTED.into(), &"config".into()), "{line}");
        assert_eq!(line["dst.address"], "10.96.9.9:80", "{line}");
    }));
}

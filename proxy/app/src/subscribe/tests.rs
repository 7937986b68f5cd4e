//! The stream from the sidecar's side, against a control plane of the test's own.

use std::sync::atomic::Ordering;

use prost::Message as _;
use weft_proxy_core::Target;

use super::*;
use crate::adopt::Key;
use crate::certify::{CertificateStatus, Certifier};
use crate::lookup::{Answer, Wanted};
use crate::testing::config::*;
use crate::testing::plane::{Ca, Front, soon};

/// The chores of one sidecar, running until dropped.
struct Sidecar {
    snapshots: Arc<Snapshots>,
    lookup: Lookup,
    stream: watch::Receiver<StreamStatus>,
    certificate: watch::Receiver<CertificateStatus>,
    credentials: Arc<Credentials>,
    tasks: tokio::task::JoinSet<()>,
}

fn sidecar(settings: &Settings) -> Sidecar {
    let credentials = Arc::new(Credentials::default());
    let dial = Dial::new(settings, Arc::clone(&credentials)).unwrap();
    let certifier = Certifier::new(settings, dial.clone());
    let (subscriber, lookup) = Subscriber::new(settings, dial, certifier.renewal());
    let (snapshots, stream, certificate) = (subscriber.snapshots(), subscriber.status(), certifier.status());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(certifier.run());
    tasks.spawn(subscriber.run());
    Sidecar { snapshots, lookup, stream, certificate, credentials, tasks }
}

impl Sidecar {
    async fn generation(&self, at_least: u64) -> Arc<weft_proxy_core::Snapshot> {
        let mut changes = self.snapshots.changes();
        soon("a snapshot", changes.wait_for(|generation| *generation >= at_least)).await.unwrap();
        self.snapshots.current()
    }

    async fn stream_until(&mut self, what: impl FnMut(&StreamStatus) -> bool) -> StreamStatus {
        soon("a state of the stream", self.stream.wait_for(what)).await.unwrap().clone()
    }

    async fn certificate_until(&mut self, what: impl FnMut(&CertificateStatus) -> bool) -> CertificateStatus {
        soon("a state of the certificate", self.certificate.wait_for(what)).await.unwrap().clone()
    }

    async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

fn key(kind: Kind, name: &str) -> v1::Key {
    (&Key::new(kind, name)).into()
}

#[tokio::test]
async fn a_sidecar_joins_by_token_subscribes_by_certificate_and_acknowledges() {
    let front = Front::new().await;
    let mut plane = front.start(Ca::new());
    let mut sidecar = sidecar(&front.settings(&[]));
    assert!(!plane.signed().await.by_certificate);
    let mut session = plane.session().await;
    let hello = session.hello().await;
    assert_eq!(hello.workload, "shop/cart-0");
    assert_eq!(hello.subscriptions, [key(Kind::Outbound, "shop/catalog:80")]);
    assert!(hello.held.is_empty());
    session.send(epoch(1, service("catalog", "10.0.0.1:80").into_iter().chain([mesh(), inbound(&[])]))).await;
    assert_eq!(session.ack().await, v1::Ack { nonce: 1, refusals: Vec::new() });
    let snapshot = sidecar.generation(1).await;
    assert!(snapshot.outbounds.contains_key("shop/catalog:80") && snapshot.inbound.is_some());
    assert_eq!(sidecar.stream_until(|status| status.connected).await.generation, 1);
    let identity = sidecar.certificate_until(|status| status.taken == 1).await.identity;
    assert_eq!(identity.as_deref(), Some("spiffe://cluster.local/ns/shop/sa/cart"));
    assert!(sidecar.credentials.tls().current().is_some(), "data threads can use it");
}

#[tokio::test]
async fn a_refusal_travels_back_with_its_reason_and_is_shown() {
    let front = Front::new().await;
    let mut plane = front.start(Ca::new());
    let mut sidecar = sidecar(&front.settings(&[]));
    let mut session = plane.session().await;
    session.hello().await;
    session.send(epoch(1, service("catalog", "10.0.0.1:80"))).await;
    session.ack().await;
    session.send(epoch(2, [resource(Kind::Backend, "shop/catalog:80", &[0xff][..])])).await;
    let ack = session.ack().await;
    assert_eq!((ack.nonce, ack.refusals.len()), (2, 1));
    let status = sidecar.stream_until(|status| status.epochs == 2).await;
    assert!(status.refused["Backend shop/catalog:80"].contains("malformed"), "{status:?}");
    session.send(epoch(3, [backend("catalog", &["10.0.0.2:80"])])).await;
    session.ack().await;
    assert!(sidecar.stream_until(|status| status.epochs == 3).await.refused.is_empty());
}

#[tokio::test]
async fn a_control_plane_that_dies_and_comes_back_learns_what_is_held() {
    let front = Front::new().await;
    let ca = Ca::new();
    let mut plane = front.start(ca);
    let mut sidecar = sidecar(&front.settings(&[]));
    let mut session = plane.session().await;
    session.hello().await;
    session.send(epoch(1, service("catalog", "10.0.0.1:80"))).await;
    session.ack().await;
    sidecar.stream_until(|status| status.connected).await;
    front.down();
    drop(plane);
    let status = sidecar.stream_until(|status| !status.connected).await;
    assert!(status.problem.is_some());
    assert!(sidecar.snapshots.current().outbounds.contains_key("shop/catalog:80"), "the last good stays");

    // Empty-handed: a root and a process that never met this sidecar.
    let mut plane = front.start(Ca::new());
    let mut session = plane.session().await;
    let mut held: Vec<String> =
        session.hello().await.held.into_iter().filter_map(|held| held.key).map(|key| key.name).collect();
    held.sort();
    assert_eq!(held, ["10.96.0.7:80", "shop/catalog:80", "shop/catalog:80"]);
    assert!(sidecar.certificate_until(|status| status.taken == 2).await.problem.is_none());
    session.send(epoch(1, [backend("catalog", &["10.0.0.2:80"])])).await;
    session.ack().await;
    let snapshot = sidecar.generation(2).await;
    assert_eq!(snapshot.backends["shop/catalog:80"].endpoints[0].address.to_string(), "10.0.0.2:80");
    sidecar.stream_until(|status| status.connected && status.disconnects > 0).await;
}

#[tokio::test]
async fn later_please_is_obeyed_and_the_sidecar_comes_back() {
    let front = Front::new().await;
    let mut plane = front.start(Ca::new());
    let mut sidecar = sidecar(&front.settings(&[]));
    let mut session = plane.session().await;
    session.hello().await;
    session.later(Duration::from_millis(50)).await;
    session.ended().await;
    let status = sidecar.stream_until(|status| status.disconnects == 1).await;
    assert!(status.problem.unwrap().contains("too many of you"));
    let mut again = plane.session().await;
    assert_eq!(again.hello().await.workload, "shop/cart-0");
}

#[tokio::test]
async fn a_renewal_by_certificate_swaps_key_and_leaf_without_a_new_stream() {
    let front = Front::new().await;
    let mut plane = front.start(Ca::new());
    plane.shared.life.store(20, Ordering::SeqCst);
    plane.shared.renew_after.store(0, Ordering::SeqCst);
    let mut sidecar = sidecar(&front.settings(&[]));
    let first = plane.signed().await;
    let mut session = plane.session().await;
    session.hello().await;
    let shown = session.leaf.clone();
    let second = plane.signed().await;
    assert!(second.by_certificate, "the certificate speaks for itself");
    assert_ne!(first.public_key, second.public_key, "each certificate has a key of its own");
    sidecar.certificate_until(|status| status.taken >= 2).await;
    let leaf = sidecar.credentials.leaf().unwrap();
    assert_ne!(leaf.key.cert[0].to_vec(), shown);
    session.send(epoch(1, [mesh()])).await;
    assert_eq!(session.ack().await.nonce, 1, "the stream that was open goes on");
}

#[tokio::test]
async fn a_control_plane_of_another_name_is_refused() {
    let front = Front::new().await;
    let mut plane = front.start_as(Ca::new(), "spiffe://cluster.local/ns/shop/sa/weft-control-plane");
    let mut sidecar = sidecar(&front.settings(&[]));
    let status = sidecar.certificate_until(|status| status.failures > 0).await;
    let problem = status.problem.unwrap();
    assert!(problem.contains("ns/shop/sa/weft-control-plane"), "{problem}");
    assert!(plane.signed.try_recv().is_err(), "no token was shown to it");
    assert!(sidecar.credentials.leaf().is_none());
}

#[tokio::test]
async fn a_control_plane_of_another_root_is_refused() {
    let front = Front::new().await;
    let mut plane = front.start(Ca::new());
    let settings = front.settings(&[]);
    std::fs::write(&front.anchors, Ca::new().pem).unwrap();
    let mut sidecar = sidecar(&settings);
    let problem = sidecar.certificate_until(|status| status.failures > 0).await.problem.unwrap();
    assert!(problem.contains("invalid peer certificate"), "{problem}");
    assert!(plane.signed.try_recv().is_err(), "no token was shown to it");
}

#[tokio::test]
async fn anchors_without_a_root_are_said_by_file() {
    let front = Front::new().await;
    let _plane = front.start(Ca::new());
    let settings = front.settings(&[]);
    std::fs::write(&front.anchors, "no PEM").unwrap();
    let mut sidecar = sidecar(&settings);
    let problem = sidecar.certificate_until(|status| status.failures > 0).await.problem.unwrap();
    assert!(problem.contains("check --trust-anchors"), "{problem}");
}

#[tokio::test]
async fn a_spent_token_is_said_with_what_to_do() {
    let front = Front::new().await;
    let plane = front.start(Ca::new());
    plane.shared.token_spent.store(true, Ordering::SeqCst);
    let mut sidecar = sidecar(&front.settings(&[]));
    let problem = sidecar.certificate_until(|status| status.failures > 0).await.problem.unwrap();
    assert!(problem.contains("put a fresh one in place"), "{problem}");
    plane.shared.token_spent.store(false, Ordering::SeqCst);
    sidecar.certificate_until(|status| status.taken == 1 && status.problem.is_none()).await;
}

#[tokio::test]
async fn an_expired_certificate_is_replaced_by_token_when_the_control_plane_is_back() {
    let front = Front::new().await;
    let mut plane = front.start(Ca::new());
    plane.shared.life.store(2, Ordering::SeqCst);
    plane.shared.renew_after.store(1, Ordering::SeqCst);
    let mut sidecar = sidecar(&front.settings(&[]));
    plane.signed().await;
    sidecar.certificate_until(|status| status.taken == 1).await;
    front.down();
    drop(plane);
    let credentials = Arc::clone(&sidecar.credentials);
    sidecar.certificate_until(|_| credentials.alive(SystemTime::now()).is_none()).await;
    assert!(sidecar.credentials.leaf().is_some(), "it is kept, but shown to nobody");
    let mut plane = front.start(Ca::new());
    assert!(!plane.signed().await.by_certificate);
    sidecar.certificate_until(|status| status.taken == 2).await;
}

#[tokio::test]
async fn a_new_root_in_the_trust_resource_is_trusted_beside_the_old_one() {
    let front = Front::new().await;
    let mut plane = front.start(Ca::new());
    let mut sidecar = sidecar(&front.settings(&[]));
    let mut session = plane.session().await;
    session.hello().await;
    let mut both = plane.trust();
    both.roots.push(Ca::new().root.to_vec().into());
    session.send(epoch(1, [resource(Kind::Trust, "cluster.local", both.encode_to_vec())])).await;
    session.ack().await;
    sidecar.stream_until(|status| status.epochs == 1).await;
    assert_eq!(sidecar.credentials.trust().unwrap().roots.len(), 2);
}

#[tokio::test]
async fn a_destination_is_looked_up_once_for_many_and_kept() {
    let front = Front::new().await;
    let mut plane = front.start(Ca::new());
    let sidecar = sidecar(&front.settings(&["--lookup-timeout", "30s"]));
    let mut session = plane.session().await;
    session.hello().await;
    let wanted = Wanted::Address("10.96.0.7:80".parse().unwrap());
    let asking =
        async { tokio::join!(sidecar.lookup.ask(wanted.clone()), sidecar.lookup.ask(wanted.clone())) };
    let answering = async {
        let subscribe = session.subscribe().await;
        assert_eq!(subscribe.add, [key(Kind::Address, "10.96.0.7:80")]);
        session.send(epoch(1, service("catalog", "10.0.0.1:80"))).await;
        session.ack().await;
    };
    let (answers, ()) = tokio::join!(asking, answering);
    assert_eq!(answers, (Answer::Arrived, Answer::Arrived));
    assert!(matches!(
        sidecar.snapshots.current().addresses[&"10.96.0.7:80".parse().unwrap()],
        Target::Outbound(_)
    ));
    assert!(sidecar.lookup.lease(&"10.96.0.7:80".parse().unwrap()).is_some());
}

#[tokio::test]
async fn an_address_nobody_claims_is_a_cached_answer() {
    let front = Front::new().await;
    let mut plane = front.start(Ca::new());
    let sidecar = sidecar(&front.settings(&["--lookup-timeout", "30s"]));
    let mut session = plane.session().await;
    session.hello().await;
    let wanted = Wanted::Address("192.0.2.1:443".parse().unwrap());
    let answering = async {
        session.subscribe().await;
        session.send(epoch(1, [unknown("192.0.2.1:443")])).await;
        session.ack().await;
    };
    let (answer, ()) = tokio::join!(sidecar.lookup.ask(wanted.clone()), answering);
    assert_eq!(answer, Answer::Arrived);
    assert!(matches!(
        sidecar.snapshots.current().addresses[&"192.0.2.1:443".parse().unwrap()],
        Target::Unknown
    ));
    assert_eq!(sidecar.lookup.ask(wanted).await, Answer::Arrived, "without a word to the control plane");
}

#[tokio::test]
async fn a_silent_control_plane_costs_a_connection_its_deadline_and_no_more() {
    let front = Front::new().await;
    let mut plane = front.start(Ca::new());
    let mut sidecar = sidecar(&front.settings(&["--lookup-timeout", "20ms"]));
    let mut session = plane.session().await;
    session.hello().await;
    session.send(epoch(1, [mesh()])).await;
    session.ack().await;
    sidecar.stream_until(|status| status.connected).await;
    let wanted = Wanted::Address("10.96.0.7:80".parse().unwrap());
    assert_eq!(soon("an answer", sidecar.lookup.ask(wanted)).await, Answer::Late);
    session.subscribe().await;
}

#[tokio::test]
async fn an_idle_destination_is_dropped_on_the_stream() {
    let front = Front::new().await;
    let mut plane = front.start(Ca::new());
    let sidecar = sidecar(&front.settings(&["--lookup-idle", "100ms", "--lookup-timeout", "30s"]));
    let mut session = plane.session().await;
    session.hello().await;
    let asking = sidecar.lookup.ask(Wanted::Address("10.96.0.7:80".parse().unwrap()));
    let answering = async {
        session.subscribe().await;
        session.send(epoch(1, service("catalog", "10.0.0.1:80"))).await;
        session.ack().await;
        assert_eq!(session.subscribe().await.drop, [key(Kind::Address, "10.96.0.7:80")]);
    };
    tokio::join!(asking, answering);
}

#[tokio::test]
async fn a_sidecar_starts_from_disk_without_a_control_plane() {
    let front = Front::new().await;
    let mut plane = front.start(Ca::new());
    let state = crate::testing::scratch("state").display().to_string();
    let settings = front.settings(&["--state-dir", &state]);
    let first = sidecar(&settings);
    let mut session = plane.session().await;
    session.hello().await;
    session.send(epoch(5, service("catalog", "10.0.0.1:80"))).await;
    session.ack().await;
    let hold = Hold::new(std::path::Path::new(&state), &settings.workload);
    soon("the file", async {
        while !matches!(hold.load(), Ok(Some(_))) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    first.stop().await;
    front.down();
    drop(plane);

    let second = sidecar(&settings);
    let snapshot = second.snapshots.current();
    assert!(snapshot.outbounds.contains_key("shop/catalog:80"), "before anything was asked");
    let status = second.stream.borrow().clone();
    assert!(status.configured && !status.connected && status.generation == 5);
    assert!(second.lookup.lease(&"10.96.0.7:80".parse().unwrap()).is_some());

    let mut plane = front.start(Ca::new());
    let hello = plane.session().await.hello().await;
    assert_eq!(hello.held.len(), 3, "only the difference has to come");
    assert!(hello.subscriptions.contains(&key(Kind::Address, "10.96.0.7:80")));
}

#[tokio::test]
async fn a_corrupt_file_is_ignored_and_written_anew() {
    let front = Front::new().await;
    let dir = crate::testing::scratch("corrupt");
    std::fs::write(dir.join("last-good"), "weft-last-good 1\nnonsense").unwrap();
    let state = dir.display().to_string();
    let settings = front.settings(&["--state-dir", &state]);
    let mut plane = front.start(Ca::new());
    let sidecar = sidecar(&settings);
    assert_eq!(sidecar.snapshots.current().generation, 0);
    let mut session = plane.session().await;
    session.hello().await;
    session.send(epoch(1, service("catalog", "10.0.0.1:80"))).await;
    session.ack().await;
    let hold = Hold::new(&dir, &settings.workload);
    soon("the file", async {
        while !matches!(hold.load(), Ok(Some(_))) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

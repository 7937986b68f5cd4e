//! Questions as the wire has them, and the data threads' answers.

use std::sync::Arc;

use weft_proxy_core::explain::Imagined;

use super::looks::Looking;
use super::*;
use crate::adopt::Adopter;
use crate::testing::config::*;

fn snapshot() -> Arc<Snapshot> {
    let mut adopter = Adopter::new("cluster.local");
    adopter.apply(epoch(
        1,
        [mesh(), inbound(&["shop/allow"]), authorization("shop", "allow")]
            .into_iter()
            .chain(service("catalog", "10.0.0.1:80")),
    ));
    Arc::clone(adopter.snapshot())
}

fn question(destination: v1::explain_request::Destination) -> v1::ExplainRequest {
    let side = match destination {
        v1::explain_request::Destination::Port(_) => v1::ExplainSide::Inbound,
        _ => v1::ExplainSide::Outbound,
    };
    v1::ExplainRequest {
        side: side.into(),
        destination: Some(destination),
        target: "/items?x=1".to_owned(),
        authority: "catalog".to_owned(),
        ..v1::ExplainRequest::default()
    }
}

#[test]
fn an_outbound_walk_ends_with_the_question_for_the_other_side() {
    let asked = question(v1::explain_request::Destination::Address("10.96.0.7:80".to_owned()));
    let walk = answer(&asked, &snapshot(), &Imagined::default()).unwrap();
    assert_eq!(walk.outcome.unwrap().end(), v1::WalkEnd::Forward);
    let onward = &walk.onward[0];
    assert_eq!(
        (onward.backend.as_str(), onward.endpoints[0].address.as_str()),
        ("shop/catalog:80", "10.0.0.1:80")
    );
    let mut sent = onward.sent.clone().unwrap();
    assert_eq!((sent.side(), sent.target.as_str()), (v1::ExplainSide::Inbound, "/items?x=1"));
    assert!(sent.peer_identity.starts_with("spiffe://cluster.local/ns/shop/sa/"), "{}", sent.peer_identity);
    sent.destination = Some(v1::explain_request::Destination::Port(8080));
    let there = answer(&sent, &snapshot(), &Imagined::default()).unwrap();
    assert!(there.steps.iter().any(|step| step.room == "authorize"), "{there:?}");
}

#[test]
fn a_question_that_makes_no_sense_is_refused_in_words() {
    use v1::explain_request::Destination as To;
    let snapshot = snapshot();
    let refused = |asked: &v1::ExplainRequest| answer(asked, &snapshot, &Imagined::default()).unwrap_err();
    assert!(refused(&v1::ExplainRequest::default()).contains("side 0"));
    assert!(refused(&question(To::Address("nowhere".to_owned()))).contains("<ip>:<port>"));
    assert!(refused(&question(To::Port(0))).contains("port"));
    let port = || question(To::Port(80));
    assert!(refused(&v1::ExplainRequest { peer_identity: "x".to_owned(), ..port() }).contains("no identity"));
    assert!(refused(&v1::ExplainRequest { method: "G T".to_owned(), ..port() }).contains("no method"));
    assert!(refused(&v1::ExplainRequest { spoken: 99, ..port() }).contains("99"));
    let outbound = v1::ExplainRequest { side: v1::ExplainSide::Outbound.into(), ..port() };
    assert!(refused(&outbound).contains("service port"));
}

#[tokio::test]
async fn every_thread_is_asked_once_and_who_is_late_is_left_out() {
    let looking = Looking::new(3);
    let (mut first, mut second, _late) = (looking.end(), looking.end(), looking.end());
    let name = Name::from("shop/catalog:80");
    let snapshot = snapshot();
    let backend = &snapshot.backends[&name];
    let fresh = Imagined::default().look(&name, backend);
    let ejected = |out: bool| {
        let mut look = fresh.clone();
        look.endpoints[0].ejected = out.then_some(std::time::Duration::from_secs(1));
        look.endpoints[0].in_flight = 2;
        look
    };
    let (one, other) = (ejected(true), ejected(false));
    let threads = async {
        tokio::task::yield_now().await;
        first.answer(|_| Some(one.clone()));
        first.answer(|_| panic!("a question is answered once"));
        second.answer(|_| Some(other.clone()));
        std::future::pending::<()>().await;
    };
    let looks = tokio::select! {
        looks = looking.ask(vec![name.clone()]) => looks,
        () = threads => return,
    };
    let seen = looks.look(&name, backend).endpoints[0];
    assert_eq!((seen.ejected, seen.in_flight), (None, 4), "one thread would still send there");
}

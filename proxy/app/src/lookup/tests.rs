//! Looking up on demand: what is asked for once, kept, given up and let go.

use tokio::time::Instant;
use weft_proxy_core::{Snapshot, Target};

use super::*;
use crate::adopt::{Key, Kind};

fn limits(max_lookups: usize) -> Limits {
    Limits { max_lookups, ..Limits::default() }
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 80))
}

fn key(last: u8) -> Key {
    Key::new(Kind::Address, address(last).to_string())
}

fn snapshot(held: &[u8]) -> Snapshot {
    let addresses = held.iter().map(|last| (address(*last), Target::Unknown)).collect();
    Snapshot { addresses, ..Snapshot::default() }
}

fn question(last: u8) -> (Question, oneshot::Receiver<Answer>) {
    let (answer, answered) = oneshot::channel();
    (Question { wanted: Wanted::Address(address(last)), answer }, answered)
}

#[tokio::test]
async fn many_askers_share_one_question_and_are_all_answered() {
    let (_lookup, mut desk, _questions) = lookup(&limits(10));
    let (first, mut one) = question(1);
    let (second, mut two) = question(1);
    assert_eq!(desk.ask(first, &snapshot(&[]), Instant::now()).add, [key(1)]);
    assert_eq!(desk.ask(second, &snapshot(&[]), Instant::now()).add, []);
    desk.arrived(&snapshot(&[2]));
    assert!(one.try_recv().is_err());
    desk.arrived(&snapshot(&[1]));
    assert_eq!((one.try_recv(), two.try_recv()), (Ok(Answer::Arrived), Ok(Answer::Arrived)));
}

#[tokio::test]
async fn what_is_held_is_answered_without_a_question() {
    let (_lookup, mut desk, _questions) = lookup(&limits(10));
    let (asked, mut answered) = question(1);
    assert!(desk.ask(asked, &snapshot(&[1]), Instant::now()).add.is_empty());
    assert_eq!(answered.try_recv(), Ok(Answer::Arrived));
}

#[tokio::test]
async fn what_was_taken_away_while_subscribed_is_asked_for_again() {
    let (_lookup, mut desk, _questions) = lookup(&limits(10));
    let (first, _one) = question(1);
    desk.ask(first, &snapshot(&[]), Instant::now());
    desk.arrived(&snapshot(&[1]));
    let (again, _two) = question(1);
    assert_eq!(desk.ask(again, &snapshot(&[]), Instant::now()).add, [key(1)]);
}

#[tokio::test]
async fn the_deadline_ends_a_question_that_nobody_answers() {
    let short = Limits { lookup_timeout: Duration::from_millis(10), ..Limits::default() };
    let (lookup, _desk, _questions) = lookup(&short);
    assert_eq!(lookup.ask(Wanted::Address(address(1))).await, Answer::Late);
}

#[tokio::test]
async fn in_an_outage_longer_than_the_deadline_nobody_waits() {
    let (_lookup, mut desk, _questions) = lookup(&limits(10));
    let down = Instant::now();
    desk.connected(false, down);
    let (early, mut waiting) = question(1);
    desk.ask(early, &snapshot(&[]), down);
    assert!(waiting.try_recv().is_err(), "the stream may be back in time");
    let later = down + Limits::default().lookup_timeout;
    desk.connected(false, later);
    let (late, mut answered) = question(2);
    desk.ask(late, &snapshot(&[]), later);
    assert_eq!(answered.try_recv(), Ok(Answer::Unreachable));
    assert_eq!(desk.subscriptions(), [key(1), key(2)], "both are asked for when the stream is back");
}

#[tokio::test]
async fn an_idle_destination_is_forgotten_and_a_used_or_leased_one_is_not() {
    let (lookup, mut desk, _questions) = lookup(&limits(10));
    desk.remember([1, 2, 3].map(address).into_iter());
    let leased = lookup.lease(&address(3)).unwrap();
    for _ in 0..9 {
        assert_eq!(desk.sweep(), []);
        lookup.lease(&address(2)).unwrap();
    }
    assert_eq!(desk.sweep(), [key(1)]);
    assert!(lookup.lease(&address(1)).is_none());
    drop(leased);
    let forgotten: Vec<Key> = (0..20).flat_map(|_| desk.sweep()).collect();
    assert_eq!(forgotten.len(), 2);
    assert!(desk.subscriptions().is_empty());
}

#[tokio::test]
async fn a_full_table_gives_up_its_longest_unused_and_never_a_leased_one() {
    let (lookup, mut desk, _questions) = lookup(&limits(2));
    desk.remember([1].map(address).into_iter());
    desk.sweep();
    desk.remember([2].map(address).into_iter());
    let _first = lookup.lease(&address(1)).unwrap();
    let (third, _three) = question(3);
    let changes = desk.ask(third, &snapshot(&[]), Instant::now());
    assert_eq!((changes.add, changes.drop), (vec![key(3)], vec![key(2)]));
    let (fourth, mut full) = question(4);
    assert_eq!(desk.ask(fourth, &snapshot(&[]), Instant::now()).add, []);
    assert_eq!(full.try_recv(), Ok(Answer::Full), "one is leased, the other waited for");
}

#[tokio::test]
async fn a_pinned_service_is_subscribed_from_the_start_and_never_swept() {
    let (_lookup, mut desk, _questions) = lookup(&limits(10));
    desk.pin(Name::from("shop/catalog:80"));
    for _ in 0..30 {
        assert_eq!(desk.sweep(), []);
    }
    assert_eq!(desk.subscriptions(), [Key::new(Kind::Outbound, "shop/catalog:80")]);
}

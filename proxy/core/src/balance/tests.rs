//! Picks: by weight, by load, away from what is ejected, and never out of thin air.

use super::*;
use crate::spec;
use proptest::prelude::*;

fn backend(weights: &[u32], policy: spec::TrafficPolicy) -> Arc<Backend> {
    let endpoints = weights.iter().enumerate().map(|(at, &weight)| endpoint(at as u8, weight)).collect();
    let spec = spec::Backend {
        service: "shop/cart".into(),
        port: 80,
        protocol: spec::Protocol::Http1,
        endpoints,
        policy,
    };
    Arc::new(Backend::compile(&spec).unwrap())
}

fn endpoint(at: u8, weight: u32) -> spec::Endpoint {
    spec::Endpoint {
        address: ([10, 0, 0, at], 80).into(),
        workload: Some(format!("shop/cart-{at}").as_str().into()),
        identity: None,
        zone: Arc::from(""),
        weight,
    }
}

fn plain(count: usize) -> Arc<Backend> {
    backend(&vec![1; count], spec::TrafficPolicy::default())
}

fn with_fallback(count: usize) -> Arc<Backend> {
    backend(
        &vec![1; count],
        spec::TrafficPolicy { fallback: Some("shop/spare:80".into()), ..Default::default() },
    )
}

fn second(second: u64) -> Moment {
    Moment(second * 1_000_000_000)
}

const MS: Duration = Duration::from_millis(1);
const SUCCESS: Outcome = Outcome::Success { latency: MS };

fn picked(pick: Pick) -> EndpointId {
    match pick {
        Pick::Endpoint { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

fn id_of(balancer: &Balancer, at: u8) -> EndpointId {
    balancer.ids().find(|&id| balancer.endpoint(id).unwrap().address == ([10, 0, 0, at], 80).into()).unwrap()
}

fn fail(balancer: &mut Balancer, id: EndpointId, times: u32, now: Moment) -> Option<Event> {
    (0..times).fold(None, |_, _| {
        balancer.started(id, now);
        balancer.finished(id, now, now, Outcome::Failure)
    })
}

#[test]
fn no_endpoint_and_one_endpoint_are_plain() {
    let mut chance = Chance::new(1);
    let mut none = Balancer::new(&plain(0), second(0));
    assert_eq!(none.pick(second(0), &mut chance, None), Pick::NoneReady);
    let mut one = Balancer::new(&plain(1), second(0));
    let id = picked(one.pick(second(0), &mut chance, None));
    assert_eq!(one.pick(second(0), &mut chance, Some(id)), Pick::NoneReady);
}

#[test]
fn the_less_loaded_of_two_is_chosen() {
    let mut balancer = Balancer::new(&plain(2), second(0));
    let mut chance = Chance::new(3);
    let busy = id_of(&balancer, 0);
    (0..5).for_each(|_| balancer.started(busy, second(0)));
    assert!((0..50).all(|_| picked(balancer.pick(second(0), &mut chance, None)) != busy));
    for _ in 0..5 {
        balancer.finished(busy, second(0), second(0), Outcome::Cancelled);
    }
    assert_eq!(balancer.in_flight(busy), 0);
    assert!((0..50).any(|_| picked(balancer.pick(second(0), &mut chance, None)) == busy));
}

#[test]
fn a_slow_endpoint_is_avoided_and_tried_again_later() {
    let mut balancer = Balancer::new(&plain(3), second(0));
    let mut chance = Chance::new(3);
    for at in 0..3 {
        let id = id_of(&balancer, at);
        let latency = if at == 0 { Duration::from_secs(1) } else { MS };
        balancer.started(id, second(1));
        balancer.finished(id, second(1), second(1), Outcome::Success { latency });
    }
    let slow = id_of(&balancer, 0);
    assert!((0..100).all(|_| picked(balancer.pick(second(2), &mut chance, None)) != slow));
    assert!((0..100).any(|_| picked(balancer.pick(second(300), &mut chance, None)) == slow));
}

#[test]
fn shares_of_equal_endpoints_follow_their_weights() {
    for weights in [&[1, 1][..], &[1, 3], &[1, 1, 2], &[5, 1, 1, 1], &[2; 7]] {
        let mut balancer = Balancer::new(&backend(weights, spec::TrafficPolicy::default()), second(0));
        let mut chance = Chance::new(11);
        let mut counts = vec![0u32; weights.len()];
        let total = 20_000u32;
        for step in 0..total {
            let now = Moment(u64::from(step) * 1_000_000);
            let id = picked(balancer.pick(now, &mut chance, None));
            balancer.started(id, now);
            // Latencies that differ by a tenth are equal.
            let latency = MS + Duration::from_micros(u64::from(chance.below(100)));
            balancer.finished(id, now.plus(latency), now.plus(latency), Outcome::Success { latency });
            let std::net::IpAddr::V4(ip) = balancer.endpoint(id).unwrap().address.ip() else {
                unreachable!()
            };
            counts[usize::from(ip.octets()[3])] += 1;
        }
        let sum: u32 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            let expected = total * weight / sum;
            assert!(count.abs_diff(expected) < total / 50, "{weights:?}: {counts:?}");
        }
    }
}

#[test]
fn consecutive_failures_eject_and_a_probe_restores() {
    let mut balancer = Balancer::new(&plain(2), second(0));
    let mut chance = Chance::new(1);
    let bad = id_of(&balancer, 0);
    assert_eq!(fail(&mut balancer, bad, 4, second(1)), None);
    assert_eq!(fail(&mut balancer, bad, 1, second(1)), Some(Event::Ejected { until: second(11) }));
    assert_eq!(balancer.counts(), (1, 1));
    assert!((0..50).all(|_| picked(balancer.pick(second(10), &mut chance, None)) != bad));
    assert_eq!(balancer.pick(second(11), &mut chance, None), Pick::Endpoint { id: bad, probe: true });
    // one probe at a time
    assert!((0..50).all(|_| picked(balancer.pick(second(11), &mut chance, None)) != bad));
    balancer.started(bad, second(11));
    assert_eq!(balancer.finished(bad, second(12), second(12), SUCCESS), Some(Event::Restored));
    assert_eq!(balancer.counts(), (2, 0));
}

#[test]
fn a_success_in_between_starts_the_count_anew() {
    let mut balancer = Balancer::new(&plain(2), second(0));
    let id = id_of(&balancer, 0);
    for _ in 0..10 {
        assert_eq!(fail(&mut balancer, id, 4, second(1)), None);
        balancer.started(id, second(1));
        assert_eq!(balancer.finished(id, second(1), second(1), SUCCESS), None);
    }
    assert!(!balancer.is_ejected(id));
}

#[test]
fn each_failed_probe_doubles_the_ejection_up_to_the_longest() {
    let mut balancer = Balancer::new(&plain(2), second(0));
    let mut chance = Chance::new(1);
    let bad = id_of(&balancer, 0);
    fail(&mut balancer, bad, 5, second(0));
    let mut now = second(10);
    for expected in [20, 40, 80, 160, 300, 300] {
        assert_eq!(balancer.pick(now, &mut chance, None), Pick::Endpoint { id: bad, probe: true });
        let until = now.plus(Duration::from_secs(expected));
        assert_eq!(fail(&mut balancer, bad, 1, now), Some(Event::Ejected { until }));
        now = until;
    }
}

#[test]
fn a_probe_that_is_cancelled_or_lost_is_followed_by_another() {
    let mut balancer = Balancer::new(&plain(2), second(0));
    let mut chance = Chance::new(1);
    let bad = id_of(&balancer, 0);
    fail(&mut balancer, bad, 5, second(0));
    let probe = Pick::Endpoint { id: bad, probe: true };
    assert_eq!(balancer.pick(second(10), &mut chance, None), probe);
    balancer.started(bad, second(10));
    balancer.finished(bad, second(11), second(11), Outcome::Cancelled);
    assert_eq!(balancer.pick(second(11), &mut chance, None), probe, "after a cancelled one");
    assert_ne!(balancer.pick(second(12), &mut chance, None), probe);
    assert_eq!(balancer.pick(second(21), &mut chance, None), probe, "after one that was never started");
}

#[test]
fn a_retry_probes_only_when_nobody_else_is_left() {
    let mut balancer = Balancer::new(&plain(2), second(0));
    let mut chance = Chance::new(1);
    let (bad, good) = (id_of(&balancer, 0), id_of(&balancer, 1));
    fail(&mut balancer, bad, 5, second(0));
    let elsewhere = Some(EndpointId(u32::MAX));
    assert_eq!(balancer.pick(second(10), &mut chance, elsewhere), Pick::Endpoint { id: good, probe: false });
    assert_eq!(balancer.pick(second(10), &mut chance, Some(good)), Pick::Endpoint { id: bad, probe: true });
    assert_eq!(balancer.pick(second(10), &mut chance, Some(good)), Pick::NoneReady);
}

#[test]
fn without_a_fallback_half_of_the_endpoints_stay() {
    for (count, ejected) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
        let mut balancer = Balancer::new(&plain(count), second(0));
        for at in 0..count as u8 {
            let id = id_of(&balancer, at);
            fail(&mut balancer, id, 20, second(1));
        }
        assert_eq!(balancer.counts(), (count - ejected, ejected));
        assert!(matches!(
            balancer.pick(second(1), &mut Chance::new(1), None),
            Pick::Endpoint { probe: false, .. }
        ));
    }
}

#[test]
fn with_a_fallback_the_circuit_opens_and_a_probe_closes_it() {
    let mut balancer = Balancer::new(&with_fallback(2), second(0));
    let mut chance = Chance::new(1);
    for at in 0..2 {
        let id = id_of(&balancer, at);
        fail(&mut balancer, id, 5, second(1));
    }
    assert_eq!(balancer.pick(second(2), &mut chance, None), Pick::CircuitOpen);
    let Pick::Endpoint { id, probe: true } = balancer.pick(second(11), &mut chance, None) else { panic!() };
    balancer.started(id, second(11));
    assert_eq!(balancer.finished(id, second(11), second(11), SUCCESS), Some(Event::Restored));
    let other = balancer.ids().find(|&other| other != id);
    assert_eq!(
        balancer.pick(second(11), &mut chance, other),
        Pick::Endpoint { id, probe: false },
        "the restored one takes traffic again"
    );
}

#[test]
fn a_late_answer_from_before_the_ejection_does_not_restore() {
    let mut balancer = Balancer::new(&plain(2), second(0));
    let bad = id_of(&balancer, 0);
    balancer.started(bad, second(0));
    fail(&mut balancer, bad, 5, second(1));
    assert_eq!(balancer.finished(bad, second(0), second(2), SUCCESS), None);
    assert!(balancer.is_ejected(bad));
}

#[test]
fn what_began_before_the_ejection_is_not_taken_for_the_probe() {
    for late in [SUCCESS, Outcome::Failure, Outcome::Cancelled] {
        let mut balancer = Balancer::new(&plain(2), second(0));
        let mut chance = Chance::new(1);
        let bad = id_of(&balancer, 0);
        balancer.started(bad, second(0));
        fail(&mut balancer, bad, 5, second(1));
        let probe = Pick::Endpoint { id: bad, probe: true };
        assert_eq!(balancer.pick(second(11), &mut chance, None), probe);
        balancer.started(bad, second(11));
        assert_eq!(balancer.finished(bad, second(0), second(12), late), None, "{late:?}");
        assert_ne!(balancer.pick(second(12), &mut chance, None), probe, "{late:?}: one probe at a time");
        assert_eq!(balancer.in_flight(bad), 1);
        assert_eq!(balancer.finished(bad, second(11), second(13), SUCCESS), Some(Event::Restored));
    }
}

#[test]
fn ejection_can_be_switched_off_and_then_restores() {
    let off = spec::Outlier { consecutive_failures: 0, ..Default::default() };
    let policy = spec::TrafficPolicy { outlier: Some(off), ..Default::default() };
    let mut balancer = Balancer::new(&plain(2), second(0));
    let bad = id_of(&balancer, 0);
    fail(&mut balancer, bad, 5, second(0));
    assert!(balancer.is_ejected(bad));
    balancer.update(&backend(&[1, 1], policy), second(1));
    assert!(!balancer.is_ejected(bad));
    assert_eq!(fail(&mut balancer, bad, 100, second(2)), None);
}

#[test]
fn an_update_keeps_what_is_known_and_forgets_what_is_gone() {
    let mut balancer = Balancer::new(&plain(4), second(0));
    let (kept, gone) = (id_of(&balancer, 1), id_of(&balancer, 3));
    fail(&mut balancer, kept, 5, second(0));
    balancer.started(gone, second(0));
    balancer.update(&plain(3), second(1));
    assert_eq!(id_of(&balancer, 1), kept);
    assert!(balancer.is_ejected(kept));
    assert!(balancer.endpoint(gone).is_none());
    // its slot is not given away while a request is under way
    balancer.update(&plain(5), second(2));
    assert!(balancer.ids().all(|id| id != gone));
    assert_eq!(balancer.finished(gone, second(3), second(3), Outcome::Failure), None);
    balancer.update(&plain(9), second(3));
    assert!(balancer.ids().all(|id| id != gone), "a reused slot has another id");
    assert_eq!(balancer.finished(gone, second(4), second(4), Outcome::Failure), None);
    assert!(balancer.ids().all(|id| balancer.in_flight(id) == 0));
}

#[test]
fn another_workload_at_the_same_address_starts_afresh() {
    let mut balancer = Balancer::new(&plain(2), second(0));
    let old = id_of(&balancer, 0);
    fail(&mut balancer, old, 5, second(0));
    let mut spec = Backend::clone(&plain(2));
    spec.endpoints[0] =
        Arc::new(Endpoint { workload: Some("shop/new".into()), ..Endpoint::clone(&spec.endpoints[0]) });
    balancer.update(&Arc::new(spec), second(1));
    assert_ne!(id_of(&balancer, 0), old);
    assert_eq!(balancer.counts(), (2, 0));
}

#[test]
fn fewer_endpoints_bring_back_the_ejected_beyond_the_floor() {
    let mut balancer = Balancer::new(&plain(4), second(0));
    for at in 0..2 {
        let id = id_of(&balancer, at);
        fail(&mut balancer, id, 5, second(u64::from(at)));
    }
    balancer.update(&plain(2), second(5));
    assert_eq!(balancer.counts(), (1, 1));
    assert!(!balancer.is_ejected(id_of(&balancer, 0)), "the one whose ejection ends first");
}

#[derive(Clone, Debug)]
enum Step {
    Pick { exclude: bool },
    Finish { at: usize, how: u8 },
    Update { count: usize, fallback: bool },
    Wait { seconds: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => any::<bool>().prop_map(|exclude| Step::Pick { exclude }),
        5 => (any::<usize>(), 0u8..4).prop_map(|(at, how)| Step::Finish { at, how }),
        1 => (0usize..6, any::<bool>()).prop_map(|(count, fallback)| Step::Update { count, fallback }),
        1 => (0u64..30).prop_map(|seconds| Step::Wait { seconds }),
    ];
    prop::collection::vec(step, 0..300)
}

proptest! {
    #[test]
    fn whatever_happens_picks_are_sound(seed: u64, steps in steps()) {
        let mut chance = Chance::new(seed);
        let mut now = second(0);
        let mut balancer = Balancer::new(&plain(3), now);
        let mut under_way: Vec<EndpointId> = Vec::new();
        let mut last = None;
        for step in steps {
            match step {
                Step::Pick { exclude } => {
                    let exclude = last.filter(|_| exclude);
                    let before: Vec<_> = balancer.ids().filter(|&id| balancer.is_ejected(id)).collect();
                    match balancer.pick(now, &mut chance, exclude) {
                        Pick::Endpoint { id, probe } => {
                            prop_assert!(balancer.endpoint(id).is_some());
                            prop_assert_ne!(Some(id), exclude);
                            prop_assert_eq!(before.contains(&id), probe);
                            balancer.started(id, now);
                            under_way.push(id);
                            last = Some(id);
                        }
                        Pick::NoneReady => prop_assert!(balancer.counts().0 <= usize::from(exclude.is_some())),
                        Pick::CircuitOpen => prop_assert_eq!(balancer.counts().0, 0),
                    }
                }
                Step::Finish { at, how } if !under_way.is_empty() => {
                    let id = under_way.swap_remove(at % under_way.len());
                    let outcome = match how {
                        0 => SUCCESS,
                        1 => Outcome::Cancelled,
                        _ => Outcome::Failure,
                    };
                    balancer.finished(id, now, now, outcome);
                }
                Step::Finish { .. } => {}
                Step::Update { count, fallback } => {
                    balancer.update(&if fallback { with_fallback(count) } else { plain(count) }, now);
                }
                Step::Wait { seconds } => now = now.plus(Duration::from_secs(seconds)),
            }
            let (ready, ejected) = balancer.counts();
            prop_assert_eq!(ready + ejected, balancer.backend().endpoints.len());
            if balancer.backend().policy.fallback.is_none() {
                prop_assert!(ejected <= (ready + ejected) / 2);
            }
            for id in balancer.ids().collect::<Vec<_>>() {
                let expected = under_way.iter().filter(|&&other| other == id).count();
                prop_assert_eq!(balancer.in_flight(id) as usize, expected);
            }
        }
    }
}

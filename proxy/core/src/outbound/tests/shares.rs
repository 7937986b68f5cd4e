//! Whose turn it is among a rule's backends.

use super::*;

fn shared(backends: Vec<spec::WeightedBackend>) -> Outbound {
    http(vec![rule("unused", vec![exact("/unused")]), spec::Rule { backends, ..rule("", vec![prefix("/")]) }])
}

/// Where so many requests in a row go.
fn turns(outbound: &Outbound, count: usize) -> Vec<String> {
    let mut turns = Turns::new(outbound);
    (0..count).map(|_| next(outbound, &mut turns, "/")).collect()
}

fn next(outbound: &Outbound, turns: &mut Turns, line: &str) -> String {
    match outbound.route(&Request::new(line, &[]).head(), turns) {
        Decision::Forward(plan) => outbound.backend(plan).unwrap().to_string(),
        Decision::Reply(reply) => reply.status.as_u16().to_string(),
    }
}

fn count(turns: &[String], of: &str) -> usize {
    turns.iter().filter(|turn| *turn == of).count()
}

/// Source: the suite's MeshHTTPRouteWeight, 70 and 30.
#[test]
fn weights_are_exact_over_a_cycle_and_spread_evenly() {
    let outbound = shared(vec![share("v1", 70), share("v2", 30)]);
    let taken = turns(&outbound, 500);
    assert_eq!((count(&taken, "v1"), count(&taken, "v2")), (350, 150));
    for window in taken.windows(10) {
        assert!((2..=4).contains(&count(window, "v2")), "{window:?}");
    }
    assert_eq!(turns(&shared(vec![share("a", 5), share("b", 1), share("c", 1)]), 7).concat(), "aabacaa");
}

/// Source: the suite's MeshGRPCRouteWeight: a missing backend of weight 0 disturbs nobody.
#[test]
fn weight_zero_gets_nothing_not_even_when_invalid() {
    let taken = turns(&shared(vec![share("v1", 70), share("v2", 30), invalid_share(0)]), 100);
    assert_eq!((count(&taken, "v1"), count(&taken, "v2")), (70, 30));
    let taken = turns(&shared(vec![share("none", 0), share("all", 1)]), 10);
    assert_eq!(count(&taken, "all"), 10);
}

#[test]
fn an_invalid_backend_answers_exactly_its_share() {
    let outbound = shared(vec![share("ok", 3), invalid_share(1)]);
    let taken = turns(&outbound, 400);
    assert_eq!((count(&taken, "ok"), count(&taken, "500")), (300, 100));
    let refused = reply(&shared(vec![invalid_share(1)]), "/", &[]);
    assert_eq!((refused.reason, refused.grpc()), (Reason::InvalidBackend, GrpcCode::Unavailable));
    assert_eq!((&*refused.message, refused.rule), ("no such Service", Some(1)));
}

#[test]
fn no_backend_and_no_weight_answer_500() {
    assert_eq!(goes(&shared(vec![]), "/", &[]), "500");
    assert_eq!(goes(&shared(vec![share("a", 0)]), "/", &[]), "500");
    assert_eq!(goes(&shared(vec![share("a", 0), share("b", 0)]), "/", &[]), "500");
}

#[test]
fn a_weight_out_of_range_is_refused() {
    let bad = spec::Rule { backends: vec![share("a", 1_000_001)], ..rule("", vec![]) };
    assert_eq!(invalid(vec![bad]).place, "HTTPRoute shop/r, rules[0], backendRefs[0], weight");
}

#[test]
fn rules_take_turns_apart() {
    let two = || vec![share("a", 1), share("b", 1)];
    let outbound = http(vec![
        spec::Rule { backends: two(), ..rule("", vec![prefix("/x")]) },
        spec::Rule { backends: two(), ..rule("", vec![prefix("/y")]) },
    ]);
    let mut turns = Turns::new(&outbound);
    let taken = ["/x", "/y", "/x", "/y"].map(|line| next(&outbound, &mut turns, line));
    assert_eq!(taken, ["a", "a", "b", "b"]);
}

#[test]
fn spread_turns_start_anywhere_and_keep_the_shares() {
    let outbound = shared(vec![share("a", 99), share("b", 1)]);
    let first = |seed| {
        let mut turns = Turns::spread(&outbound, &mut Chance::new(seed));
        let all: Vec<_> = (0..100).map(|_| next(&outbound, &mut turns, "/")).collect();
        assert_eq!(count(&all, "b"), 1);
        all.iter().position(|name| name == "b").unwrap()
    };
    let places: std::collections::BTreeSet<_> = (0..200).map(first).collect();
    assert!(places.len() > 50, "{places:?}");
}

proptest! {
    #[test]
    fn any_weights_are_exact_over_their_cycle(weights in prop::collection::vec(0u32..40, 1..6)) {
        let backends = weights.iter().enumerate().map(|(at, &weight)| share(&at.to_string(), weight)).collect();
        let total: u32 = weights.iter().sum();
        let taken = turns(&shared(backends), total as usize * 2);
        for (at, &weight) in weights.iter().enumerate() {
            prop_assert_eq!(count(&taken, &at.to_string()), weight as usize * 2);
        }
    }
}

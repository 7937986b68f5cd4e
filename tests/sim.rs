//! Both planes from one seed, 256 times; and proof that the simulation finds what is broken.
//!
//! `WEFT_SIM_SEED=n cargo test -p weft-tests --test sim` replays one seed with a log of its steps.

use weft_tests::sim::{Broken, Failed, Fault, Stats, run};

/// Seeds of the test command. Source: the issue that asked for the simulation.
const SEEDS: u64 = 256;
/// Seeds within which a fault that is built in must be found.
const FINDS: u64 = 48;

fn told(seed: u64, failed: &Failed) -> String {
    let logged = run(seed, None, true).err().map(|failed| failed.log).unwrap_or_default();
    let tail = logged.len().saturating_sub(40);
    format!(
        "seed {seed}: {:?}: {}\n{}\nreplay: WEFT_SIM_SEED={seed} cargo test -p weft-tests --test sim one_seed -- --nocapture",
        failed.violation.broken,
        failed.violation.text,
        logged[tail..].join("\n"),
    )
}

fn quarter(part: u64) {
    let mut all = Stats::default();
    for seed in (part * SEEDS / 4)..((part + 1) * SEEDS / 4) {
        match run(seed, None, false) {
            Ok(stats) => {
                all.requests += stats.requests;
                all.denied += stats.denied;
                all.retries += stats.retries;
                all.ejections += stats.ejections;
                all.epochs += stats.epochs;
                all.cuts += stats.cuts;
            }
            Err(failed) => panic!("{}", told(seed, &failed)),
        }
    }
    eprintln!("{all:?}");
    let least = [all.requests, all.denied, all.retries, all.ejections, all.epochs, all.cuts];
    assert!(least.iter().all(|count| *count > 50), "the runs are too tame to prove anything: {all:?}");
}

#[test]
fn seeds_keep_every_rule_first_quarter() {
    quarter(0);
}

#[test]
fn seeds_keep_every_rule_second_quarter() {
    quarter(1);
}

#[test]
fn seeds_keep_every_rule_third_quarter() {
    quarter(2);
}

#[test]
fn seeds_keep_every_rule_fourth_quarter() {
    quarter(3);
}

/// The seed of `WEFT_SIM_SEED`, with its log; without one the first, which must be the same twice.
#[test]
fn one_seed_replays() {
    let seed = std::env::var("WEFT_SIM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let (one, two) = (run(seed, None, false), run(seed, None, false));
    match (one, two) {
        (Ok(one), Ok(two)) => assert_eq!(one, two, "equal seeds give equal runs"),
        (Err(_), _) | (_, Err(_)) => {
            let failed = run(seed, None, true).expect_err("it failed a moment ago");
            panic!(
                "{}\nseed {seed}: {:?}: {}",
                failed.log.join("\n"),
                failed.violation.broken,
                failed.violation.text
            );
        }
    }
}

fn finds(fault: Fault, expected: &[Broken]) {
    let found = (0..FINDS).find_map(|seed| run(seed, Some(fault), false).err());
    let violation = found.unwrap_or_else(|| panic!("{FINDS} seeds do not find {fault:?}")).violation;
    assert!(expected.contains(&violation.broken), "{fault:?} is found as {violation:?}");
}

#[test]
fn an_adopter_that_drops_a_backend_is_found() {
    finds(Fault::DropsBackend, &[Broken::Epoch]);
}

#[test]
fn a_stream_that_loses_a_removal_is_found() {
    finds(Fault::LosesRemoval, &[Broken::Epoch]);
}

#[test]
fn a_stream_that_loses_a_change_is_found() {
    finds(Fault::LosesUpsert, &[Broken::Epoch, Broken::Named, Broken::Contract]);
}

#[test]
fn half_an_epoch_is_found() {
    finds(Fault::SplitsEpoch, &[Broken::Epoch, Broken::Named, Broken::Contract]);
}

#[test]
fn an_inbound_that_lets_the_denied_pass_is_found() {
    finds(Fault::PassesDenied, &[Broken::Policy]);
}

#[test]
fn a_balancer_that_forgets_ejections_is_found() {
    finds(Fault::ForgetsEjection, &[Broken::Ejection]);
}

#[test]
fn retries_beyond_the_budget_are_found() {
    finds(Fault::RetriesForever, &[Broken::Budget]);
}

#[test]
fn a_balancer_that_keeps_what_is_gone_is_found() {
    finds(Fault::KeepsEndpoints, &[Broken::Named]);
}

#[test]
fn a_sidecar_that_stays_away_is_found() {
    finds(Fault::StaysAway, &[Broken::Converge]);
}

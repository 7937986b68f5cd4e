//! The goals that stand in the issue, each judged by the runs that were made.
//! Before this: `measure`. After it: `report` prints them, `--gate` fails on them.
//!
//! Invariant: a goal is judged only by figures of one run; what was not measured is not judged, and never counted as met.

use crate::measure::{Outcome, Sample};
use crate::plan::{SCENARIOS, Scenario};
use crate::report::{ENVOY, median, paired, ratio};

/// A goal with what was measured; less is better for all of them.
#[derive(Debug, PartialEq)]
pub(crate) struct Goal {
    /// What is compared.
    pub(crate) what: String,
    /// What must hold.
    pub(crate) must: f64,
    /// What is aimed at.
    pub(crate) aim: f64,
    /// What was measured.
    pub(crate) measured: f64,
}

impl Goal {
    fn new(what: String, (must, aim): (f64, f64), measured: f64) -> Self {
        Self { what, must, aim, measured }
    }

    /// One word on how it went.
    pub(crate) fn verdict(&self) -> &'static str {
        if self.measured <= self.aim {
            "aim met"
        } else if self.measured <= self.must {
            "met"
        } else {
            "**missed**"
        }
    }

    /// Whether what must hold does not.
    pub(crate) fn is_missed(&self) -> bool {
        self.measured > self.must
    }
}

/// All goals that these outcomes can judge.
pub(crate) fn judged(outcomes: &[Outcome]) -> Vec<Goal> {
    outcomes
        .iter()
        .flat_map(|outcome| {
            [cpu(outcome), workers(outcome), latency(outcome), telling(outcome)]
                .into_iter()
                .flatten()
                .chain(memory(outcome))
        })
        .collect()
}

/// The plan of that name.
pub(crate) fn planned(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

fn cpu(outcome: &Outcome) -> Option<Goal> {
    let plan = planned(outcome.scenario)?;
    let resumed = outcome.seen.iter().any(|(peer, seen)| peer == WEFT && seen.resumed);
    if !plan.resume && resumed {
        // The goal is about full handshakes; these were none.
        return None;
    }
    let measured = ratio(outcome, WEFT, ENVOY, Sample::both)?;
    Some(Goal::new(format!("{}: CPU of both proxies, x Envoy", outcome.scenario), plan.goal?, measured))
}

fn workers(outcome: &Outcome) -> Option<Goal> {
    let closed = outcome.scenario.ends_with("-max");
    let measured = ratio(outcome, WEFT_TWO, WEFT, Sample::both).filter(|_| closed)?;
    Some(Goal::new(
        format!("{}: CPU with two workers, x one worker", outcome.scenario),
        TWO_WORKERS,
        measured,
    ))
}

/// What metrics, traces at the default sampling and a line for every request cost together.
fn telling(outcome: &Outcome) -> Option<Goal> {
    let measured = ratio(outcome, WEFT_TELLS, WEFT_MUTE, Sample::both)?;
    Some(Goal::new(format!("{}: CPU with all telemetry, x none", outcome.scenario), TELLING, measured))
}

fn latency(outcome: &Outcome) -> Option<Goal> {
    if outcome.scenario != "http-2000" {
        return None;
    }
    let added =
        |peer| paired(outcome, peer, "none", |sample| Some(sample.latency_us[0]), |own, none| own - none);
    let (own, others) = (added(WEFT), added(ENVOY));
    let mut ratios: Vec<f64> = own.iter().zip(&others).map(|(own, other)| own / other).collect();
    let measured = median(&mut ratios).filter(|_| own.len() == others.len())?;
    Some(Goal::new("http-2000: added p50, x Envoy".into(), ADDED_LATENCY, measured))
}

fn memory(outcome: &Outcome) -> Vec<Goal> {
    let of = |get: fn(&Sample) -> Option<f64>| {
        median(
            &mut outcome
                .samples
                .iter()
                .filter(|sample| sample.peer == WEFT)
                .filter_map(get)
                .collect::<Vec<_>>(),
        )
    };
    let idle =
        of(|sample| sample.memory.map(|memory| memory.idle.into_iter().max().unwrap_or(0) as f64 / 1024.0));
    let slope = of(|sample| sample.memory.map(|memory| memory.slope[0].max(memory.slope[1])));
    let per_connection = if outcome.scenario == "idle-tcp" { TCP_CONNECTION } else { HTTP_CONNECTION };
    let name = outcome.scenario;
    let goals = [
        idle.map(|mib| Goal::new(format!("{name}: idle sidecar, MiB"), IDLE, mib)),
        slope.map(|kib| Goal::new(format!("{name}: KiB per idle connection"), per_connection, kib)),
    ];
    goals.into_iter().flatten().collect()
}

const WEFT: &str = "weft";
const WEFT_TELLS: &str = "weft-tells";
const WEFT_MUTE: &str = "weft-mute";
const WEFT_TWO: &str = "weft/2w";
/// Must and aim. Source of all: what a bare pair on the same libraries reached, and room for features.
const TWO_WORKERS: (f64, f64) = (1.15, 1.05);
const TELLING: (f64, f64) = (1.08, 1.05);
const ADDED_LATENCY: (f64, f64) = (0.5, 0.5);
const IDLE: (f64, f64) = (9.0, 6.0);
const HTTP_CONNECTION: (f64, f64) = (9.0, 6.0);
const TCP_CONNECTION: (f64, f64) = (12.0, 8.0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Seen;
    use crate::measure::Memory;

    fn outcome(scenario: &'static str, samples: Vec<Sample>) -> Outcome {
        Outcome { scenario, title: "", seen: Vec::new(), samples, failed: Vec::new() }
    }

    fn sample(peer: &str, both: f64) -> Sample {
        Sample { peer: peer.to_owned(), cpu: Some([both / 2.0, both / 2.0]), ..Sample::default() }
    }

    #[test]
    fn resumed_handshakes_do_not_pass_for_full_ones() {
        let mut run = outcome("conn", vec![sample("envoy", 100.0), sample("weft", 50.0)]);
        assert_eq!(judged(std::slice::from_ref(&run))[0].verdict(), "aim met");
        run.seen.push(("weft".into(), Seen { tls: String::new(), resumed: true }));
        assert_eq!(judged(&[run]), []);
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        assert_eq!(judged(&[outcome("http-max", vec![sample("weft", 1.0)])]), []);
    }

    #[test]
    fn memory_is_judged_by_the_worse_side() {
        let memory = Some(Memory { idle: [5 << 10, 10 << 10], slope: [7.0, 1.0], ..Memory::default() });
        let run = outcome("idle-http", vec![Sample { peer: "weft".into(), memory, ..Sample::default() }]);
        let verdicts: Vec<&str> = judged(&[run]).iter().map(Goal::verdict).collect();
        assert_eq!(verdicts, ["**missed**", "met"]);
    }

    #[test]
    fn two_workers_are_judged_against_one() {
        let run = outcome("grpc-max", vec![sample("weft", 10.0), sample("weft/2w", 12.0)]);
        let goals = judged(&[run]);
        assert!(goals[0].is_missed(), "{goals:?}");
    }
}

//! Tables and ratios: what a run says, as markdown for people and JSON for machines.
//! Before this: `measure`. After it: README.md, by hand and dated.
//!
//! Invariant: a ratio is the median of the ratios within each repetition, never a ratio of medians: the machine's speed
//! moves by a factor of two between minutes, within one repetition much less.

use std::fmt::Write as _;

use serde::Serialize;

use crate::goals::{judged, planned};
use crate::measure::{Effort, Outcome, Sample};
use crate::plan::Load;

/// A whole run.
#[derive(Serialize)]
pub(crate) struct Report {
    /// The machine, in one line.
    pub(crate) machine: String,
    /// Seconds since 1970 when the run began.
    pub(crate) began: u64,
    /// How long and how often.
    pub(crate) effort: Effort,
    /// Label and version of each peer.
    pub(crate) peers: Vec<(String, String)>,
    /// Scenario by scenario.
    pub(crate) outcomes: Vec<Outcome>,
}

impl Report {
    /// What went wrong: peers that failed, bad answers. Empty for a good run.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut all = Vec::new();
        for outcome in &self.outcomes {
            for (peer, why) in &outcome.failed {
                all.push(format!("{}: {peer} failed: {why}", outcome.scenario));
            }
            for sample in outcome.samples.iter().filter(|sample| sample.bad > 0) {
                let why = sample.why.as_deref().unwrap_or_default();
                let place = format!("{}: {} #{}", outcome.scenario, sample.peer, sample.repeat + 1);
                all.push(format!("{place}: {} bad answers, the first: {why}", sample.bad));
            }
        }
        all
    }

    /// Goals that Weft was measured against and missed.
    pub(crate) fn missed(&self) -> Vec<String> {
        let goals = judged(&self.outcomes);
        let missed = goals.iter().filter(|goal| goal.is_missed());
        missed.map(|goal| format!("{}: {:.2}, must be {:.2}", goal.what, goal.measured, goal.must)).collect()
    }

    /// The report as markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{}\n\n", self.machine);
        let Effort { seconds, warm_up, repeats, .. } = self.effort;
        let _ = writeln!(
            text,
            "{repeats} repetitions of {seconds} s after {warm_up} s of warm-up, peers interleaved, order rotated; \
             cells are medians (lowest - highest), ratios are medians of the ratios per repetition.\n"
        );
        for (peer, version) in &self.peers {
            let _ = writeln!(text, "- {peer}: {version}");
        }
        for outcome in &self.outcomes {
            text += &table(outcome);
        }
        text += &self.summary();
        for complaint in self.complaints() {
            let _ = writeln!(text, "- **{complaint}**");
        }
        text
    }

    fn summary(&self) -> String {
        let goals = judged(&self.outcomes);
        if goals.is_empty() {
            return String::new();
        }
        let mut text = String::from(
            "\n### Weft against its goals\n\n| goal | must | aim | measured | |\n|---|---|---|---|---|\n",
        );
        for goal in &goals {
            let verdict = goal.verdict();
            let _ = writeln!(
                text,
                "| {} | {:.2} | {:.2} | {:.2} | {verdict} |",
                goal.what, goal.must, goal.aim, goal.measured
            );
        }
        text
    }
}

fn table(outcome: &Outcome) -> String {
    let load = planned(outcome.scenario).map(|plan| plan.load);
    let mut text = format!("\n### {}: {}\n\n", outcome.scenario, outcome.title);
    match load {
        Some(Load::Idle { .. }) => text += IDLE_HEAD,
        Some(Load::Bulk) => text += BULK_HEAD,
        Some(Load::Churn { .. }) => text += &REQUEST_HEAD.replace("rps", "conn/s").replace("/req", "/conn"),
        _ => text += REQUEST_HEAD,
    }
    for label in labels(outcome) {
        let row = match load {
            Some(Load::Idle { .. }) => idle_row(outcome, &label),
            Some(Load::Bulk) => bulk_row(outcome, &label),
            _ => request_row(outcome, &label),
        };
        let _ = writeln!(text, "| {label} | {row} |");
    }
    if !outcome.seen.is_empty() {
        text.push('\n');
    }
    for (label, seen) in &outcome.seen {
        let sessions = if seen.resumed { "sessions resumed" } else { "full handshakes" };
        let _ = writeln!(text, "- {label} between the proxies: {}; {sessions}", seen.tls);
    }
    text
}

fn request_row(outcome: &Outcome, label: &str) -> String {
    let of = |get: fn(&Sample) -> Option<f64>| cell(outcome, label, get);
    let added = paired(outcome, label, "none", |sample| Some(sample.latency_us[0]), |own, none| own - none);
    [
        of(|sample| Some(sample.rate)),
        of(|sample| Some(sample.latency_us[0])),
        of(|sample| Some(sample.latency_us[2])),
        if label == "none" { String::new() } else { spread(added) },
        of(|sample| sample.cpu.map(|[a, _]| a)),
        of(|sample| sample.cpu.map(|[_, b]| b)),
        of(Sample::both),
        ratio_cell(outcome, label),
    ]
    .join(" | ")
}

fn bulk_row(outcome: &Outcome, label: &str) -> String {
    let of = |get: fn(&Sample) -> Option<f64>| cell(outcome, label, get);
    [
        of(|sample| Some(sample.rate)),
        of(|sample| sample.cpu.map(|[a, _]| a)),
        of(|sample| sample.cpu.map(|[_, b]| b)),
        of(Sample::both),
        ratio_cell(outcome, label),
    ]
    .join(" | ")
}

fn idle_row(outcome: &Outcome, label: &str) -> String {
    let of = |get: fn(&Sample) -> Option<f64>| cell(outcome, label, get);
    [
        of(|sample| sample.memory.map(|memory| memory.idle[0] as f64 / 1024.0)),
        of(|sample| sample.memory.map(|memory| memory.idle[1] as f64 / 1024.0)),
        of(|sample| sample.memory.map(|memory| memory.many[0] as f64 / 1024.0)),
        of(|sample| sample.memory.map(|memory| memory.many[1] as f64 / 1024.0)),
        of(|sample| sample.memory.map(|memory| memory.slope[0])),
        of(|sample| sample.memory.map(|memory| memory.slope[1])),
    ]
    .join(" | ")
}

fn ratio_cell(outcome: &Outcome, label: &str) -> String {
    ratio(outcome, label, ENVOY, Sample::both).map_or(String::new(), |ratio| format!("{ratio:.2}"))
}

fn cell(outcome: &Outcome, label: &str, get: fn(&Sample) -> Option<f64>) -> String {
    spread(outcome.samples.iter().filter(|sample| sample.peer == label).filter_map(get).collect())
}

/// The median of what `label` has over what `other` has, repetition by repetition.
pub(crate) fn ratio(
    outcome: &Outcome,
    label: &str,
    other: &str,
    get: fn(&Sample) -> Option<f64>,
) -> Option<f64> {
    median(&mut paired(outcome, label, other, get, |own, other| own / other))
}

/// `join` of what `label` and `other` have, for each repetition that has both.
pub(crate) fn paired(
    outcome: &Outcome,
    label: &str,
    other: &str,
    get: fn(&Sample) -> Option<f64>,
    join: fn(f64, f64) -> f64,
) -> Vec<f64> {
    let one = |peer: &str, repeat| {
        outcome.samples.iter().find(|sample| sample.peer == peer && sample.repeat == repeat).and_then(get)
    };
    let repeats = outcome.samples.iter().map(|sample| sample.repeat + 1).max().unwrap_or(0);
    (0..repeats).filter_map(|repeat| Some(join(one(label, repeat)?, one(other, repeat)?))).collect()
}

fn spread(mut values: Vec<f64>) -> String {
    let Some(middle) = median(&mut values) else { return String::new() };
    match values.as_slice() {
        [low, .., high] => format!("{} ({} - {})", short(middle), short(*low), short(*high)),
        _ => short(middle),
    }
}

/// The middle of the values, which are sorted on the way.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        even if even % 2 == 0 => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}

fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn labels(outcome: &Outcome) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for sample in &outcome.samples {
        if !labels.contains(&sample.peer) {
            labels.push(sample.peer.clone());
        }
    }
    labels
}

/// The peer that ratios are taken to.
pub(crate) const ENVOY: &str = "envoy";
const REQUEST_HEAD: &str = "\
| peer | rps | p50 us | p99 us | p50 over none | A us CPU/req | B | A+B | x Envoy |
|---|---|---|---|---|---|---|---|---|
";
const BULK_HEAD: &str = "\
| peer | GiB/s | A CPU-s/GiB | B | A+B | x Envoy |
|---|---|---|---|---|---|
";
const IDLE_HEAD: &str = "\
| peer | idle A MiB | idle B | all connections: A MiB | B | A KiB/connection | B KiB/connection |
|---|---|---|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(figures: &[(&str, usize, f64)]) -> Outcome {
        let sample = |(peer, repeat, both): &(&str, usize, f64)| Sample {
            peer: (*peer).to_owned(),
            repeat: *repeat,
            cpu: Some([both / 2.0, both / 2.0]),
            ..Sample::default()
        };
        let samples = figures.iter().map(sample).collect();
        Outcome { scenario: "http-max", title: "", seen: Vec::new(), samples, failed: Vec::new() }
    }

    #[test]
    fn ratios_are_taken_within_each_repetition() {
        let run = outcome(&[
            ("envoy", 0, 100.0),
            ("weft", 0, 40.0),
            ("weft", 1, 90.0),
            ("envoy", 1, 200.0),
            ("envoy", 2, 100.0),
            ("weft", 2, 50.0),
        ]);
        assert_eq!(ratio(&run, "weft", "envoy", Sample::both), Some(0.45));
    }

    #[test]
    fn a_repetition_without_its_yardstick_gives_no_ratio() {
        let run = outcome(&[("envoy", 0, 100.0), ("weft", 1, 40.0)]);
        assert_eq!(ratio(&run, "weft", "envoy", Sample::both), None);
    }

    #[test]
    fn a_missed_goal_and_a_bad_answer_are_told() {
        let mut run = outcome(&[("envoy", 0, 100.0), ("weft", 0, 60.0)]);
        run.samples[1].bad = 3;
        let effort = Effort { seconds: 1.0, warm_up: 0.0, repeats: 1, settle: 0.0 };
        let report =
            Report { machine: String::new(), began: 0, effort, peers: Vec::new(), outcomes: vec![run] };
        assert_eq!(report.missed(), ["http-max: CPU of both proxies, x Envoy: 0.60, must be 0.42"]);
        assert_eq!(report.complaints().len(), 1);
        assert!(report.markdown().contains("| 0.42 | 0.34 | 0.60 | **missed** |"));
    }
}

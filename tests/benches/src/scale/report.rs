//! The control plane's figures at scale as a table, with the goals of the issue.
//! Before this: `scale` measured. After it: README.md, by hand and dated.
//!
//! Invariant: a goal is judged by the larger mesh; what must not grow, by both.

use std::fmt::Write as _;

use super::Figures;
use crate::cpu;

/// Both meshes, the smaller first, as markdown.
pub(super) fn markdown(figures: &[Figures; 2]) -> String {
    let [small, large] = figures;
    let mut text = format!("{}\n\n", cpu::machine());
    let _ = writeln!(text, "| control plane | {} | {} | must |", size(small), size(large));
    let _ = writeln!(text, "|---|---|---|---|");
    for (what, of, must) in rows() {
        let _ = writeln!(text, "| {what} | {} | {} | {must} |", of(small), of(large));
    }
    text
}

/// Goals that were missed.
pub(super) fn missed([small, large]: &[Figures; 2]) -> Vec<String> {
    let goals = [
        ("memory of a connected sidecar, KiB", large.sidecar_kib, SIDECAR_KIB),
        ("one change, p99 in ms", large.changes.p99_ms, CHANGE_MS),
        ("everybody returning, seconds", large.again.seconds, RETURN_SECONDS),
        ("CPU of returning against a full push", large.again.cpu_seconds / large.first.cpu_seconds, 1.0),
        ("bytes of returning against a full push", large.again.mib / large.first.mib, 1.0),
        ("receipts of changes to the same bytes", large.same_receipts as f64, 0.0),
        ("CPU of a change against a tenth", large.changes.cpu_micros / small.changes.cpu_micros, GROWTH),
    ];
    let missed = goals.into_iter().filter(|(_, measured, must)| measured > must);
    missed.map(|(what, measured, must)| format!("{what}: {measured:.2}, must be {must:.2}")).collect()
}

type Row = (&'static str, fn(&Figures) -> String, &'static str);

fn rows() -> [Row; 9] {
    [
        ("memory of a connected sidecar", |it| format!("{:.1} KiB", it.sidecar_kib), "100 KiB"),
        ("memory without sidecars", |it| format!("{:.1} MiB", it.bare_kib as f64 / 1024.0), ""),
        (
            "one endpoint changes: received after",
            |it| {
                let it = &it.changes;
                format!("p50 {:.1}, p99 {:.1}, worst {:.1} ms", it.p50_ms, it.p99_ms, it.worst_ms)
            },
            "p99 100 ms",
        ),
        (
            "receipts, resources in each",
            |it| {
                let each = it.changes.resources as f64 / it.changes.receipts.max(1) as f64;
                format!("{} of {} changes, {each:.2}", it.changes.receipts, it.changes.count)
            },
            "",
        ),
        (
            "CPU of a change, all in all",
            |it| format!("{:.0} us for {} receipts", it.changes.cpu_micros, it.subscribers),
            "does not grow",
        ),
        (
            "of that, event to published",
            |it| format!("{:.0} us, worst {:.0}", it.changes.compile_micros, it.changes.compile_worst_micros),
            "does not grow",
        ),
        ("changes to the same bytes: receipts", |it| it.same_receipts.to_string(), "0"),
        ("all connect, full push", |it| round(&it.first), ""),
        ("all return, everything held", |it| round(&it.again), "10 s, less than a full push"),
    ]
}

fn round(it: &super::Round) -> String {
    format!("{:.1} s, {:.2} CPU s, {:.1} MiB, {} resources", it.seconds, it.cpu_seconds, it.mib, it.resources)
}

fn size(it: &Figures) -> String {
    format!("{} services, {} endpoints, {} sidecars", it.services, it.endpoints, it.sidecars)
}

/// Source: the issue.
const SIDECAR_KIB: f64 = 100.0;
/// Source: the issue.
const CHANGE_MS: f64 = 100.0;
/// Source: the issue.
const RETURN_SECONDS: f64 = 10.0;
/// Growth from a tenth of the mesh that is still called none. Source: ours; runs differ by as much.
const GROWTH: f64 = 1.5;

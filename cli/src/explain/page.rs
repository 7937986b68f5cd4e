//! An explanation for a person: rooms in a column, reasons indented below, the manifest and field behind each.
//!
//! Invariant: pure. Colour only where a terminal reads; the words are the same without.

use std::fmt::Write as _;

use super::report::{By, Mark, NotInForce, Outcome, Report, Side, Step};

/// Width of the column of rooms: the longest name and a gap.
const ROOM: usize = 11;

/// The page.
pub(super) fn render(report: &Report, colour: bool) -> String {
    let mut page = Page { out: String::new(), colour };
    page.line(0, &format!("{}  from {}  to {}", report.request, report.from, report.to));
    for side in &report.sides {
        page.side(side);
    }
    page.line(0, "");
    for outcome in &report.outcomes {
        page.outcome(outcome);
    }
    if !report.not_in_force.is_empty() {
        page.line(0, "");
        page.line(0, "meant for this destination, and not in force");
        report.not_in_force.iter().for_each(|it| page.not_in_force(it));
    }
    page.out
}

struct Page {
    out: String,
    colour: bool,
}

impl Page {
    fn line(&mut self, indent: usize, text: &str) {
        let line = format!("{:indent$}{text}", "");
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    fn side(&mut self, side: &Side) {
        let of = match side.workload.as_str() {
            "" => String::new(),
            workload => format!(", the sidecar of {workload}"),
        };
        let note = if side.note.is_empty() { String::new() } else { format!(" ({})", side.note) };
        self.line(0, "");
        let title = self.strong(&format!("{}{of}", side.side));
        self.line(0, &format!("{title}{note}"));
        let mut room = "";
        for step in &side.steps {
            let name = if step.room == room { "" } else { step.room.as_str() };
            room = &step.room;
            let text = self.said(step);
            self.line(2, &format!("{name:<ROOM$}{text}"));
            self.below(step, 2 + ROOM);
        }
    }

    /// What a step consists of, and what says so.
    fn below(&mut self, step: &Step, indent: usize) {
        if let Some(by) = &step.by {
            let text = self.faint(&place(by));
            self.line(indent + 2, &text);
        }
        for part in &step.steps {
            let mark = self.marked(part.mark);
            let text = self.said(part);
            self.line(indent + 2, &format!("{mark} {text}"));
            self.below(part, indent + 2);
        }
    }

    fn said(&self, step: &Step) -> String {
        let what = match step.mark {
            Mark::Ends => self.painted("31", &step.what),
            Mark::Shadow => format!("[shadow] {}", step.what),
            Mark::Fact | Mark::Holds | Mark::PassedBy => step.what.clone(),
        };
        let default = if step.default { " (default)" } else { "" };
        if step.why.is_empty() {
            format!("{what}{default}")
        } else {
            format!("{what}: {}{default}", step.why)
        }
    }

    fn marked(&self, mark: Mark) -> String {
        match mark {
            Mark::Fact => "·".to_owned(),
            Mark::Holds => self.painted("32", "+"),
            Mark::PassedBy => "-".to_owned(),
            Mark::Ends => self.painted("31", "!"),
            Mark::Shadow => self.painted("33", "~"),
        }
    }

    fn outcome(&mut self, outcome: &Outcome) {
        let word = match (outcome.end, outcome.status) {
            ("forward", _) => self.painted("32", "forwarded"),
            ("passThrough", _) => "passed through".to_owned(),
            ("reset", _) => self.painted("31", "reset"),
            (_, status) if outcome.grpc_status == 0 => self.painted("31", &format!("answered with {status}")),
            (_, status) => {
                self.painted("31", &format!("answered with {status}, gRPC status {}", outcome.grpc_status))
            }
        };
        let reason = if outcome.reason.is_empty() { String::new() } else { format!(" ({})", outcome.reason) };
        self.line(0, &format!("{word}{reason}: {}", outcome.why));
        if !outcome.remedy.is_empty() {
            self.line(2, outcome.remedy);
        }
    }

    fn not_in_force(&mut self, it: &NotInForce) {
        let place = if it.place.is_empty() { String::new() } else { format!(" ({})", it.place) };
        self.line(2, &format!("{} {}/{}{place}: {}", it.kind, it.namespace, it.name, it.condition));
        self.line(6, &it.message);
    }

    fn strong(&self, text: &str) -> String {
        self.painted("1", text)
    }

    fn faint(&self, text: &str) -> String {
        self.painted("2", text)
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// What says so, with its place.
fn place(by: &By) -> String {
    let mut text = by.kind.clone();
    let slash = if by.namespace.is_empty() { String::new() } else { format!("{}/", by.namespace) };
    // Writing to a String cannot fail.
    let _ = write!(text, " {slash}{}", by.name);
    if !by.field.is_empty() {
        let _ = write!(text, " {}", by.field);
    }
    if !by.place.is_empty() {
        let _ = write!(text, " ({})", by.place);
    }
    text
}

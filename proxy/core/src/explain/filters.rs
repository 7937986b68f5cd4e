//! What the filters of a rule or of a backend do, each with its place in the object.
//!
//! Invariant: what is shown is what was compiled, which is what is carried out.

use http::HeaderValue;

use super::text::quoted;
use super::{By, Mark, Room, Step};
use crate::route::filter::{Answer, Edit, Filters, PathEdit};

/// The filters, in the order in which they are carried out; `by` gives the object with the place below
/// "filters".
pub(super) fn steps(filters: &Filters, by: impl Fn(&str) -> By) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut say = |at: u8, what: &str, why: String, mark: Mark| {
        let place = by(&format!(".filters[{at}]"));
        steps.push(Step::new(Room::Route, mark, what, why).by(place));
    };
    let places = filters.places;
    if !filters.request.is_empty() {
        say(places.request, "request header fields", edits(&filters.request), Mark::Fact);
    }
    if let Some((authority, _)) = &filters.host {
        say(places.host, "host", format!("becomes {authority}"), Mark::Fact);
    }
    if let Some(edit) = &filters.path {
        say(places.path, "path", path(edit), Mark::Fact);
    }
    if !filters.response.is_empty() {
        say(places.response, "answer's header fields", edits(&filters.response), Mark::Fact);
    }
    match &filters.answer {
        Some(Answer::Redirect(redirect)) => {
            say(places.answer, "redirect", format!("answers {}", redirect.status.as_u16()), Mark::Ends);
        }
        // No filter of the user's: the rule cannot be carried out, and says why.
        Some(Answer::Fixed(status, why)) => {
            let step = Step::new(Room::Route, Mark::Ends, "answer", format!("{}: {why}", status.as_u16()));
            steps.push(step.by(by("")));
        }
        None => {}
    }
    steps
}

fn edits(edits: &[Edit]) -> String {
    let one = |edit: &Edit| match edit {
        Edit::Set(name, value) => format!("set {name}: {}", shown(value)),
        Edit::Add(name, value) => format!("add {name}: {}", shown(value)),
        Edit::Remove(name) => format!("remove {name}"),
    };
    edits.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn shown(value: &HeaderValue) -> String {
    quoted(value.as_bytes())
}

fn path(edit: &PathEdit) -> String {
    match edit {
        PathEdit::Full(path) => format!("becomes {path}"),
        PathEdit::Prefix { by, .. } if by.is_empty() => "loses the prefix that matched".to_owned(),
        PathEdit::Prefix { by, .. } => format!("gets the prefix {by} for the one that matched"),
    }
}

//! The list of what is still too large: it may only shrink.
//!
//! One exception a line: rule, place, count, reason; `#` begins a comment.
//!
//! ```text
//! function proxy/app/src/inbound.rs:serve 84 one step of the walk a line
//! ```
//!
//! Invariant: an exception's count is what is found, no more: who makes a thing smaller takes the
//! number down, so it cannot grow back.

use super::Finding;

/// The rules that take exceptions: those that count.
const COUNTED: [&str; 3] = ["file", "function", "sleep"];

/// An accepted finding.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Exception<'a> {
    rule: &'a str,
    place: &'a str,
    count: usize,
}

/// What is left of `findings` after the exceptions, and what is wrong with the exceptions themselves.
pub fn apply(list: &str, findings: Vec<Finding>) -> Vec<Finding> {
    let mut left = Vec::new();
    let mut exceptions = Vec::new();
    for (number, line) in list.lines().enumerate() {
        match parse(line) {
            Ok(exception) => exceptions.extend(exception),
            Err(what) => left.push(finding(number + 1, what)),
        }
    }
    for (index, exception) in exceptions.iter().enumerate() {
        let found = largest(&findings, exception);
        let twice =
            exceptions.iter().take(index).any(|e| (e.rule, e.place) == (exception.rule, exception.place));
        let what = match found {
            _ if twice => "is there twice",
            None => "is needed no more: take it out",
            Some(count) if count < exception.count => "is larger than what is found: take the number down",
            Some(_) => continue,
        };
        left.push(finding(0, &format!("{} {} {what}", exception.rule, exception.place)));
    }
    let excepted =
        |f: &Finding| exceptions.iter().any(|e| e.rule == f.rule && e.place == f.place && f.count <= e.count);
    left.extend(findings.into_iter().filter(|finding| !excepted(finding)));
    left
}

fn largest(findings: &[Finding], exception: &Exception<'_>) -> Option<usize> {
    let same = findings.iter().filter(|f| f.rule == exception.rule && f.place == exception.place);
    same.map(|f| f.count).max()
}

fn parse(line: &str) -> Result<Option<Exception<'_>>, &'static str> {
    let line = line.split('#').next().unwrap_or_default().trim();
    if line.is_empty() {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(rule), Some(place), Some(count)) = (words.next(), words.next(), words.next()) else {
        return Err("is not `rule place count reason`");
    };
    let count = count.parse().map_err(|_| "has no count in third place")?;
    if !COUNTED.contains(&rule) {
        return Err("names a rule that takes no exceptions");
    }
    if words.count() < 2 {
        return Err("gives no reason");
    }
    Ok(Some(Exception { rule, place, count }))
}

fn finding(line: usize, what: &str) -> Finding {
    let place =
        if line == 0 { "tests/tidy.exceptions".to_owned() } else { format!("tests/tidy.exceptions:{line}") };
    Finding::new(place, "exception", what)
}

//! All matches of all rules as they look to one request: which hold, which do not and by what.
//!
//! Beside `table`, whose decision it retells: `explain` asks it, a request never does.
//!
//! Invariant: the first that holds, in the order in which the table tries them, is the one that the
//! table finds; both look through [`Table::first`].

use crate::head::Head;
use crate::hygiene::Refusal;
use crate::route::condition::{Conditions, Unmet};
use crate::route::table::{Entry, Pattern, Table};

/// One match of one rule as one request meets it.
#[derive(Debug)]
pub(crate) struct Looked<'a> {
    /// The rule, by its place in the outbound.
    pub(crate) rule: u16,
    /// The match, by its place in the rule.
    pub(crate) at: u16,
    /// Its condition on the path.
    pub(crate) path: OnPath<'a>,
    /// Its other conditions.
    pub(crate) conditions: &'a Conditions,
    /// What it came to.
    pub(crate) fit: Fit,
}

/// What a match came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The path is another.
    OtherPath,
    /// The path fits, this does not hold.
    Unmet(Unmet),
    /// It holds; so many that hold are tried before it.
    Holds(usize),
}

/// A condition on the path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OnPath<'a> {
    /// Exactly this one; of gRPC: service and method.
    Exact(&'a str),
    /// This one and what is below it; of gRPC: a service.
    Prefix(&'a str),
    /// A regular expression, or a gRPC method.
    Pattern(&'a Pattern),
    /// Any.
    Any,
}

impl Table {
    /// Every match with what it comes to, by rule and match.
    ///
    /// # Errors
    /// A refusal when the path could be understood in different ways.
    pub(crate) fn survey<'a>(&'a self, head: &Head<'_>) -> Result<Vec<Looked<'a>>, Refusal> {
        let mut tried: Vec<(u16, u16, Option<Unmet>)> = Vec::new();
        let path = match self.always {
            // A rule that takes everything does not look at the path.
            Some(_) => head.canonical_path().unwrap_or(head.path.into()),
            None => head.canonical_path()?,
        };
        let none: Option<()> = self.first(&path, |entry| {
            tried.push((entry.rule, entry.at, entry.conditions.unmet(head)));
            None
        });
        debug_assert!(none.is_none(), "nothing was taken");
        let fit = |entry: &Entry| {
            let is_it = |(rule, at, _): &(u16, u16, Option<Unmet>)| (*rule, *at) == (entry.rule, entry.at);
            let Some(place) = tried.iter().position(is_it) else { return Fit::OtherPath };
            match tried[place].2 {
                Some(unmet) => Fit::Unmet(unmet),
                None => Fit::Holds(tried[..place].iter().filter(|(_, _, unmet)| unmet.is_none()).count()),
            }
        };
        let mut looked: Vec<Looked<'a>> = self
            .entries()
            .map(|(path, entry)| Looked {
                rule: entry.rule,
                at: entry.at,
                path,
                conditions: &entry.conditions,
                fit: fit(entry),
            })
            .collect();
        looked.sort_by_key(|looked| (looked.rule, looked.at));
        Ok(looked)
    }

    fn entries(&self) -> impl Iterator<Item = (OnPath<'_>, &Entry)> {
        let exact = self.exact.iter();
        let exact = exact.flat_map(|(path, all)| all.iter().map(move |entry| (OnPath::Exact(path), entry)));
        let prefix = self.prefix.iter();
        let prefix =
            prefix.flat_map(|(path, all)| all.iter().map(move |entry| (OnPath::Prefix(path), entry)));
        let regex = self.regex.iter().map(|(pattern, entry)| (OnPath::Pattern(pattern), entry));
        exact.chain(regex).chain(prefix).chain(self.any.iter().map(|entry| (OnPath::Any, entry)))
    }
}

//! A route by itself: its rules with their matches, filters, backends and deadlines.
//!
//! Where it stands: *validate*; *compile* resolves the backends and attaches the result to parents.
//!
//! Invariant: a rule that comes out answers what it matches: with what was written, or with the reason
//! why it cannot.

use std::{collections::BTreeSet, time::Duration};

use super::{Problem, filter, matches, text};
use crate::{
    config::{Filter, Match, RouteKind},
    model::{BackendRef, Route, RuleFact, TimeoutsFact},
    report::Reason,
};

/// A route that was looked at by itself.
#[derive(Debug, Clone)]
pub(crate) struct CheckedRoute<'a> {
    /// Why the route is refused whole; then it has no rules.
    pub(crate) refusal: Option<Problem>,
    /// Rules that can match something, in order.
    pub(crate) rules: Vec<CheckedRule<'a>>,
    /// Rules that can match nothing, and why.
    pub(crate) dropped: Vec<Problem>,
    /// Things to know that change nothing.
    pub(crate) warnings: Vec<String>,
}

/// A rule that was looked at by itself.
#[derive(Debug, Clone)]
pub(crate) struct CheckedRule<'a> {
    /// Name; empty: none.
    pub(crate) name: String,
    /// Index in the object.
    pub(crate) index: u32,
    /// Matches, never empty.
    pub(crate) matches: Vec<Match>,
    /// What the rule does, or why it cannot.
    pub(crate) steps: Result<Steps<'a>, Problem>,
}

/// What a rule does.
#[derive(Debug, Clone)]
pub(crate) struct Steps<'a> {
    /// Filters in order.
    pub(crate) filters: Vec<Filter>,
    /// Backends in order.
    pub(crate) backends: Vec<CheckedBackend<'a>>,
    /// Deadline of the exchange.
    pub(crate) request: Option<Duration>,
    /// Deadline of an attempt.
    pub(crate) backend_request: Option<Duration>,
}

/// A backendRef that was looked at by itself.
#[derive(Debug, Clone)]
pub(crate) struct CheckedBackend<'a> {
    /// The reference.
    pub(crate) fact: &'a BackendRef,
    /// Share.
    pub(crate) weight: u32,
    /// Filters for this backend, or why its share cannot be served.
    pub(crate) filters: Result<Vec<Filter>, Problem>,
}

impl CheckedRoute<'_> {
    /// What is wrong with parts of the route, each with its place.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let dropped = self.dropped.iter().cloned().map(|problem| problem.at("Dropped Rule"));
        let mut problems: Vec<Problem> = dropped.collect();
        for rule in &self.rules {
            let place = place(rule.index, &rule.name);
            match &rule.steps {
                Err(problem) => {
                    let text = format!("Dropped Rule: {place} answers 500: {}", problem.text);
                    problems.push(Problem { reason: problem.reason, text });
                }
                Ok(steps) => problems.extend(backend_problems(steps, &place)),
            }
        }
        problems
    }

    /// Whether any rule works.
    pub(crate) fn works(&self) -> bool {
        self.rules.iter().any(|rule| rule.steps.is_ok()) || (self.rules.is_empty() && self.dropped.is_empty())
    }

    /// Everything that is wrong, as sentences.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.refusal.iter().cloned().chain(self.problems()).map(|problem| problem.text).collect()
    }

    fn refused(problem: Problem, warnings: Vec<String>) -> Self {
        Self { refusal: Some(problem), rules: Vec::new(), dropped: Vec::new(), warnings }
    }
}

fn backend_problems(steps: &Steps<'_>, place: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, backend) in steps.backends.iter().enumerate() {
        if let Err(problem) = &backend.filters {
            let text =
                format!("Dropped Rule: {place}: the share of backend {index} answers 500: {}", problem.text);
            problems.push(Problem { reason: problem.reason, text });
        }
    }
    problems
}

/// Looks at a route by itself.
pub(crate) fn check(route: &Route) -> CheckedRoute<'_> {
    let mut warnings = Vec::new();
    if !route.hostnames.is_empty() {
        warnings.push("hostnames are ignored: in a mesh a route is found by the Service that is called (GEP-1294). Match on the header Host instead".to_owned());
    }
    if let Err(problem) = whole(route) {
        return CheckedRoute::refused(problem, warnings);
    }
    let mut checked = CheckedRoute { refusal: None, rules: Vec::new(), dropped: Vec::new(), warnings };
    // An HTTPRoute without rules has one that matches everything. Source: Gateway API, default of
    // HTTPRoute's rules; GRPCRoute has no such default.
    let implied: &[RuleFact] = if route.kind == RouteKind::Http { &IMPLIED } else { &[] };
    let rules = route.rules.as_deref().unwrap_or(implied);
    for (index, fact) in (0u32..).zip(rules) {
        match rule(route.kind, index, fact) {
            Ok(rule) => checked.rules.push(rule),
            Err(text) => {
                let place = place(index, fact.name.as_deref().unwrap_or_default());
                checked.dropped.push(Problem::unsupported(text).at(&place));
            }
        }
    }
    checked
}

/// What would make an API server refuse the object, and what concerns the route as a whole.
fn whole(route: &Route) -> Result<(), Problem> {
    if let Some(error) = &route.unreadable {
        return Err(Problem::unsupported(error.clone()));
    }
    if route.use_default_gateways.as_deref().is_some_and(|value| value != "None") {
        return Err(Problem::unsupported("useDefaultGateways is not supported yet"));
    }
    let rules = route.rules.as_deref().unwrap_or_default();
    let matches: usize = rules.iter().map(|rule| rule.matches.len()).sum();
    for (what, count, limit) in [
        ("rules", rules.len(), MAX_RULES),
        ("matches", matches, MAX_ROUTE_MATCHES),
        ("parentRefs", route.parents.len(), MAX_PARENTS),
        ("hostnames", route.hostnames.len(), MAX_HOSTNAMES),
    ] {
        if count > limit {
            return Err(Problem::unsupported(format!("{count} {what}; a route may have {limit}")));
        }
    }
    let mut names = BTreeSet::new();
    for name in rules.iter().filter_map(|rule| rule.name.as_deref()) {
        if !text::subdomain(name) {
            return Err(Problem::unsupported(format!(
                "{name:?} is no name of a rule (lower case, as a DNS name)"
            )));
        }
        if !names.insert(name) {
            return Err(Problem::unsupported(format!("two rules are named {name:?}")));
        }
    }
    Ok(())
}

fn rule(kind: RouteKind, index: u32, fact: &RuleFact) -> Result<CheckedRule<'_>, String> {
    let matches = matches::lower(kind, &fact.matches)?;
    let steps = steps(fact, &matches);
    Ok(CheckedRule { name: fact.name.clone().unwrap_or_default(), index, matches, steps })
}

fn steps<'a>(fact: &'a RuleFact, matches: &[Match]) -> Result<Steps<'a>, Problem> {
    for (field, value) in [("retry", &fact.retry), ("sessionPersistence", &fact.session_persistence)] {
        if value.is_some() {
            return Err(Problem::unsupported(format!("{field} is not supported yet")));
        }
    }
    let filters = filter::lower(&fact.filters, matches)?;
    if filters.iter().any(|filter| matches!(filter, Filter::Redirect(_))) && !fact.backend_refs.is_empty() {
        let text = "RequestRedirect and backendRefs exclude each other".to_owned();
        return Err(Problem { reason: Reason::IncompatibleFilters, text });
    }
    if fact.backend_refs.len() > MAX_BACKENDS {
        let text = format!("{} backendRefs; a rule may have {MAX_BACKENDS}", fact.backend_refs.len());
        return Err(Problem::unsupported(text));
    }
    let backends =
        fact.backend_refs.iter().map(|fact| backend(fact, matches, &filters)).collect::<Result<_, _>>()?;
    let (request, backend_request) = timeouts(fact.timeouts.as_ref()).map_err(Problem::unsupported)?;
    Ok(Steps { filters, backends, request, backend_request })
}

fn backend<'a>(
    fact: &'a BackendRef,
    matches: &[Match],
    of_rule: &[Filter],
) -> Result<CheckedBackend<'a>, Problem> {
    let weight = fact.weight.unwrap_or(1);
    let weight = u32::try_from(weight).ok().filter(|weight| *weight <= MAX_WEIGHT);
    let weight = weight.ok_or_else(|| {
        Problem::unsupported(format!("the weight of backend {:?} is not 0 to {MAX_WEIGHT}", fact.name))
    })?;
    let mut filters = filter::lower(&fact.filters, matches);
    let rewrites = |filter: &Filter| matches!(filter, Filter::Rewrite(_) | Filter::Redirect(_));
    if filters.as_ref().is_ok_and(|own| own.iter().any(rewrites)) && of_rule.iter().any(rewrites) {
        let text = "a rewrite or redirect of the rule and one of its backend exclude each other".to_owned();
        filters = Err(Problem { reason: Reason::IncompatibleFilters, text });
    }
    Ok(CheckedBackend { fact, weight, filters })
}

fn timeouts(fact: Option<&TimeoutsFact>) -> Result<(Option<Duration>, Option<Duration>), String> {
    let Some(fact) = fact else { return Ok((None, None)) };
    let parse = |text: &Option<String>| text.as_deref().map(text::duration).transpose();
    let (request, backend_request) = (parse(&fact.request)?, parse(&fact.backend_request)?);
    match (request, backend_request) {
        (Some(whole), Some(attempt)) if !whole.is_zero() && attempt > whole => {
            Err("timeouts.backendRequest is longer than timeouts.request".to_owned())
        }
        both => Ok(both),
    }
}

/// How a rule is called in messages.
pub(crate) fn place(index: u32, name: &str) -> String {
    if name.is_empty() { format!("rule {index}") } else { format!("rule {index} ({name})") }
}

static IMPLIED: [RuleFact; 1] = [RuleFact {
    name: None,
    matches: Vec::new(),
    filters: Vec::new(),
    backend_refs: Vec::new(),
    timeouts: None,
    retry: None,
    session_persistence: None,
}];

/// Source: Gateway API, HTTPRoute and GRPCRoute.
const MAX_RULES: usize = 16;
/// Source: Gateway API, HTTPRoute and GRPCRoute.
const MAX_ROUTE_MATCHES: usize = 128;
/// Source: Gateway API, HTTPRoute and GRPCRoute.
const MAX_PARENTS: usize = 32;
/// Source: Gateway API, HTTPRoute and GRPCRoute.
const MAX_HOSTNAMES: usize = 16;
/// Source: Gateway API, HTTPRoute and GRPCRoute.
const MAX_BACKENDS: usize = 16;
/// Source: Gateway API, BackendRef.
const MAX_WEIGHT: u32 = 1_000_000;

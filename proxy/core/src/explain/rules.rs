//! Every rule and match of a service port as one request meets it, and why it takes the request or not.
//!
//! Under `outbound`; what each match comes to is the table's own word ([`crate::route::survey`]).
//!
//! Invariant: a match that does not hold is shown with the first condition that does not, and its field.

use http::HeaderMap;

use super::text::{any_of, field, pattern, quoted, wanted};
use super::{By, Mark, Request, Room, Step};
use crate::head::Head;
use crate::outbound::Outbound;
use crate::route::condition::{Conditions, Unmet, Value};
use crate::route::rule::Rule;
use crate::route::survey::{Fit, Looked, OnPath};
use crate::route::table::Pattern;
use crate::spec::RouteKind;

/// Rules of other paths that are shown one by one. Source: ours; a page of a terminal. An answer stays short
/// where a service has hundreds.
const SHOWN: usize = 24;

/// The rules, in the order of the routes that they stand in.
pub(super) fn steps(
    outbound: &Outbound,
    looked: &[Looked<'_>],
    request: &Request,
    head: &Head<'_>,
) -> Vec<Step> {
    let winner = looked.iter().find(|match_| match_.fit == Fit::Holds(0));
    let asked = Asked { outbound, winner, request, head };
    let (mut steps, mut shown, mut left) = (Vec::new(), 0, 0usize);
    for (index, rule) in (0u16..).zip(&outbound.rules) {
        let own: Vec<&Looked<'_>> = looked.iter().filter(|match_| match_.rule == index).collect();
        if own.iter().all(|match_| match_.fit == Fit::OtherPath) {
            shown += 1;
            if shown > SHOWN {
                left += 1;
                continue;
            }
        }
        steps.push(asked.rule(rule, &own));
    }
    if left > 0 {
        let why = "their paths are others";
        steps.push(Step::new(Room::Route, Mark::PassedBy, format!("{left} more rules"), why));
    }
    steps
}

/// What a rule's object is.
pub(super) fn by(outbound: &Outbound, rule: &Rule, below: &str) -> By {
    let kind = match outbound.kind {
        RouteKind::Grpc => "GRPCRoute",
        RouteKind::Http | RouteKind::None => "HTTPRoute",
    };
    By::named(kind, &rule.label.route, format!("spec.rules[{}]{below}", rule.index))
}

/// What a rule is called.
pub(super) fn title(rule: &Rule) -> String {
    let number = rule.index.to_string();
    match &*rule.label.rule {
        name if name == number => format!("rule {number}"),
        name => format!("rule {number} ({name})"),
    }
}

struct Asked<'a> {
    outbound: &'a Outbound,
    winner: Option<&'a Looked<'a>>,
    request: &'a Request,
    head: &'a Head<'a>,
}

impl Asked<'_> {
    fn rule(&self, rule: &Rule, own: &[&Looked<'_>]) -> Step {
        let what = format!("{} of {}", title(rule), rule.label.route);
        match own {
            [] => {
                let step = Step::new(Room::Route, Mark::PassedBy, what, "it has no match");
                step.by(by(self.outbound, rule, ".matches"))
            }
            [only] => self.one(rule, only, what),
            several => {
                let each = |match_: &&Looked<'_>| self.one(rule, match_, format!("match {}", match_.at));
                let steps: Vec<Step> = several.iter().map(each).collect();
                let taken = steps.iter().any(|step| step.mark == Mark::Holds);
                let (mark, why) = match taken {
                    true => (Mark::Holds, "one of its matches holds"),
                    false => (Mark::PassedBy, "none of its matches takes it"),
                };
                Step::new(Room::Route, mark, what, why).by(by(self.outbound, rule, "")).of(steps)
            }
        }
    }

    fn one(&self, rule: &Rule, match_: &Looked<'_>, what: String) -> Step {
        let (mark, why, below) = match match_.fit {
            Fit::OtherPath => (Mark::PassedBy, self.other_path(match_.path), ".path".to_owned()),
            Fit::Unmet(unmet) => {
                let (why, below) = self.unmet(match_.conditions, unmet);
                (Mark::PassedBy, why, below)
            }
            Fit::Holds(0) => (Mark::Holds, self.conditions(match_), String::new()),
            Fit::Holds(_) => (Mark::PassedBy, self.loses(rule, match_), String::new()),
        };
        let below = match (below.as_str(), self.outbound.kind) {
            // What is a path in the table is a method in a GRPCRoute.
            (".path", RouteKind::Grpc) => ".method",
            (below, _) => below,
        };
        let field = format!(".matches[{}]{below}", match_.at);
        Step::new(Room::Route, mark, what, why).by(by(self.outbound, rule, &field))
    }

    fn path(&self) -> String {
        self.head.canonical_path().map_or_else(|_| self.head.path.to_owned(), std::borrow::Cow::into_owned)
    }

    fn other_path(&self, wanted: OnPath<'_>) -> String {
        let sent = quoted(self.path().as_bytes());
        let grpc = self.outbound.kind == RouteKind::Grpc;
        match wanted {
            OnPath::Exact(path) if grpc => format!("the method is {sent}, not {path}"),
            OnPath::Exact(path) => format!("the path is {sent}, not exactly {path}"),
            OnPath::Prefix(path) if grpc => format!("the method {sent} is not of the service {}", &path[1..]),
            OnPath::Prefix(path) => format!("the path {sent} is not below {path}"),
            OnPath::Pattern(Pattern::Path(regex)) => {
                format!("the path {sent} is not like {}", pattern(regex.as_str()))
            }
            OnPath::Pattern(Pattern::Call(service, method)) => {
                let shown = |regex: &Option<regex::bytes::Regex>| {
                    regex.as_ref().map_or("any".to_owned(), |regex| pattern(regex.as_str()).to_owned())
                };
                format!("the method {sent} is not like {}/{}", shown(service), shown(method))
            }
            OnPath::Pattern(Pattern::Method(method)) => format!("the method {sent} is not named {method}"),
            OnPath::Any => format!("the path is {sent}"),
        }
    }

    fn unmet(&self, conditions: &Conditions, unmet: Unmet) -> (String, String) {
        match unmet {
            Unmet::Method => {
                let wanted = conditions.method.as_ref().map_or("", http::Method::as_str);
                (format!("the method is {}, not {wanted}", self.request.method), ".method".to_owned())
            }
            Unmet::Header(at) => {
                let Some((name, value)) = conditions.headers.get(at) else { return Default::default() };
                let name = field(name);
                let sent = self.sent(name);
                (differs("header", name, sent, value), format!(".headers[{at}]"))
            }
            Unmet::Query(at) => {
                let Some((name, value)) = conditions.query.get(at) else { return Default::default() };
                let name = String::from_utf8_lossy(name);
                (
                    differs("query parameter", &name, self.parameter(&name), value),
                    format!(".queryParams[{at}]"),
                )
            }
        }
    }

    /// The value of a field as conditions see it; `None`: it is not there.
    fn sent(&self, name: &str) -> Option<String> {
        if name == "host" {
            return Some(self.head.authority.to_owned());
        }
        let headers: &HeaderMap = self.head.headers;
        let values: Vec<_> = headers.get_all(name).iter().collect();
        let joined = values.iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        (!values.is_empty()).then(|| joined.collect::<Vec<_>>().join(","))
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.head.query.unwrap_or("").split('&').filter(|pair| !pair.is_empty());
        let mut named = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        named.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    }

    /// What a match demands, all of which holds.
    fn conditions(&self, match_: &Looked<'_>) -> String {
        let grpc = self.outbound.kind == RouteKind::Grpc;
        let mut said = match match_.path {
            OnPath::Exact(path) if grpc => vec![format!("the method is {}", path.trim_start_matches('/'))],
            OnPath::Exact(path) => vec![format!("the path is exactly {path}")],
            OnPath::Prefix(path) if grpc => vec![format!("the service is {}", path.trim_start_matches('/'))],
            OnPath::Prefix(path) => vec![format!("the path is {path} or below")],
            OnPath::Pattern(Pattern::Path(regex)) => {
                vec![format!("the path is like {}", pattern(regex.as_str()))]
            }
            OnPath::Pattern(Pattern::Call(..)) => vec!["service and method are like its patterns".to_owned()],
            OnPath::Pattern(Pattern::Method(method)) => vec![format!("the method is named {method}")],
            OnPath::Any => Vec::new(),
        };
        let conditions = match_.conditions;
        said.extend(conditions.method.iter().map(|method| format!("the method is {method}")));
        let headers = conditions.headers.iter();
        said.extend(headers.map(|(name, value)| format!("header {} is {}", field(name), wanted(value))));
        let query = conditions.query.iter();
        said.extend(query.map(|(name, value)| {
            format!("query parameter {} is {}", String::from_utf8_lossy(name), wanted(value))
        }));
        if said.is_empty() { "it takes every request".to_owned() } else { said.join(", ") }
    }

    /// Why a match that holds does not take the request.
    fn loses(&self, rule: &Rule, match_: &Looked<'_>) -> String {
        let Some(winner) = self.winner else { return "it holds, and another goes before it".to_owned() };
        let Some(other) = self.outbound.rules.get(usize::from(winner.rule)) else { return String::new() };
        let of = if other.label.route == rule.label.route {
            title(other)
        } else {
            format!("{} of {}", title(other), other.label.route)
        };
        format!("it holds too, but {of} goes before it: {}", self.precedence(winner, match_))
    }

    /// By what the first goes before the second. Source: Gateway API, HTTPRouteRule.matches.
    fn precedence(&self, first: &Looked<'_>, second: &Looked<'_>) -> &'static str {
        let class = |path: OnPath<'_>| match path {
            OnPath::Exact(_) => 3,
            OnPath::Pattern(_) if self.outbound.kind == RouteKind::Grpc => 1,
            OnPath::Pattern(_) => 2,
            OnPath::Prefix(_) if self.outbound.kind == RouteKind::Grpc => 2,
            OnPath::Prefix(_) => 1,
            OnPath::Any => 0,
        };
        let length = |path: OnPath<'_>| match path {
            OnPath::Exact(path) | OnPath::Prefix(path) => path.len(),
            OnPath::Pattern(_) | OnPath::Any => 0,
        };
        let ranks = (first.conditions.rank(), second.conditions.rank());
        if class(first.path) != class(second.path) {
            "its path is more exact"
        } else if length(first.path) != length(second.path) {
            "its path is longer"
        } else if matches!(first.path, OnPath::Pattern(_)) {
            "its pattern is longer, or it stands first"
        } else if ranks.0.0 != ranks.1.0 {
            "it names a method"
        } else if ranks.0.1 != ranks.1.1 {
            "it has more header conditions"
        } else if ranks.0.2 != ranks.1.2 {
            "it has more query conditions"
        } else if first.rule == second.rule {
            "it stands first in the rule"
        } else {
            "it is older, or stands first"
        }
    }
}

fn differs(what: &str, name: &str, sent: Option<String>, value: &Value) -> String {
    match sent {
        None => format!("{what} {name} is not there, and would have to be {}", wanted(value)),
        Some(sent) => format!("{what} {name} is {}, not {}", quoted(sent.as_bytes()), wanted(value)),
    }
}

/// Which kinds of thing match; for the outcome where none does.
pub(super) fn none_matched(outbound: &Outbound) -> String {
    let mut routes: Vec<&str> = outbound.rules.iter().map(|rule| &*rule.label.route).collect();
    routes.dedup();
    match routes.as_slice() {
        [] => "routes are attached, and none has a rule".to_owned(),
        routes => format!("no rule of {} matches", any_of(routes)),
    }
}

//! Every policy that applies to a workload as one request meets it, in the order in which they are asked.
//!
//! Under `inbound`; what each rule comes to is asked of the very conditions that the verdict asks.
//!
//! Invariant: the first rule of a Deny policy that holds, else the first of an Allow policy, is the one that
//! the verdict names.

use super::text::any_of;
use super::{By, Mark, Room, Step};
use crate::authorize::{Asked, Lack, Operation, PathRule, Peer, Policy, Rule, Source};
use crate::inbound::Policies;
use crate::spec::Action;

/// What is judged.
#[derive(Clone, Copy)]
pub(super) struct Judged<'a> {
    pub(super) peer: &'a Peer,
    pub(super) port: u16,
    pub(super) asked: Asked<'a>,
}

/// The policies, Deny before Allow; those in shadow are marked so.
pub(super) fn steps(policies: &Policies, judged: Judged<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(missing) = &policies.missing {
        let why = "it applies and has not arrived: everything is denied until it has";
        let by = By::named("AuthorizationPolicy", missing.as_str(), "");
        steps.push(Step::new(Room::Authorize, Mark::Ends, format!("policy {missing}"), why).by(by));
    }
    let mut decided = policies.missing.is_some();
    for policy in policies.deny.iter().chain(&policies.allow) {
        let step = judged.policy(policy, decided);
        decided |= step.mark == Mark::Holds || step.mark == Mark::Ends;
        steps.push(step);
    }
    steps
}

/// The place of a rule in its object.
pub(super) fn rule_field(rule: &str) -> String {
    match rule.parse::<u32>() {
        Ok(index) => format!("spec.rules[{index}]"),
        Err(_) => format!("spec.rules[name={rule}]"),
    }
}

impl Judged<'_> {
    fn policy(self, policy: &Policy, decided: bool) -> Step {
        let (word, ends) = match policy.action {
            Action::Deny => ("denies", Mark::Ends),
            Action::Allow => ("allows", Mark::Holds),
        };
        let rules: Vec<Step> = policy.rules.iter().map(|rule| self.rule(policy, rule)).collect();
        let matching = policy.matching(self.peer, self.port, self.asked);
        let kind = if policy.action == Action::Deny { "Deny" } else { "Allow" };
        let shadow = if policy.shadow { ", in shadow" } else { "" };
        let what = format!("policy {} ({kind}{shadow})", policy.name);
        let (mark, why) = match matching {
            Some(rule) if policy.shadow => {
                (Mark::Shadow, format!("would decide: rule {} {word} it", rule.rule))
            }
            Some(rule) if decided => {
                (Mark::PassedBy, format!("rule {} {word} it too; it is decided already", rule.rule))
            }
            Some(rule) => (ends, format!("rule {} {word} it", rule.rule)),
            None if policy.rules.is_empty() => (Mark::PassedBy, "it has no rule".to_owned()),
            None => (Mark::PassedBy, "no rule of it matches".to_owned()),
        };
        let field = matching.map_or_else(|| "spec.rules".to_owned(), |rule| rule_field(&rule.rule));
        let by = By::named("AuthorizationPolicy", policy.name.as_str(), field);
        Step::new(Room::Authorize, mark, what, why).by(by).of(rules)
    }

    fn rule(self, policy: &Policy, rule: &Rule) -> Step {
        let at = rule_field(&rule.name.rule);
        let what = format!("rule {}", rule.name.rule);
        let (mark, why, below) = if rule.matches(policy.action, self.peer, self.port, self.asked) {
            (Mark::Holds, self.holds(policy.action, rule), String::new())
        } else {
            let (why, below) = self.lacks(policy.action, rule);
            (Mark::PassedBy, why, below)
        };
        let by = By::named("AuthorizationPolicy", policy.name.as_str(), at + &below);
        Step::new(Room::Authorize, mark, what, why).by(by)
    }

    fn holds(self, action: Action, rule: &Rule) -> String {
        let from = match rule.from.iter().position(|source| source.lack(self.peer).is_none()) {
            None => "from anyone".to_owned(),
            Some(at) => format!("from[{at}] means the peer"),
        };
        let to = rule.to.iter().position(|to| to.lack(action, self.port, self.asked).is_none());
        match (to, self.asked) {
            (None, _) => format!("{from}, to anything"),
            (Some(at), Asked::Bytes) if has_parts(&rule.to[at]) => {
                format!(
                    "{from}, to[{at}] names methods or paths, which nobody can see in bytes: it denies them all"
                )
            }
            (Some(at), _) => format!("{from}, to[{at}] means the request"),
        }
    }

    /// Why a rule does not hold: of its sources if none means the peer, else of its operations.
    fn lacks(self, action: Action, rule: &Rule) -> (String, String) {
        let from =
            sentences(&rule.from, |source| source.lack(self.peer), |source, lack| self.source(source, lack));
        if let Some((why, at, word)) = from {
            return (why, format!(".from[{at}]{word}"));
        }
        let lack = |to: &Operation| to.lack(action, self.port, self.asked);
        let to = sentences(&rule.to, lack, |to, lack| self.operation(to, lack));
        to.map_or_else(Default::default, |(why, at, word)| (why, format!(".to[{at}]{word}")))
    }

    fn source(self, source: &Source, lack: Lack) -> (String, &'static str) {
        let peer = self.peer.identity.as_ref();
        match lack {
            Lack::Unproven => ("the peer proves no identity".to_owned(), ""),
            Lack::Namespace => {
                let mut names: Vec<&str> = source.namespaces.iter().map(AsRef::as_ref).collect();
                names.sort_unstable();
                let own = peer.map_or("", |peer| peer.namespace());
                (format!("the peer's namespace is {own}, not {}", any_of(names)), ".namespaces")
            }
            Lack::ServiceAccount => {
                let names = source.service_accounts.iter().map(|(of, name)| format!("{of}/{name}"));
                let own = peer.map(|peer| format!("{}/{}", peer.namespace(), peer.service_account()));
                let own = own.unwrap_or_default();
                (format!("the peer's service account is {own}, not {}", any_of(names)), ".serviceAccounts")
            }
            Lack::Address => {
                let blocks = source.cidrs.iter().map(ToString::to_string);
                (format!("the peer's address {} is not in {}", self.peer.address, any_of(blocks)), ".cidrs")
            }
            _ => {
                let mut names: Vec<String> = source.identities.iter().map(|name| name.to_string()).collect();
                names.sort_unstable();
                names.extend(source.identity_prefixes.iter().map(|prefix| format!("{prefix}*")));
                let own = peer.map_or("", |peer| peer.as_str());
                (format!("the peer is {own}, not {}", any_of(names)), ".identities")
            }
        }
    }

    fn operation(self, to: &Operation, lack: Lack) -> (String, &'static str) {
        match (lack, self.asked) {
            (Lack::Port, _) => {
                let ports = to.ports.iter().map(ToString::to_string);
                (format!("the port is {}, not {}", self.port, any_of(ports)), ".ports")
            }
            (Lack::Method, Asked::Request(method, _)) => (
                format!(
                    "the method is {method}, not {}",
                    any_of(to.methods.iter().map(http::Method::as_str))
                ),
                ".methods",
            ),
            (Lack::Path, Asked::Request(_, path)) => {
                let paths = to.paths.iter().map(|rule| match rule {
                    PathRule::Exact(path) => path.to_string(),
                    PathRule::Prefix(path) => format!("{path}*"),
                });
                (format!("the path is {path:?}, not {}", any_of(paths)), ".paths")
            }
            _ => {
                let why = "it names methods or paths, which nobody can see in bytes: it never allows them";
                (why.to_owned(), if to.methods.is_empty() { ".paths" } else { ".methods" })
            }
        }
    }
}

fn has_parts(to: &Operation) -> bool {
    !to.methods.is_empty() || !to.paths.is_empty()
}

/// What the elements of a list lack, where each lacks something: all of it in one sentence, with the place of
/// the first.
fn sentences<T>(
    list: &[T],
    lack: impl Fn(&T) -> Option<Lack>,
    say: impl Fn(&T, Lack) -> (String, &'static str),
) -> Option<(String, usize, &'static str)> {
    let lacks: Option<Vec<Lack>> = list.iter().map(lack).collect();
    let said: Vec<(String, &'static str)> =
        list.iter().zip(lacks?).map(|(element, lack)| say(element, lack)).collect();
    let (_, word) = said.first()?;
    let texts: Vec<&str> = said.iter().map(|(text, _)| text.as_str()).collect();
    Some((texts.join("; "), 0, word))
}

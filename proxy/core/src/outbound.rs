//! Calling one service port: from a request head to a plan, or to a reply of our own.
//!
//! Adopt compiles it; the room `route` asks [`Outbound::route`] once a request, and the relay carries
//! the [`Plan`] out with [`Outbound::apply_request`] and [`Outbound::apply_response`].
//!
//! Invariant: a decision is made once, from one outbound, into a plan of indexes into that outbound;
//! indexes of a foreign plan do nothing rather than panic.
//! Invariant: routes attached means unmatched requests are answered, never forwarded.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use crate::head::Head;
use crate::invalid::Invalid;
use crate::names::Name;
use crate::reason::{GrpcCode, Reason};
use crate::route::filter;
use crate::route::rule::Rule;
use crate::route::table::Table;
use crate::spec;

pub use crate::route::turns::Turns;

/// How to call one service port, compiled.
#[derive(Debug)]
pub struct Outbound {
    /// The service, `<namespace>/<service>`.
    pub service: Name,
    /// The port of the service.
    pub port: u16,
    /// Protocol of the port.
    pub protocol: spec::Protocol,
    /// What says so.
    pub protocol_by: spec::ProtocolBy,
    /// Which kind of route is attached.
    pub kind: spec::RouteKind,
    /// The backends that plans point to, each once; their fallbacks not included.
    pub backends: Vec<Name>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) table: Table,
    pub(crate) default_backend: u16,
    default_label: Label,
    request_timeout: Option<Duration>,
}

/// What to do with a request: indexes into the outbound that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The rule; `None`: no routes, or opaque bytes.
    pub rule: Option<u16>,
    /// The backend, in [`Outbound::backends`].
    pub backend: u16,
    /// Which of the rule's weighted backends.
    pub share: u16,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send it to a backend.
    Forward(Plan),
    /// Answer it here.
    Reply(Reply),
}

/// An answer of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// Why.
    pub reason: Reason,
    /// Where to go instead.
    pub location: Option<HeaderValue>,
    /// What tells a person.
    pub message: Cow<'static, str>,
    /// The rule that answered, for the record.
    pub rule: Option<u16>,
}

/// Deadlines of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Of the whole exchange, retries included.
    pub request: Option<Duration>,
    /// Of one attempt.
    pub attempt: Option<Duration>,
}

/// What metrics and logs call a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The route, `<namespace>/<name>`; empty: none is attached.
    pub route: Arc<str>,
    /// The rule's name, or its index; empty: no route.
    pub rule: Arc<str>,
}

impl Outbound {
    /// Compiles an outbound.
    ///
    /// # Errors
    /// `Invalid` names the route, the rule and the field: a pattern that does not parse, a condition
    /// that cannot hold, a filter that may not stand there, or more than a plan can count.
    pub fn compile(spec: &spec::Outbound) -> Result<Self, Invalid> {
        let mut backends = Backends(Vec::new());
        let mut rules = Vec::new();
        for route in &spec.routes {
            let name: Arc<str> = format!("{}/{}", route.origin.namespace, route.origin.name).into();
            for rule in &route.rules {
                let compiled = Rule::compile(&name, spec, rule, &mut backends);
                rules.push(compiled.map_err(|e| e.within(&rule_place(route, rule)))?);
            }
        }
        u16::try_from(rules.len()).map_err(|_| Invalid::new("routes", "more than 65,535 rules"))?;
        let table = Table::compile(spec)?;
        let own = || Name::from(format!("{}:{}", spec.service, spec.port));
        let default_backend = backends.index(&spec.default_backend.clone().unwrap_or_else(own))?;
        Ok(Self {
            service: spec.service.clone(),
            port: spec.port,
            protocol: spec.protocol,
            protocol_by: spec.protocol_by,
            kind: spec.kind,
            backends: backends.0,
            rules,
            table,
            default_backend,
            default_label: Label { route: Arc::from(""), rule: Arc::from("") },
            request_timeout: spec.request_timeout.filter(|span| !span.is_zero()),
        })
    }

    /// Decides about a request.
    pub fn route(&self, head: &Head<'_>, turns: &mut Turns) -> Decision {
        if self.kind == spec::RouteKind::None {
            return Decision::Forward(self.default_plan());
        }
        match self.table.find(head) {
            Ok(Some(rule)) => self.take(rule, head, turns),
            Ok(None) => Decision::Reply(Reply::of(Reason::NoRoute, "no route matches this request")),
            Err(refusal) => Decision::Reply(Reply::of(refusal.reason, "the path is not unambiguous")),
        }
    }

    /// The plan for bytes that are no HTTP.
    #[must_use]
    pub fn opaque(&self, _turns: &mut Turns) -> Plan {
        self.default_plan()
    }

    /// Carries out the filters on a request that goes to the plan's backend.
    ///
    /// # Errors
    /// The reply, when the rewritten target is not one that can be sent.
    pub fn apply_request(&self, plan: Plan, uri: &mut Uri, headers: &mut HeaderMap) -> Result<(), Reply> {
        let Some(rule) = self.rule(plan) else { return Ok(()) };
        filter::apply_request(&rule.filters, uri, headers)?;
        match rule.shares.get(usize::from(plan.share)) {
            Some(share) => filter::apply_request(&share.filters, uri, headers),
            None => Ok(()),
        }
    }

    /// Carries out the filters on the answer of the plan's backend.
    pub fn apply_response(&self, plan: Plan, headers: &mut HeaderMap) {
        let Some(rule) = self.rule(plan) else { return };
        filter::edit(&rule.filters.response, headers);
        if let Some(share) = rule.shares.get(usize::from(plan.share)) {
            filter::edit(&share.filters.response, headers);
        }
    }

    /// Whether [`Self::apply_request`] changes anything.
    #[must_use]
    pub fn edits_request(&self, plan: Plan) -> bool {
        self.rule(plan).is_some_and(|rule| {
            let share = rule.shares.get(usize::from(plan.share));
            rule.filters.edits_request() || share.is_some_and(|share| share.filters.edits_request())
        })
    }

    /// Deadlines of the plan.
    #[must_use]
    pub fn timeouts(&self, plan: Plan) -> Timeouts {
        match self.rule(plan) {
            Some(rule) => rule.timeouts,
            None => Timeouts { request: self.request_timeout, attempt: None },
        }
    }

    /// What metrics and logs call the plan's rule.
    #[must_use]
    pub fn label(&self, rule: Option<u16>) -> &Label {
        rule.and_then(|rule| self.rules.get(usize::from(rule)))
            .map_or(&self.default_label, |rule| &rule.label)
    }

    /// Labels of all rules, in order; for metric handles made at adoption.
    pub fn labels(&self) -> impl Iterator<Item = &Label> {
        self.rules.iter().map(|rule| &rule.label)
    }

    /// The name of the plan's backend.
    #[must_use]
    pub fn backend(&self, plan: Plan) -> Option<&Name> {
        self.backends.get(usize::from(plan.backend))
    }

    fn rule(&self, plan: Plan) -> Option<&Rule> {
        self.rules.get(usize::from(plan.rule?))
    }

    fn default_plan(&self) -> Plan {
        Plan { rule: None, backend: self.default_backend, share: 0 }
    }

    /// Lets the rule answer, or choose among its backends.
    fn take(&self, index: u16, head: &Head<'_>, turns: &mut Turns) -> Decision {
        let reply = |reply: Reply| Decision::Reply(Reply { rule: Some(index), ..reply });
        let Some(rule) = self.rules.get(usize::from(index)) else {
            return reply(Reply::of(Reason::Internal, "a rule that is not there"));
        };
        if let Some(answer) = &rule.filters.answer {
            return reply(answer.reply(head, self.port));
        }
        let Some(at) = turns.take(index, rule) else {
            return reply(Reply::of(Reason::InvalidBackend, "the rule has no backend that takes traffic"));
        };
        self.serve(index, at, head)
    }

    /// What one of a rule's shares comes to: every share, for who explains; the one whose turn it is, for who
    /// decides.
    pub(crate) fn serve(&self, index: u16, at: u16, head: &Head<'_>) -> Decision {
        let reply = |reply: Reply| Decision::Reply(Reply { rule: Some(index), ..reply });
        let Some(rule) = self.rules.get(usize::from(index)) else {
            return reply(Reply::of(Reason::Internal, "a rule that is not there"));
        };
        let Some(share) = rule.shares.get(usize::from(at)) else {
            return reply(Reply::of(Reason::Internal, "a backend that is not there"));
        };
        match (&share.filters.answer, &share.backend) {
            (Some(answer), _) => reply(answer.reply(head, self.port)),
            (None, Ok(backend)) => {
                Decision::Forward(Plan { rule: Some(index), backend: *backend, share: at })
            }
            (None, Err(why)) => reply(Reply::of(Reason::InvalidBackend, why.to_string())),
        }
    }
}

impl Reply {
    /// A reply with the reason's own status.
    pub fn of(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status: reason.status(), reason, location: None, message: message.into(), rule: None }
    }

    /// The code for a gRPC caller.
    #[must_use]
    pub fn grpc(&self) -> GrpcCode {
        if self.reason == Reason::ConfigReply { GrpcCode::of_status(self.status) } else { self.reason.grpc() }
    }
}

/// The distinct backends of an outbound while it is compiled.
pub(crate) struct Backends(Vec<Name>);

impl Backends {
    pub(crate) fn index(&mut self, name: &Name) -> Result<u16, Invalid> {
        let at = self.0.iter().position(|held| held == name).unwrap_or_else(|| {
            self.0.push(name.clone());
            self.0.len() - 1
        });
        u16::try_from(at).map_err(|_| Invalid::new("backends", "more than 65,536 distinct backends"))
    }
}

/// How an invalid field's place begins.
pub(crate) fn rule_place(route: &spec::Route, rule: &spec::Rule) -> String {
    match rule.name.is_empty() {
        true => format!("{}, rules[{}]", route.origin, rule.index),
        false => format!("{}, rules[{}] ({})", route.origin, rule.index, rule.name),
    }
}

#[cfg(test)]
mod tests;

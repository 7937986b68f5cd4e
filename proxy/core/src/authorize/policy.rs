//! AuthorizationPolicies, compiled: sets, prefixes and address blocks that a peer and a request are
//! held against.
//!
//! Under `inbound`, which asks them in order and gives the verdict.
//!
//! Invariant: methods and paths never say yes to opaque bytes: a rule that names them never allows
//! them and always denies them.
//! Invariant: lists on identities never match a peer that proved none.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::Method;
use ipnet::IpNet;
use rustc_hash::FxHashSet;

use super::{Denial, Peer, RuleName, RuleRef};
use crate::head::Head;
use crate::invalid::Invalid;
use crate::names::{Identity, Name};
use crate::path;
use crate::spec::{self, Action};

/// One AuthorizationPolicy, compiled.
#[derive(Debug)]
pub struct Policy {
    /// The policy, `<namespace>/<name>`.
    pub name: Name,
    /// What a match means.
    pub action: Action,
    /// Only recorded, not enforced.
    pub shadow: bool,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: RuleRef,
    pub(crate) from: Vec<Source>,
    pub(crate) to: Vec<Operation>,
}

#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) identities: FxHashSet<Box<str>>,
    pub(crate) identity_prefixes: Vec<Box<str>>,
    pub(crate) namespaces: FxHashSet<Box<str>>,
    pub(crate) service_accounts: Vec<(Box<str>, Box<str>)>,
    pub(crate) cidrs: Vec<IpNet>,
}

#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) ports: Vec<u16>,
    pub(crate) methods: Vec<Method>,
    pub(crate) paths: Vec<PathRule>,
}

#[derive(Debug)]
pub(crate) enum PathRule {
    Exact(Box<str>),
    Prefix(Box<str>),
}

/// The first list of a source or an operation that holds no match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// There are lists on identities, and the peer proved none.
    Unproven,
    /// Identities.
    Identity,
    /// Namespaces.
    Namespace,
    /// Service accounts.
    ServiceAccount,
    /// Address blocks.
    Address,
    /// Ports.
    Port,
    /// Methods.
    Method,
    /// Paths.
    Path,
    /// There are methods or paths, and bytes have neither.
    Bytes,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) enum Asked<'a> {
    /// A connection of opaque bytes.
    Bytes,
    /// A request, with its canonical path.
    Request(&'a Method, &'a str),
}

impl Policy {
    /// Compiles a policy.
    ///
    /// # Errors
    /// `Invalid` names the rule and the field.
    pub fn compile(spec: &spec::Authorization) -> Result<Self, Invalid> {
        let name = Name::from(format!("{}/{}", spec.origin.namespace, spec.origin.name));
        let mut rules = Vec::with_capacity(spec.rules.len());
        for (at, rule) in spec.rules.iter().enumerate() {
            let place = format!("{}, rules[{at}]", spec.origin);
            rules.push(Rule::compile(&name, at, rule).map_err(|e| e.within(&place))?);
        }
        Ok(Self { name, action: spec.action, shadow: spec.shadow, rules })
    }

    /// The first rule that matches.
    pub(crate) fn matching(&self, peer: &Peer, port: u16, asked: Asked<'_>) -> Option<&RuleRef> {
        let matching = self.rules.iter().find(|rule| rule.matches(self.action, peer, port, asked));
        matching.map(|rule| &rule.name)
    }

    /// Whether any rule looks at paths.
    pub(crate) fn looks_at_paths(&self) -> bool {
        self.rules.iter().any(|rule| rule.to.iter().any(|operation| !operation.paths.is_empty()))
    }
}

impl Rule {
    fn compile(policy: &Name, at: usize, spec: &spec::AuthorizationRule) -> Result<Self, Invalid> {
        let rule = if spec.name.is_empty() { at.to_string().into() } else { spec.name.clone() };
        Ok(Self {
            name: RuleRef(Arc::new(RuleName {
                full: Name::from(format!("{policy}#{rule}").as_str()),
                policy: policy.clone(),
                rule,
            })),
            from: spec.from.iter().map(Source::compile).collect::<Result<_, _>>()?,
            to: spec.to.iter().map(Operation::compile).collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn matches(&self, action: Action, peer: &Peer, port: u16, asked: Asked<'_>) -> bool {
        (self.from.is_empty() || self.from.iter().any(|source| source.matches(peer)))
            && (self.to.is_empty() || self.to.iter().any(|operation| operation.matches(action, port, asked)))
    }
}

impl RuleRef {
    /// Policies of which no rule decided.
    pub(crate) fn of_none(policies: Name) -> Self {
        Self(Arc::new(RuleName { full: policies.clone(), policy: policies, rule: Arc::from("") }))
    }
}

/// Several policies in one name; `None`: there are none.
pub(crate) fn together<'a>(policies: impl IntoIterator<Item = &'a Arc<Policy>>) -> Option<Name> {
    let mut names = policies.into_iter().map(|policy| policy.name.as_str());
    let mut shown: Vec<&str> = names.by_ref().take(MOST_NAMED).collect();
    match (shown.as_slice(), names.next()) {
        ([], _) => None,
        (_, None) => Some(Name::from(shown.join(", "))),
        (_, Some(_)) => {
            shown.push("...");
            Some(Name::from(shown.join(", ")))
        }
    }
}

/// Policies that one name names. Source: ours; a log's field and a metric's label stay short.
const MOST_NAMED: usize = 3;

impl Source {
    fn compile(spec: &spec::Source) -> Result<Self, Invalid> {
        let mut source = Self {
            identities: FxHashSet::default(),
            identity_prefixes: Vec::new(),
            namespaces: spec.namespaces.iter().map(|name| name.as_str().into()).collect(),
            service_accounts: Vec::new(),
            cidrs: spec.cidrs.clone(),
        };
        for identity in &spec.identities {
            match identity.strip_suffix('*') {
                Some(prefix) if !prefix.contains('*') => source.identity_prefixes.push(prefix.into()),
                None if Identity::parse(identity).is_ok() => {
                    source.identities.insert(identity.as_str().into());
                }
                _ => return Err(Invalid::new("from.identities", format!("{identity:?} is no identity"))),
            }
        }
        for account in &spec.service_accounts {
            match account.split_once('/') {
                Some((namespace, name))
                    if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
                {
                    source.service_accounts.push((namespace.into(), name.into()));
                }
                _ => {
                    let problem = format!("{account:?} is not <namespace>/<name>");
                    return Err(Invalid::new("from.serviceAccounts", problem));
                }
            }
        }
        Ok(source)
    }

    fn matches(&self, peer: &Peer) -> bool {
        self.lack(peer).is_none()
    }

    /// The first list that holds no match; `None`: the source is meant.
    pub(crate) fn lack(&self, peer: &Peer) -> Option<Lack> {
        let of_identity = self.lack_of_identity(peer.identity.as_ref());
        of_identity.or_else(|| (!self.matches_address(peer.address)).then_some(Lack::Address))
    }

    /// Lists on identities never match a peer that proved none.
    fn lack_of_identity(&self, identity: Option<&Identity>) -> Option<Lack> {
        let named = !self.identities.is_empty() || !self.identity_prefixes.is_empty();
        let unlimited = !named && self.namespaces.is_empty() && self.service_accounts.is_empty();
        let Some(identity) = identity else { return (!unlimited).then_some(Lack::Unproven) };
        let text = identity.as_str();
        let account = |(namespace, name): &(Box<str>, Box<str>)| {
            **namespace == *identity.namespace() && **name == *identity.service_account()
        };
        if named
            && !self.identities.contains(text)
            && !self.identity_prefixes.iter().any(|prefix| text.starts_with(&**prefix))
        {
            return Some(Lack::Identity);
        }
        if !self.namespaces.is_empty() && !self.namespaces.contains(identity.namespace()) {
            return Some(Lack::Namespace);
        }
        let accounts = &self.service_accounts;
        (!accounts.is_empty() && !accounts.iter().any(account)).then_some(Lack::ServiceAccount)
    }

    /// IPv4 peers of a dual-stack socket are IPv4 peers.
    fn matches_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.cidrs.is_empty() || self.cidrs.iter().any(|cidr| cidr.contains(&address))
    }
}

impl Operation {
    fn compile(spec: &spec::Operation) -> Result<Self, Invalid> {
        Ok(Self {
            ports: spec.ports.clone(),
            methods: spec.methods.clone(),
            paths: spec.paths.iter().map(|path| PathRule::compile(path)).collect::<Result<_, _>>()?,
        })
    }

    fn matches(&self, action: Action, port: u16, asked: Asked<'_>) -> bool {
        self.lack(action, port, asked).is_none()
    }

    /// The first list that holds no match; `None`: the operation is meant.
    pub(crate) fn lack(&self, action: Action, port: u16, asked: Asked<'_>) -> Option<Lack> {
        if !self.ports.is_empty() && !self.ports.contains(&port) {
            return Some(Lack::Port);
        }
        match asked {
            Asked::Bytes if self.methods.is_empty() && self.paths.is_empty() => None,
            Asked::Bytes => (action != Action::Deny).then_some(Lack::Bytes),
            Asked::Request(method, _) if !self.methods.is_empty() && !self.methods.contains(method) => {
                Some(Lack::Method)
            }
            Asked::Request(_, path) => {
                let meant = self.paths.is_empty() || self.paths.iter().any(|rule| rule.matches(path));
                (!meant).then_some(Lack::Path)
            }
        }
    }
}

impl PathRule {
    fn compile(spec: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("to.paths", format!("{spec:?} is not an absolute, unambiguous path"));
        let (text, prefix) = match spec.strip_suffix('*') {
            Some(text) => (text, true),
            None => (spec, false),
        };
        if prefix && text.is_empty() {
            return Ok(Self::Prefix("".into()));
        }
        if !text.starts_with('/') || text.contains('*') || path::is_ambiguous(text) {
            return Err(invalid());
        }
        let form = path::canonical(text).map_err(|_| invalid())?;
        Ok(if prefix { Self::Prefix(form.into()) } else { Self::Exact(form.into()) })
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(prefix) => path.starts_with(&**prefix),
        }
    }
}

/// The path to judge: canonical under policies on paths, and `Err` when it has two meanings.
pub(crate) fn judged<'a>(head: &Head<'a>, on_paths: Option<&Name>) -> Result<Cow<'a, str>, Denial> {
    let Some(policies) = on_paths else { return Ok(Cow::Borrowed(head.path)) };
    let ambiguous = || Denial::AmbiguousPath(policies.clone());
    if path::is_ambiguous(head.path) {
        return Err(ambiguous());
    }
    head.canonical_path().map_err(|_| ambiguous())
}

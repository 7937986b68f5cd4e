//! An AuthorizationPolicy by itself → the resource that sidecars enforce.
//!
//! Where it stands: *validate*; *compile* decides which workloads it applies to.
//!
//! Invariant: fails closed. A rule that is not valid allows nothing, or denies everything; it never
//! widens what is allowed.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_k8s::{
    AuthorizationAction, AuthorizationFrom, AuthorizationPolicySpec, AuthorizationRule as RuleFact,
    AuthorizationTo, PolicyMode,
};

use super::text;
use crate::{
    config::{Action, Authorization, AuthorizationRule, Operation, Origin, Source},
    model::{Meta, Policy},
};

/// A policy that was looked at by itself.
pub(crate) struct CheckedAuthorization {
    /// What sidecars enforce.
    pub(crate) resource: Authorization,
    /// What is wrong, and what follows from it.
    pub(crate) problems: Vec<String>,
}

/// Looks at a policy by itself.
pub(crate) fn check(policy: &Policy<AuthorizationPolicySpec>) -> CheckedAuthorization {
    let spec = &policy.spec;
    let action = match spec.action {
        AuthorizationAction::Allow => Action::Allow,
        AuthorizationAction::Deny => Action::Deny,
    };
    let mut rules = Vec::new();
    let mut problems = Vec::new();
    for (index, fact) in spec.rules.iter().enumerate() {
        // Named by its index in the object, which what is left out below would shift.
        let name = fact.name.clone().unwrap_or_else(|| index.to_string());
        match rule(fact, &policy.meta.key.namespace) {
            Ok(rule) => rules.push(AuthorizationRule { name, ..rule }),
            Err(error) if action == Action::Allow => {
                problems.push(format!("rule {index}: {error}; until then the rule allows nothing"));
            }
            Err(error) => {
                problems.push(format!("rule {index}: {error}; until then the rule denies everything"));
                rules.push(AuthorizationRule { name, ..AuthorizationRule::default() });
            }
        }
    }
    let shadow = spec.mode == PolicyMode::Shadow;
    CheckedAuthorization {
        resource: Authorization { origin: origin(&policy.meta), action, shadow, rules },
        problems,
    }
}

/// The object, as it comes back in logs and metrics.
pub(crate) fn origin(meta: &Meta) -> Origin {
    Origin {
        kind: meta.key.kind.as_str().to_owned(),
        namespace: meta.key.namespace.clone(),
        name: meta.key.name.clone(),
    }
}

fn rule(fact: &RuleFact, namespace: &str) -> Result<AuthorizationRule, String> {
    Ok(AuthorizationRule {
        name: String::new(),
        from: fact.from.iter().map(|from| source(from, namespace)).collect::<Result<_, _>>()?,
        to: fact.to.iter().map(operation).collect::<Result<_, _>>()?,
    })
}

fn source(fact: &AuthorizationFrom, namespace: &str) -> Result<Source, String> {
    let all = |texts: &[String], check: &dyn Fn(&str) -> Result<String, String>| {
        texts.iter().map(|text| check(text)).collect::<Result<Vec<_>, _>>()
    };
    Ok(Source {
        identities: all(&fact.identities, &identity)?,
        namespaces: all(&fact.namespaces, &|name| {
            if text::label(name) { Ok(name.to_owned()) } else { Err(format!("{name:?} is no namespace")) }
        })?,
        service_accounts: all(&fact.service_accounts, &|name| service_account(name, namespace))?,
        cidrs: all(&fact.cidrs, &cidr)?,
    })
}

fn identity(text: &str) -> Result<String, String> {
    let fixed = text.strip_suffix('*').unwrap_or(text);
    if !fixed.starts_with("spiffe://") || fixed.contains('*') {
        return Err(format!(
            "{text:?} is no identity: write spiffe://<trust-domain>/ns/<namespace>/sa/<account>, or a beginning of it and '*'"
        ));
    }
    Ok(text.to_owned())
}

fn service_account(text: &str, namespace: &str) -> Result<String, String> {
    let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
    if !text::label(namespace) || !text::subdomain(name) {
        return Err(format!("{text:?} is no service account (namespace/name)"));
    }
    Ok(format!("{namespace}/{name}"))
}

fn cidr(text: &str) -> Result<String, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| format!("{text:?} is no address block, e.g. 10.0.0.0/8"))?;
    Ok(network.trunc().to_string())
}

fn operation(fact: &AuthorizationTo) -> Result<Operation, String> {
    if fact.ports.contains(&0) {
        return Err("0 is no port".to_owned());
    }
    for method in &fact.methods {
        text::token("method", method)?;
    }
    for path in &fact.paths {
        let fixed = path.strip_suffix('*').unwrap_or(path);
        if !fixed.starts_with('/') || fixed.contains('*') {
            return Err(format!("{path:?} is no path: it begins with '/' and may have '*' at its end"));
        }
        text::policy_path(fixed)?;
    }
    Ok(Operation {
        ports: fact.ports.clone(),
        methods: fact.methods.iter().map(|method| method.to_ascii_uppercase()).collect(),
        paths: fact.paths.clone(),
    })
}

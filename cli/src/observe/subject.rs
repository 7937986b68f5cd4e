//! What a person means by `deploy/cart`, `svc/catalog.shop` or `ns`.
//!
//! Invariant: pure.

use std::str::FromStr;

use weft_proto::names::{is_label, is_subdomain};
use weft_proto::v1;

/// KIND, KIND/NAME or KIND/NAME.NAMESPACE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    kind: &'static str,
    name: String,
    namespace: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, rest) = text.split_once('/').unwrap_or((text, ""));
        let kind = kind(word).ok_or_else(|| {
            format!(
                "{text:?} is nothing that can be asked for: deploy, pod, svc or ns, with or without /NAME, \
                 e.g. deploy/cart or svc/catalog.shop"
            )
        })?;
        let (name, namespace) = match rest.rsplit_once('.') {
            // A pod's name may hold dots; the last part is a namespace all the same.
            Some((name, namespace)) if kind != "namespace" => (name, namespace),
            _ => (rest, ""),
        };
        let good = name.is_empty() == rest.is_empty()
            && (name.is_empty() || is_subdomain(name))
            && (namespace.is_empty() || is_label(namespace));
        if !good || (text.contains('/') && rest.is_empty()) {
            return Err(format!("{rest:?} is no name (NAME or NAME.NAMESPACE)"));
        }
        Ok(Self { kind, name: name.to_owned(), namespace: namespace.to_owned() })
    }
}

fn kind(word: &str) -> Option<&'static str> {
    Some(match word {
        "deploy" | "deployment" | "deployments" | "sts" | "statefulset" | "statefulsets" | "ds"
        | "daemonset" | "daemonsets" | "rs" | "replicaset" | "replicasets" | "job" | "jobs" | "cj"
        | "cronjob" | "cronjobs" | "wl" | "workload" | "workloads" => "workload",
        "po" | "pod" | "pods" => "pod",
        "svc" | "service" | "services" => "service",
        "ns" | "namespace" | "namespaces" => "namespace",
        _ => return None,
    })
}

impl Target {
    /// The namespace to ask in, where the target says one; empty: all.
    pub(crate) fn place(&self) -> Option<String> {
        match (self.kind, self.namespace.as_str()) {
            ("namespace", _) => Some(self.name.clone()),
            (_, "") => None,
            (_, namespace) => Some(namespace.to_owned()),
        }
    }

    /// As the control plane understands it.
    pub(crate) fn subject(&self) -> v1::Subject {
        v1::Subject {
            kind: self.kind.to_owned(),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            also: Vec::new(),
        }
    }
}

/// How edges are shown for what is asked about: a kind alone groups by it.
pub(crate) fn by(target: Option<&Target>) -> &'static str {
    target.map_or("workload", |target| target.kind)
}

/// One end of an edge, where it is said.
pub(crate) fn end(target: Option<&Target>) -> Option<v1::Subject> {
    target.map(Target::subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_understood() {
        for (text, kind, name, namespace) in [
            ("deploy/cart", "workload", "cart", ""),
            ("sts/db.shop", "workload", "db", "shop"),
            ("pod/cart-0", "pod", "cart-0", ""),
            ("svc", "service", "", ""),
            ("svc/catalog.shop", "service", "catalog", "shop"),
            ("ns/shop", "namespace", "shop", ""),
        ] {
            let expected = Target { kind, name: name.to_owned(), namespace: namespace.to_owned() };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "cart", "moon/cart", "svc/", "svc/UPPER", "svc/a.B", "deploy/.shop", "svc/a/b"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}

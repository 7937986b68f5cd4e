//! What a person writes after `weft explain`: source, destination, method, path, fields.
//!
//! Invariant: what is not understood is refused with a line that would be.

use anyhow::{anyhow, bail, ensure};
use std::net::{IpAddr, SocketAddr};

/// One end of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// An object, `kind/name[.namespace][:port]`.
    Object {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its namespace; absent: the one that is meant where none is written.
        namespace: Option<String>,
        /// The port, of a destination.
        port: Option<String>,
    },
    /// An address, with the port of a destination.
    Address(IpAddr, Option<u16>),
}

/// Kinds that can send or be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A Pod.
    Pod,
    /// What makes pods: a Deployment and the like.
    Owner,
    /// A Service.
    Service,
}

/// A question as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) from: End,
    pub(super) to: End,
    pub(super) method: Option<String>,
    pub(super) path: Option<String>,
}

/// Example of a question that is understood.
const EXAMPLE: &str = "weft explain deploy/shop svc/catalog GET /items";

/// Reads `FROM TO [METHOD] [PATH]`; between the two an arrow, quoted, or the word `to` may stand.
pub(super) fn read(words: &[String]) -> anyhow::Result<Words> {
    let mut parts: Vec<&str> = Vec::new();
    for word in words {
        match word.split_once(" -> ") {
            Some((before, after)) => parts.extend([before.trim(), after.trim()]),
            None if word == "->" => {}
            None => parts.push(word),
        }
    }
    ensure!(
        !parts.contains(&"-"),
        "the shell took what follows `->` for a file to write to: leave the arrow out, as in `{EXAMPLE}`, or quote it"
    );
    parts.retain(|part| *part != "to");
    let mut parts = parts.into_iter();
    let (Some(from), Some(to)) = (parts.next(), parts.next()) else {
        bail!("who sends, and to whom? For example: `{EXAMPLE}`");
    };
    let (mut method, mut path) = (None, None);
    for part in parts {
        let place = if part.starts_with('/') || part == "*" { &mut path } else { &mut method };
        ensure!(place.is_none(), "{part:?} is one word too many; for example: `{EXAMPLE}`");
        *place = Some(part.to_owned());
    }
    Ok(Words { from: end(from)?, to: end(to)?, method, path })
}

fn end(text: &str) -> anyhow::Result<End> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(End::Address(address.ip(), Some(address.port())));
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(End::Address(address, None));
    }
    let (kind, rest) = text.split_once('/').ok_or_else(|| {
        anyhow!("{text:?} is neither <ip>:<port> nor kind/name, such as deploy/shop, svc/catalog.shop:80 or pod/shop-0")
    })?;
    let kind = match kind.to_ascii_lowercase().as_str() {
        "pod" | "pods" | "po" => Kind::Pod,
        "svc" | "service" | "services" => Kind::Service,
        "deploy" | "deployment" | "deployments" | "sts" | "statefulset" | "statefulsets" | "ds"
        | "daemonset" | "daemonsets" | "job" | "jobs" | "cronjob" | "rs" | "replicaset" | "workload" => {
            Kind::Owner
        }
        other => bail!("{other:?} neither sends nor serves; write pod/, svc/, deploy/, sts/, ds/ or job/"),
    };
    let (rest, port) =
        rest.split_once(':').map_or((rest, None), |(rest, port)| (rest, Some(port.to_owned())));
    let (name, namespace) =
        rest.split_once('.').map_or((rest, None), |(name, namespace)| (name, Some(namespace.to_owned())));
    ensure!(!name.is_empty(), "{text:?} has no name");
    Ok(End::Object { kind, name: name.to_owned(), namespace, port })
}

/// Reads `name: value` or `name=value`.
pub(super) fn field(text: &str) -> Result<(String, String), String> {
    let split = text.split_once(':').or_else(|| text.split_once('='));
    let (name, value) = split.ok_or_else(|| format!("{text:?} is not `name: value`"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[&str]) -> anyhow::Result<Words> {
        read(&text.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_arrow_may_be_left_out_quoted_or_said() {
        let plain = words(&["deploy/shop", "svc/catalog", "GET", "/items"]).unwrap();
        for text in [
            &["deploy/shop", "->", "svc/catalog", "GET", "/items"][..],
            &["deploy/shop -> svc/catalog", "GET", "/items"],
            &["deploy/shop", "to", "svc/catalog", "GET", "/items"],
            &["deploy/shop", "svc/catalog", "/items", "GET"],
        ] {
            assert_eq!(words(text).unwrap(), plain, "{text:?}");
        }
    }

    #[test]
    fn an_arrow_that_the_shell_took_is_told_and_not_guessed() {
        let error = words(&["deploy/shop", "-", "GET", "/items"]).unwrap_err().to_string();
        assert!(error.contains("leave the arrow out"), "{error}");
    }

    #[test]
    fn ends_are_objects_or_addresses() {
        assert_eq!(end("10.0.0.1:80").unwrap(), End::Address([10, 0, 0, 1].into(), Some(80)));
        assert_eq!(end("[fd00::1]:80").unwrap(), End::Address("fd00::1".parse().unwrap(), Some(80)));
        assert_eq!(end("10.0.0.1").unwrap(), End::Address([10, 0, 0, 1].into(), None));
        let service = End::Object {
            kind: Kind::Service,
            name: "catalog".to_owned(),
            namespace: Some("shop".to_owned()),
            port: Some("http".to_owned()),
        };
        assert_eq!(end("svc/catalog.shop:http").unwrap(), service);
        for wrong in ["catalog", "cm/x", "svc/", "deploy/.shop"] {
            assert!(end(wrong).is_err(), "{wrong}");
        }
        assert!(words(&["deploy/shop"]).is_err());
        assert!(words(&["deploy/shop", "svc/catalog", "GET", "/a", "/b"]).is_err());
    }

    #[test]
    fn fields_are_written_as_for_curl() {
        assert_eq!(field("x-canary: 1").unwrap(), ("x-canary".to_owned(), "1".to_owned()));
        assert_eq!(field("x-canary=1").unwrap(), ("x-canary".to_owned(), "1".to_owned()));
        assert!(field("x-canary").is_err());
    }
}

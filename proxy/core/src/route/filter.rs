//! Filters: edits of fields, host and path, and the answers that a rule gives itself.
//!
//! Compiled with their rule; carried out by the relay after the plan was made.
//!
//! Invariant: a filter that cannot be carried out was refused at compile time or answers with an
//! error; none is skipped. No filter touches what frames a message.

use std::sync::Arc;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};

use crate::head::{Head, host_of};
use crate::hygiene::{is_own, is_valid_authority};
use crate::invalid::Invalid;
use crate::outbound::Reply;
use crate::path;
use crate::reason::Reason;
use crate::spec;

/// The filters of one rule or one weighted backend.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    pub(crate) request: Vec<Edit>,
    pub(crate) response: Vec<Edit>,
    pub(crate) host: Option<(Authority, HeaderValue)>,
    pub(crate) path: Option<PathEdit>,
    pub(crate) answer: Option<Answer>,
    pub(crate) places: Places,
}

/// Which filter of the list said what: each kind is there once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Places {
    pub(crate) request: u8,
    pub(crate) response: u8,
    pub(crate) host: u8,
    pub(crate) path: u8,
    pub(crate) answer: u8,
}

/// One edit of header fields.
#[derive(Debug)]
pub(crate) enum Edit {
    Set(HeaderName, HeaderValue),
    Add(HeaderName, HeaderValue),
    Remove(HeaderName),
}

#[derive(Debug)]
pub(crate) enum PathEdit {
    Full(Box<str>),
    /// What replaces the first so many bytes; both without a trailing slash.
    Prefix {
        length: usize,
        by: Box<str>,
    },
}

/// What a rule answers itself.
#[derive(Debug)]
pub(crate) enum Answer {
    Redirect(Box<Redirect>),
    Fixed(StatusCode, Arc<str>),
}

#[derive(Debug)]
pub(crate) struct Redirect {
    pub(crate) status: StatusCode,
    scheme: Option<spec::Scheme>,
    host: Option<Box<str>>,
    port: Option<u16>,
    path: Option<PathEdit>,
}

impl Filters {
    /// Compiles filters; `prefix` is the one that may be replaced.
    pub(crate) fn compile(specs: &[spec::Filter], prefix: Option<&str>) -> Result<Self, Invalid> {
        let mut filters = Self::default();
        for (at, spec) in specs.iter().enumerate() {
            let place = u8::try_from(at).unwrap_or(u8::MAX);
            filters.add(place, spec, prefix).map_err(|e| e.within(&format!("filters[{at}]")))?;
        }
        Ok(filters)
    }

    pub(crate) fn edits_request(&self) -> bool {
        !self.request.is_empty() || self.host.is_some() || self.path.is_some()
    }

    fn add(&mut self, at: u8, spec: &spec::Filter, prefix: Option<&str>) -> Result<(), Invalid> {
        match spec {
            spec::Filter::RequestHeaders(modifier) => {
                self.places.request = at;
                let (host, rest): (Vec<_>, Vec<_>) =
                    modifier.set.iter().cloned().partition(|(name, _)| name == header::HOST);
                if let [(_, host)] = host.as_slice() {
                    self.host = Some(authority(host.to_str().unwrap_or(""))?);
                    self.places.host = at;
                }
                edits(&mut self.request, &spec::HeaderModifier { set: rest, ..modifier.clone() })
            }
            spec::Filter::ResponseHeaders(modifier) => {
                self.places.response = at;
                edits(&mut self.response, modifier)
            }
            spec::Filter::Rewrite(rewrite) => {
                if let Some(host) = &rewrite.hostname {
                    self.host = Some(authority(host)?);
                    self.places.host = at;
                }
                if let Some(edit) = &rewrite.path {
                    self.path = Some(PathEdit::compile(edit, prefix)?);
                    self.places.path = at;
                }
                Ok(())
            }
            spec::Filter::Redirect(redirect) => self.answer_once(at, Redirect::compile(redirect, prefix)?),
            spec::Filter::Reply(reply) => {
                self.answer_once(at, Answer::Fixed(reply.status, Arc::from(reply.reason.as_str())))
            }
        }
    }

    /// The first answering filter answers; those behind it are never reached.
    fn answer_once(&mut self, at: u8, answer: Answer) -> Result<(), Invalid> {
        if self.answer.is_none() {
            self.answer = Some(answer);
            self.places.answer = at;
        }
        Ok(())
    }
}

/// Carries out the edits on a request.
pub(crate) fn apply_request(filters: &Filters, uri: &mut Uri, headers: &mut HeaderMap) -> Result<(), Reply> {
    if !filters.edits_request() {
        return Ok(());
    }
    edit(&filters.request, headers);
    if let Some((authority, host)) = &filters.host {
        headers.insert(header::HOST, host.clone());
        if uri.authority().is_some() {
            rebuild(uri, |parts| parts.authority = Some(authority.clone()))?;
        }
    }
    if let Some(edit) = &filters.path {
        let target = edit.target(uri.path(), uri.query())?;
        rebuild(uri, |parts| parts.path_and_query = Some(target))?;
    }
    Ok(())
}

/// Carries out edits of header fields, in order.
pub(crate) fn edit(edits: &[Edit], headers: &mut HeaderMap) {
    for edit in edits {
        match edit {
            Edit::Set(name, value) => {
                headers.insert(name, value.clone());
            }
            Edit::Add(name, value) => {
                headers.append(name, value.clone());
            }
            Edit::Remove(name) => {
                headers.remove(name);
            }
        }
    }
}

impl PathEdit {
    fn compile(spec: &spec::PathRewrite, prefix: Option<&str>) -> Result<Self, Invalid> {
        match spec {
            spec::PathRewrite::Full(path) => Ok(Self::Full(clear("replaceFullPath", path)?)),
            spec::PathRewrite::Prefix(by) => {
                let Some(prefix) = prefix else {
                    let problem = "allowed only with exactly one match, by path prefix";
                    return Err(Invalid::new("replacePrefixMatch", problem));
                };
                let prefix = clear("path.prefix", prefix)?;
                let by = clear("replacePrefixMatch", by)?;
                Ok(Self::Prefix { length: trimmed(&prefix).len(), by: trimmed(&by).into() })
            }
        }
    }

    /// The path after the edit. Source: Gateway API, HTTPPathModifier.replacePrefixMatch, its table.
    fn path(&self, sent: &str) -> Result<String, Reply> {
        match self {
            Self::Full(path) => Ok(path.to_string()),
            Self::Prefix { length, by } => {
                let malformed = |_| Reply::of(Reason::MalformedPath, "the path is not unambiguous");
                let path = path::canonical(sent).map_err(malformed)?;
                let rest = path.get(*length..).unwrap_or("");
                let path = format!("{by}{rest}");
                Ok(if path.starts_with('/') { path } else { format!("/{path}") })
            }
        }
    }

    fn target(&self, sent: &str, query: Option<&str>) -> Result<PathAndQuery, Reply> {
        let path = self.path(sent)?;
        let text = query.map_or(path.clone(), |query| format!("{path}?{query}"));
        text.parse().map_err(|_| Reply::of(Reason::InvalidFilter, "the rewritten path is no path"))
    }
}

impl Redirect {
    fn compile(spec: &spec::Redirect, prefix: Option<&str>) -> Result<Answer, Invalid> {
        if !matches!(spec.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Err(Invalid::new(
                "requestRedirect.statusCode",
                format!("{} is no redirect", spec.status),
            ));
        }
        if let Some(host) = &spec.hostname {
            authority(host)?;
        }
        if spec.port == Some(0) {
            return Err(Invalid::new("requestRedirect.port", "0 is no port"));
        }
        Ok(Answer::Redirect(Box::new(Self {
            status: spec.status,
            scheme: spec.scheme,
            host: spec.hostname.as_deref().map(Into::into),
            port: spec.port,
            path: spec.path.as_ref().map(|edit| PathEdit::compile(edit, prefix)).transpose()?,
        })))
    }

    /// Source: Gateway API, HTTPRequestRedirectFilter. Requests in a mesh come in plain text, so the
    /// request's scheme is http; the service's port stands for the listener's.
    fn location(&self, head: &Head<'_>, service_port: u16) -> Result<String, Reply> {
        let scheme = self.scheme.unwrap_or(spec::Scheme::Http);
        let (scheme, well_known) = match scheme {
            spec::Scheme::Http => ("http", 80),
            spec::Scheme::Https => ("https", 443),
        };
        let port = match (self.port, self.scheme) {
            (Some(port), _) => port,
            (None, Some(_)) => well_known,
            (None, None) => service_port,
        };
        let host = self.host.as_deref().unwrap_or(host_of(head.authority));
        let port = if port == well_known { String::new() } else { format!(":{port}") };
        if host.is_empty() {
            return Err(Reply::of(Reason::MalformedHost, "the request names no host to redirect to"));
        }
        let path = match &self.path {
            Some(edit) => edit.path(head.path)?,
            None if head.path.starts_with('/') => head.path.to_owned(),
            None => "/".to_owned(),
        };
        let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
        Ok(format!("{scheme}://{host}{port}{path}{query}"))
    }
}

impl Answer {
    pub(crate) fn reply(&self, head: &Head<'_>, service_port: u16) -> Reply {
        match self {
            Self::Fixed(status, why) => Reply {
                status: *status,
                ..Reply::of(
                    if status.is_server_error() { Reason::InvalidFilter } else { Reason::ConfigReply },
                    why.to_string(),
                )
            },
            Self::Redirect(redirect) => {
                let location = match redirect.location(head, service_port) {
                    Ok(location) => location,
                    Err(reply) => return reply,
                };
                match HeaderValue::try_from(location) {
                    Ok(location) => Reply {
                        status: redirect.status,
                        location: Some(location),
                        ..Reply::of(Reason::ConfigReply, "redirected")
                    },
                    Err(_) => Reply::of(Reason::InvalidFilter, "the redirect has no valid location"),
                }
            }
        }
    }
}

/// Set, then add, then remove. Source: `HeaderModifier` in `config.proto`.
fn edits(list: &mut Vec<Edit>, modifier: &spec::HeaderModifier) -> Result<(), Invalid> {
    let set = modifier.set.iter().cloned().map(|(name, value)| Edit::Set(name, value));
    let add = modifier.add.iter().cloned().map(|(name, value)| Edit::Add(name, value));
    let remove = modifier.remove.iter().cloned().map(Edit::Remove);
    for edit in set.chain(add).chain(remove) {
        let (Edit::Set(name, _) | Edit::Add(name, _) | Edit::Remove(name)) = &edit;
        if is_framing(name) {
            return Err(Invalid::new("headerModifier", format!("{name} may not be changed")));
        }
        list.push(edit);
    }
    Ok(())
}

fn is_framing(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host"
            | "content-length"
            | "transfer-encoding"
            | "connection"
            | "upgrade"
            | "te"
            | "trailer"
            | "keep-alive"
    ) || is_own(name.as_str())
}

fn authority(host: &str) -> Result<(Authority, HeaderValue), Invalid> {
    let invalid = || Invalid::new("hostname", format!("{host:?} is no host"));
    if !is_valid_authority(host) {
        return Err(invalid());
    }
    let authority = host.parse().map_err(|_| invalid())?;
    Ok((authority, HeaderValue::from_str(host).map_err(|_| invalid())?))
}

/// A path that a rewrite may produce.
fn clear(field: &str, path: &str) -> Result<Box<str>, Invalid> {
    let absolute = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let parses = absolute.parse::<PathAndQuery>().is_ok();
    match path::canonical(&absolute) {
        Ok(form) if parses => Ok(form.into()),
        _ => Err(Invalid::new(field, format!("{path:?} is not an unambiguous path"))),
    }
}

fn trimmed(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

fn rebuild(uri: &mut Uri, change: impl FnOnce(&mut http::uri::Parts)) -> Result<(), Reply> {
    let mut parts = std::mem::take(uri).into_parts();
    change(&mut parts);
    *uri = Uri::from_parts(parts)
        .map_err(|_| Reply::of(Reason::InvalidFilter, "the rewritten target is invalid"))?;
    Ok(())
}

//! The same request on the next hop's HTTP version.
//!
//! Stands between *connect*, which chose the version, and *relay*. HTTP/1 carries the authority in
//! Host and the path alone in its target; HTTP/2 carries both in pseudo fields.
//!
//! Invariant: path and query reach the next hop byte for byte.

use std::net::SocketAddr;

use http::header::{COOKIE, HOST, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Version};
use weft_proxy_core::Reason;

/// Makes the request fit HTTP/1.1. A request of HTTP/1.0 may come without Host: then `destination` is it.
///
/// # Errors
/// [`Reason::MalformedHost`] when there is no authority to put into Host.
pub(crate) fn to_http1(
    parts: &mut Parts,
    destination: impl FnOnce() -> Option<SocketAddr>,
) -> Result<(), Reason> {
    let from_http2 = parts.version == Version::HTTP_2;
    parts.version = Version::HTTP_11;
    if parts.method == Method::CONNECT {
        return Ok(());
    }
    if let Some(authority) = parts.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Reason::MalformedHost)?;
        parts.headers.insert(HOST, host);
        parts.uri = origin_form(&parts.uri);
    } else if !parts.headers.contains_key(HOST) {
        let address = destination().ok_or(Reason::MalformedHost)?.to_string();
        let host = HeaderValue::from_str(&address).map_err(|_| Reason::MalformedHost)?;
        parts.headers.insert(HOST, host);
    }
    if from_http2 {
        join_cookies(&mut parts.headers);
    }
    Ok(())
}

/// Makes the request fit HTTP/2.
///
/// # Errors
/// [`Reason::MalformedHost`] when there is no authority.
pub(crate) fn to_http2(parts: &mut Parts) -> Result<(), Reason> {
    parts.version = Version::HTTP_2;
    let host = parts.headers.remove(HOST);
    if parts.uri.scheme().is_some() && parts.uri.authority().is_some() {
        return Ok(());
    }
    let authority = match (parts.uri.authority(), host) {
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => Authority::try_from(host.as_bytes()).map_err(|_| Reason::MalformedHost)?,
        (None, None) => return Err(Reason::MalformedHost),
    };
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority);
    uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    parts.uri = Uri::from_parts(uri).map_err(|_| Reason::MalformedHost)?;
    Ok(())
}

fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    Uri::from(path)
}

/// HTTP/2 may split cookies over several fields; HTTP/1 servers expect one. Source: RFC 9113 §8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(uri: &str, version: Version, host: Option<&str>) -> Parts {
        let mut request = Request::builder().uri(uri).version(version);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn an_http2_request_gets_host_and_origin_form_on_http1() {
        let mut parts = parts("http://shop:80/a%2Fb?q=1", Version::HTTP_2, None);
        parts.headers.append(COOKIE, HeaderValue::from_static("a=1"));
        parts.headers.append(COOKIE, HeaderValue::from_static("b=2"));
        to_http1(&mut parts, || None).unwrap();
        assert_eq!(parts.uri.to_string(), "/a%2Fb?q=1");
        assert_eq!(parts.headers[HOST], "shop:80");
        assert_eq!(parts.headers[COOKIE], "a=1; b=2");
    }

    #[test]
    fn an_http1_request_gets_an_authority_on_http2() {
        let mut parts = parts("/x?y", Version::HTTP_11, Some("shop"));
        to_http2(&mut parts).unwrap();
        assert_eq!(parts.uri.to_string(), "http://shop/x?y");
        assert!(parts.headers.get(HOST).is_none());
    }

    #[test]
    fn a_request_without_host_gets_the_destinations() {
        let mut parts = parts("/x", Version::HTTP_10, None);
        to_http1(&mut parts, || "10.0.0.1:80".parse().ok()).unwrap();
        assert_eq!(parts.headers[HOST], "10.0.0.1:80");
    }

    #[test]
    fn no_authority_is_no_http2_request() {
        let mut parts = parts("/x", Version::HTTP_10, None);
        assert_eq!(to_http2(&mut parts), Err(Reason::MalformedHost));
    }
}

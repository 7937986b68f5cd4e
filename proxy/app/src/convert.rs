//! The same request on the next hop's HTTP version.
//!
//! Stands between *connect*, which chose the version, and *relay*. HTTP/1 carries the authority in
//! Host and the path alone in its target; HTTP/2 carries both in pseudo fields.
//!
//! Invariant: path and query reach the next hop byte for byte.

use std::net::SocketAddr;

use http::header::{COOKIE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Request, Version};
use weft_proxy_core::Reason;

use crate::record::id::X_REQUEST_ID;
use crate::trace::context::TRACEPARENT;

/// Makes the request fit HTTP/1.1. A request of HTTP/1.0 may come without Host: then `destination` is it.
///
/// # Errors
/// [`Reason::MalformedHost`] when there is no authority to put into Host.
pub(crate) fn to_http1<B>(
    request: &mut Request<B>,
    destination: impl FnOnce() -> Option<SocketAddr>,
) -> Result<(), Reason> {
    let from_http2 = request.version() == Version::HTTP_2;
    *request.version_mut() = Version::HTTP_11;
    if request.method() == Method::CONNECT {
        return Ok(());
    }
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Reason::MalformedHost)?;
        *request.uri_mut() = origin_form(request.uri());
        request.headers_mut().insert(HOST, host);
    } else if !request.headers().contains_key(HOST) {
        let address = destination().ok_or(Reason::MalformedHost)?.to_string();
        let host = HeaderValue::from_str(&address).map_err(|_| Reason::MalformedHost)?;
        request.headers_mut().insert(HOST, host);
    }
    if from_http2 {
        join_cookies(request.headers_mut());
    }
    Ok(())
}

/// Makes the request fit HTTP/2.
///
/// # Errors
/// [`Reason::MalformedHost`] when there is no authority.
pub(crate) fn to_http2<B>(request: &mut Request<B>) -> Result<(), Reason> {
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    for name in UNSHARED {
        if let Some(value) = headers.get_mut(name) {
            value.set_sensitive(true);
        }
    }
    let host = headers.remove(HOST);
    if request.uri().scheme().is_some() && request.uri().authority().is_some() {
        return Ok(());
    }
    let authority = match (request.uri().authority(), host) {
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => Authority::try_from(host.as_bytes()).map_err(|_| Reason::MalformedHost)?,
        (None, None) => return Err(Reason::MalformedHost),
    };
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority);
    uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Reason::MalformedHost)?;
    Ok(())
}

/// Fields whose value no two requests share. In HPACK's tables they only push out what requests do share, and each is
/// compared with all of those before it, so they are sent as literals that are never indexed (RFC 7541, section 6.2.3).
const UNSHARED: [HeaderName; 2] = [X_REQUEST_ID, TRACEPARENT];

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

    fn request(uri: &str, version: Version, host: Option<&str>) -> Request<()> {
        let mut request = Request::builder().uri(uri).version(version);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn an_http2_request_gets_host_and_origin_form_on_http1() {
        let mut request = request("http://shop:80/a%2Fb?q=1", Version::HTTP_2, None);
        request.headers_mut().append(COOKIE, HeaderValue::from_static("a=1"));
        request.headers_mut().append(COOKIE, HeaderValue::from_static("b=2"));
        to_http1(&mut request, || None).unwrap();
        assert_eq!(request.uri().to_string(), "/a%2Fb?q=1");
        assert_eq!(request.headers()[HOST], "shop:80");
        assert_eq!(request.headers()[COOKIE], "a=1; b=2");
    }

    #[test]
    fn what_no_two_requests_share_stays_out_of_http2s_tables() {
        let mut request = request("http://shop/x", Version::HTTP_2, None);
        for name in ["x-request-id", "traceparent", "user-agent"] {
            request.headers_mut().insert(name, HeaderValue::from_static("7"));
        }
        to_http2(&mut request).unwrap();
        let indexed = |name: &str| !request.headers()[name].is_sensitive();
        assert_eq!(["x-request-id", "traceparent", "user-agent"].map(indexed), [false, false, true]);
    }

    #[test]
    fn an_http1_request_gets_an_authority_on_http2() {
        let mut request = request("/x?y", Version::HTTP_11, Some("shop"));
        to_http2(&mut request).unwrap();
        assert_eq!(request.uri().to_string(), "http://shop/x?y");
        assert!(request.headers().get(HOST).is_none());
    }

    #[test]
    fn a_request_without_host_gets_the_destinations() {
        let mut request = request("/x", Version::HTTP_10, None);
        to_http1(&mut request, || "10.0.0.1:80".parse().ok()).unwrap();
        assert_eq!(request.headers()[HOST], "10.0.0.1:80");
    }

    #[test]
    fn no_authority_is_no_http2_request() {
        let mut request = request("/x", Version::HTTP_10, None);
        assert_eq!(to_http2(&mut request), Err(Reason::MalformedHost));
    }
}

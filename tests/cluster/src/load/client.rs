//! A plain HTTP client without opinions: one connection, no retry, no redirect followed.
//!
//! Invariant: an error names the step at which it happened first: `connect`, `send`, `body`, `timeout`.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::anybody;

/// An open connection.
#[derive(Debug)]
pub(crate) enum Connection {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Connects to where a URL points; with TLS if its scheme says so.
    pub(crate) async fn open(uri: &Uri, two: bool) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("connect: {error}");
        let authority = uri.authority().ok_or("connect: the URL has no host")?;
        let host = authority.host().trim_matches(['[', ']']);
        let tls = uri.scheme_str() == Some("https");
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        if !tls {
            return Self::over(stream, two).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
        let config = anybody::config(&[b"http/1.1"]).map_err(|error| failed(&error))?;
        let stream =
            TlsConnector::from(config).connect(name, stream).await.map_err(|error| failed(&error))?;
        Self::over(stream, false).await
    }

    async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        stream: S,
        two: bool,
    ) -> Result<Self, String> {
        let refused = |error: hyper::Error| format!("connect: {error:?}");
        let stream = TokioIo::new(stream);
        if two {
            let (send, drive) = http2::handshake(TokioExecutor::new(), stream).await.map_err(refused)?;
            tokio::spawn(drive);
            return Ok(Self::Two(send));
        }
        let (send, drive) = http1::handshake(stream).await.map_err(refused)?;
        tokio::spawn(drive);
        Ok(Self::One(send))
    }

    /// Whether the other side has ended it.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::One(send) => send.is_closed(),
            Self::Two(send) => send.is_closed(),
        }
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
        let unsent = |error: hyper::Error| format!("send: {error:?}");
        let answer = match self {
            Self::One(send) => {
                send.ready().await.map_err(unsent)?;
                send.send_request(request).await
            }
            Self::Two(send) => {
                send.ready().await.map_err(unsent)?;
                send.send_request(request).await
            }
        };
        let (head, body) = answer.map_err(unsent)?.into_parts();
        let body = body.collect().await.map_err(|error| format!("body: {error:?}"))?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}

/// Waits for an answer, but not for ever.
pub(crate) async fn within<T>(
    time: Duration,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    tokio::time::timeout(time, work).await.unwrap_or_else(|_| Err(format!("timeout: {time:?}")))
}

//! One HTTP/1.1 connection to a collector: bodies are posted, answers are looked at and forgotten.
//!
//! Used by `collector` on the chores thread, for OTLP over HTTP and for Zipkin.
//!
//! Invariant: an answer is read up to a bound; a connection that answers more is closed.
//! Invariant: one batch goes at a time, so a collector never costs more than one connection.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::dial;
use crate::metrics::Metrics;
use crate::metrics::plain::Purpose;

/// Where a collector listens, and how it is spoken to.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What proves the collector's identity; `None`: plaintext.
    pub tls: Option<Arc<ClientConfig>>,
    /// Where resolutions of its name are counted.
    pub metrics: Arc<Metrics>,
}

impl Place {
    /// Opens a connection: resolves the name anew, tries each address.
    ///
    /// # Errors
    /// What failed.
    pub(super) async fn open(&self) -> io::Result<TokioIo<Either<TlsStream<TcpStream>, TcpStream>>> {
        let tcp = dial::reach(&self.metrics, Purpose::Collector, (&self.host, self.port)).await?;
        tcp.set_nodelay(true)?;
        let Some(config) = &self.tls else { return Ok(TokioIo::new(Either::Right(tcp))) };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
        Ok(TokioIo::new(Either::Left(tls)))
    }
}

/// A way to post to one URL.
pub(super) struct Post {
    place: Place,
    path: String,
    headers: HeaderMap,
    link: Option<SendRequest<Full<Bytes>>>,
}

impl Post {
    /// A way to `path` at `place`; `headers` go with every message.
    pub(super) fn new(place: Place, authority: &HeaderValue, path: String, mut headers: HeaderMap) -> Self {
        headers.insert(HOST, authority.clone());
        headers.insert(USER_AGENT, AGENT);
        Self { place, path, headers, link: None }
    }

    /// Posts a body and gives the answer's.
    ///
    /// # Errors
    /// What failed, or the answer's status.
    ///
    /// # Cancel safety
    /// Dropped, the connection is too; the collector may or may not have taken the body.
    pub(super) async fn send(&mut self, kind: &'static str, body: Bytes) -> Result<Bytes, String> {
        // Taken out, so that a deadline in the middle of an answer does not leave the rest of it for the next.
        let kept = self.link.take();
        if let Some(mut link) = kept
            && link.ready().await.is_ok()
        {
            match self.once(&mut link, kind, body.clone()).await {
                Err(Failed::Link(_)) => {}
                Err(Failed::Refused(why)) => return Err(why),
                Ok(answer) => {
                    self.link = Some(link);
                    return Ok(answer);
                }
            }
        }
        let io = self.place.open().await.map_err(|error| error.to_string())?;
        let (mut link, connection) = handshake(io).await.map_err(|error| dial::chain(&error))?;
        tokio::spawn(connection);
        match self.once(&mut link, kind, body).await {
            Err(Failed::Link(why) | Failed::Refused(why)) => Err(why),
            Ok(answer) => {
                self.link = Some(link);
                Ok(answer)
            }
        }
    }

    async fn once(
        &self,
        link: &mut SendRequest<Full<Bytes>>,
        kind: &'static str,
        body: Bytes,
    ) -> Result<Bytes, Failed> {
        let mut request = Request::post(self.path.as_str())
            .header(CONTENT_TYPE, kind)
            .body(Full::new(body))
            .map_err(|error| Failed::Refused(error.to_string()))?;
        request.headers_mut().extend(self.headers.clone());
        let response = link.send_request(request).await.map_err(|error| Failed::Link(dial::chain(&error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST).collect().await;
        let body = body.map_err(|error| Failed::Refused(error.to_string()))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let said =
            String::from_utf8_lossy(body.get(..SHOWN.min(body.len())).unwrap_or_default()).into_owned();
        Err(Failed::Refused(format!("it answers {status}: {}", said.trim())))
    }
}

/// Why a body was not taken.
enum Failed {
    /// The connection broke before there was an answer.
    Link(String),
    /// The collector does not want it.
    Refused(String),
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Header fields may hold a key.
        f.debug_struct("Post")
            .field("place", &self.place.host)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Header fields as they go on the wire; those that are none are told.
///
/// # Errors
/// Which is none.
pub(super) fn fields(headers: &[(Arc<str>, Arc<str>)]) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let bad = || format!("{name:?} cannot be sent as a header field");
        let key = HeaderName::try_from(&**name).map_err(|_| bad())?;
        let mut value = HeaderValue::try_from(&**value).map_err(|_| bad())?;
        value.set_sensitive(true);
        map.insert(key, value);
    }
    Ok(map)
}

const AGENT: HeaderValue = HeaderValue::from_static(concat!("weft/", env!("CARGO_PKG_VERSION")));
/// Bytes of an answer that are read. Source: collectors answer a few words.
const MOST: usize = 64 << 10;
/// Bytes of a refusal that are shown.
const SHOWN: usize = 200;

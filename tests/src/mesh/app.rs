//! Applications and their clients, in the test's own process, plain as any application is.
//!
//! Invariant: an application listens on a free port of loopback until it is dropped.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::look::in_time;
use super::wire::Wire;

/// A listening application.
#[derive(Debug)]
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl App {
    /// One that treats each connection as the closure says.
    ///
    /// # Cancel safety
    /// Dropped, nothing listens.
    pub async fn raw<F, R>(serve: F) -> Self
    where
        F: Fn(Wire) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::raw_at("127.0.0.1:0".parse().unwrap(), serve).await
    }

    /// The same at a given address.
    ///
    /// # Cancel safety
    /// Dropped, nothing listens.
    pub async fn raw_at<F, R>(address: SocketAddr, serve: F) -> Self
    where
        F: Fn(Wire) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Answers of a few bytes must not wait for one another.
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(Wire::on(stream)));
            }
        });
        Self { address, task }
    }

    /// One that answers HTTP/1 requests.
    ///
    /// # Cancel safety
    /// Dropped, nothing listens.
    pub async fn http<F, R>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::raw(move |wire| {
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request| {
                let answering = answer(request);
                async move { Ok::<_, Infallible>(answering.await) }
            });
            let io = TokioIo::new(wire.into_stream());
            async move {
                // A caller that leaves is no concern of the application.
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            }
        })
        .await
    }

    /// One that answers every request with 200 and this text.
    ///
    /// # Cancel safety
    /// Dropped, nothing listens.
    pub async fn saying(text: &'static str) -> Self {
        Self::http(move |_| async move { reply(200, text) }).await
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer with a text.
pub fn reply(status: u16, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Fields.
    pub headers: HeaderMap,
    /// Body.
    pub body: String,
}

/// A client's connection that is kept between requests.
#[derive(Debug)]
pub struct Http {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl Http {
    /// Connects.
    ///
    /// # Cancel safety
    /// Dropped, nothing is open.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = in_time("connecting", TcpStream::connect(address)).await.unwrap();
        let _ = stream.set_nodelay(true);
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender, authority: address.to_string() }
    }

    /// GET.
    ///
    /// # Errors
    /// The connection broke.
    ///
    /// # Cancel safety
    /// The connection is of no more use.
    pub async fn get(&mut self, path: &str) -> Result<Answer, hyper::Error> {
        self.send(Request::get(path), Bytes::new()).await
    }

    /// Any request.
    ///
    /// # Errors
    /// The connection broke.
    ///
    /// # Cancel safety
    /// The connection is of no more use.
    pub async fn send(&mut self, head: http::request::Builder, body: Bytes) -> Result<Answer, hyper::Error> {
        let request = head.header("host", &self.authority).body(Full::new(body)).unwrap();
        in_time("an answer", async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        })
        .await
    }

    /// One GET on a connection of its own.
    ///
    /// # Errors
    /// The connection broke.
    ///
    /// # Cancel safety
    /// Dropped, nothing is open.
    pub async fn once(address: SocketAddr, path: &str) -> Result<Answer, hyper::Error> {
        Self::open(address).await.get(path).await
    }
}

/// The text of a page.
pub(super) async fn text(address: SocketAddr, path: &str) -> String {
    Http::once(address, path).await.unwrap().body
}

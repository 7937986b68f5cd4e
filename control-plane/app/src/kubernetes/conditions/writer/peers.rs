//! What the other replicas' sidecars make of the configuration: asked for at their administrator's port.
//!
//! Invariant: a replica that does not answer costs a deadline, never a wrong count for long: its last
//! answer counts for a minute, and then it is left out.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::super::reach::Summary;
use crate::kubernetes::replicas::Others;

/// Deadline of one answer. Source: Weft's own; it is made in memory.
const DEADLINE: Duration = Duration::from_secs(2);
/// Largest answer. Source: the summary's own bounds, times four.
const ANSWER: usize = 2 * 1024 * 1024;
/// How long an answer counts. Source: Weft's own; a replica that restarts is back before.
const MEMORY: Duration = Duration::from_secs(60);

/// The other replicas.
pub(super) struct Peers {
    others: Others,
    port: u16,
    answers: BTreeMap<IpAddr, (Instant, Summary)>,
}

impl Peers {
    pub(super) fn new(others: Others, port: u16) -> Self {
        Self { others, port, answers: BTreeMap::new() }
    }

    /// Asks all of them.
    pub(super) async fn ask(&mut self) -> Vec<Summary> {
        let listed = self.others.list().await;
        let now = Instant::now();
        match listed {
            Ok(others) => {
                let addresses: Vec<IpAddr> = others.into_iter().map(|(_, address)| address).collect();
                self.answers.retain(|address, _| addresses.contains(address));
                let port = self.port;
                let asked = addresses.into_iter().map(|address| async move {
                    let answer = tokio::time::timeout(DEADLINE, summary(SocketAddr::new(address, port)));
                    (address, answer.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
                });
                for (address, answer) in futures_util::future::join_all(asked).await {
                    match answer {
                        Ok(summary) => drop(self.answers.insert(address, (now, summary))),
                        Err(error) => {
                            tracing::debug!(%address, %error, "a replica does not tell its sidecars")
                        }
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "the other replicas cannot be listed"),
        }
        self.answers.retain(|_, (at, _)| now.saturating_duration_since(*at) < MEMORY);
        self.answers.values().map(|(_, summary)| summary.clone()).collect()
    }
}

async fn summary(address: SocketAddr) -> io::Result<Summary> {
    let socket = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(io::Error::other)?;
    let request = http::Request::get("/reach")
        .header(http::header::HOST, address.to_string())
        .body(Empty::<bytes::Bytes>::new())
        .map_err(io::Error::other)?;
    // It ends with the sender, or with the deadline's abort of both.
    let driver = Aborted(tokio::spawn(connection));
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    if answer.status() != http::StatusCode::OK {
        return Err(io::Error::other(answer.status().to_string()));
    }
    let body = Limited::new(answer.into_body(), ANSWER).collect().await.map_err(io::Error::other)?;
    drop(driver);
    serde_json::from_slice(&body.to_bytes()).map_err(io::Error::other)
}

/// A task that ends when this is dropped.
struct Aborted<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Aborted<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

//! The other replicas: each knows sidecars of its own, and is asked for what they say.
//!
//! Invariant: a replica proves to be the control plane before it is told a question.
//! Invariant: one that does not answer is named, and costs a deadline.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use weft_proto::v1;
use weft_proto::v1::observe_client::ObserveClient;

use super::hub::{Heard, Word};
use super::service::MESSAGE_LIMIT;
use crate::kubernetes::replicas::Others;

/// Time for the list of replicas, and for a connection with its handshake. Source: Weft's own; a cluster's
/// own network.
const DEADLINE: Duration = Duration::from_secs(2);

/// The other replicas.
pub struct Replicas {
    others: Others,
    port: u16,
    tls: Arc<ClientConfig>,
}

impl Replicas {
    /// These, at the port of their gRPC services.
    pub(crate) fn new(others: Others, port: u16, tls: ClientConfig) -> Self {
        Self { others, port, tls: Arc::new(tls) }
    }

    /// Asks all of them in the background; gives their names.
    pub(super) async fn ask(&self, question: &v1::Question, told: &mpsc::Sender<Heard>) -> Vec<String> {
        let question = v1::Question { relayed: true, ..question.clone() };
        let mut names = Vec::new();
        for (name, address) in self.others().await {
            let who = format!("replica {name}");
            names.push(who.clone());
            let (question, told) = (question.clone(), told.clone());
            let (address, tls) = (SocketAddr::new(address, self.port), Arc::clone(&self.tls));
            tokio::spawn(async move {
                let last = tokio::select! {
                    end = relay(address, tls, question, &who, &told) => match end {
                        Ok(()) => Word::Done,
                        Err(why) => Word::Silent(why),
                    },
                    () = told.closed() => return,
                };
                let _ = told.send(Heard { who, what: last }).await;
            });
        }
        names
    }

    async fn others(&self) -> Vec<(String, IpAddr)> {
        let why = match timeout(DEADLINE, self.others.list()).await {
            Ok(Ok(others)) => return others,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", DEADLINE.as_secs()),
        };
        tracing::warn!(why, "the other replicas cannot be listed; their sidecars are left out");
        Vec::new()
    }
}

async fn relay(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    question: v1::Question,
    who: &str,
    told: &mpsc::Sender<Heard>,
) -> Result<(), String> {
    let channel = timeout(DEADLINE, connect(address, tls)).await;
    let channel = channel.map_err(|_| "it cannot be reached in time")?.map_err(|error| chain(&error))?;
    let mut client = ObserveClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
    let answer = timeout(DEADLINE, client.ask(question)).await;
    let answer = answer.map_err(|_| "it does not answer")?;
    let mut findings = answer.map_err(|status| status.message().to_owned())?.into_inner();
    while let Some(finding) = findings.message().await.map_err(|status| status.message().to_owned())? {
        let what = Word::Found(Box::new(finding));
        if told.send(Heard { who: who.to_owned(), what }).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn connect(address: SocketAddr, tls: Arc<ClientConfig>) -> Result<Channel, tonic::transport::Error> {
    // The connector goes where the address says; the name is for the request line only.
    let endpoint = Endpoint::from_static("http://weft-control-plane");
    let connector = tower::service_fn(move |_: http::Uri| open(address, Arc::clone(&tls)));
    endpoint.connect_with_connector(connector).await
}

async fn open(address: SocketAddr, tls: Arc<ClientConfig>) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let socket = TcpStream::connect(address).await?;
    let _ = socket.set_nodelay(true);
    let name = ServerName::IpAddress(address.ip().into());
    TlsConnector::from(tls).connect(name, socket).await.map(TokioIo::new)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

//! The other replicas: each knows sidecars of its own, and is asked for what they say.
//!
//! Invariant: a replica proves to be the control plane before it is told a question.
//! Invariant: one that does not answer is named, and costs a deadline.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
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

/// What marks a replica. Source: the installation's labels.
const LABELS: &str = "app.kubernetes.io/name=weft-control-plane";
/// Time for the list of replicas, and for a connection with its handshake. Source: Weft's own; a cluster's
/// own network.
const DEADLINE: Duration = Duration::from_secs(2);
/// Replicas that are asked. Source: Weft's own; an installation has two or three.
const REPLICAS: usize = 16;

/// The other replicas.
pub struct Replicas {
    api: Api<Pod>,
    /// This replica's own pod.
    own: String,
    port: u16,
    tls: Arc<ClientConfig>,
}

impl Replicas {
    /// Those in the namespace of `api`, but the pod `own`, at the port of their gRPC services.
    pub fn new(api: Api<Pod>, own: String, port: u16, tls: ClientConfig) -> Self {
        Self { api, own, port, tls: Arc::new(tls) }
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
        let params = ListParams::default().labels(LABELS);
        let listed = timeout(DEADLINE, self.api.list(&params)).await;
        let pods = match listed {
            Ok(Ok(pods)) => pods.items,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the other replicas cannot be listed; their sidecars are left out");
                return Vec::new();
            }
            Err(_) => return Vec::new(),
        };
        let other = |pod: Pod| {
            let name = pod.metadata.name?;
            let status = pod.status?;
            let running = status.phase.as_deref() == Some("Running") && name != self.own;
            let address = status.pod_ip.filter(|_| running)?.parse().ok()?;
            Some((name, address))
        };
        pods.into_iter().filter_map(other).take(REPLICAS).collect()
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

//! Asking the mesh: through a cluster's API server, or a stand-alone control plane directly.
//!
//! Where it stands: below `stat`, `tap` and `explain --request`. The control plane asks the sidecars.
//!
//! Invariant: nothing is changed anywhere; who may ask is not decided here.

mod aggregated;
mod subject;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use tonic::Code;
use weft_proto::names::{SpiffeId, Workload};
use weft_proto::v1;
use weft_proto::v1::finding::Found;
use weft_proto::v1::observe_client::ObserveClient;
use weft_proxy::settings::ControlPlane;
use weft_proxy::visit::{JoinToken, MAX_MESSAGE, Pass, Visit};

use crate::cluster::{ConnectArgs, explain};
pub(crate) use subject::{Target, by, end};

/// Namespace and account of the control plane where nothing else is said. Source: the installation's.
const OWN: (&str, &str) = ("weft-system", "weft-control-plane");

/// Which mesh, and as whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct MeshArgs {
    /// Only sidecars of this namespace are asked, and what they saw is shown. Default: the kubeconfig's
    /// namespace; of a stand-alone control plane all.
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// All namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    all_namespaces: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Ask this stand-alone control plane, HOST:PORT of its gRPC services, and no cluster.
    #[arg(long, value_name = "HOST:PORT", env = "WEFT_CONTROL_PLANE")]
    control_plane: Option<ControlPlane>,
    /// PEM file with the roots that vouch for the stand-alone control plane.
    #[arg(long, value_name = "FILE", env = "WEFT_TRUST_ANCHORS", requires = "control_plane")]
    trust_anchors: Option<PathBuf>,
    /// The identity that the stand-alone control plane must prove.
    #[arg(long, value_name = "SPIFFE-ID", env = "WEFT_CONTROL_PLANE_IDENTITY", requires = "control_plane")]
    control_plane_identity: Option<SpiffeId>,
    /// Trust domain of the stand-alone control plane.
    #[arg(long, value_name = "NAME", env = "WEFT_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// File with a join token for an identity that the control plane was started with as --observer.
    #[arg(long, value_name = "FILE", env = "WEFT_JOIN_TOKEN_FILE", requires = "control_plane")]
    join_token_file: Option<PathBuf>,
    /// Whom the join token speaks for, NAMESPACE/NAME.
    #[arg(long = "as", value_name = "NAMESPACE/NAME", default_value = "weft-system/observer")]
    visitor: Workload,
    /// PEM file with a certificate of the mesh, instead of a join token.
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "join_token_file")]
    certificate: Option<PathBuf>,
    /// PEM file with the certificate's key.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

/// A way to ask, opened once.
pub(crate) enum Mesh {
    /// A cluster's API server.
    Cluster(kube::Client),
    /// A stand-alone control plane.
    Direct(Box<ObserveClient<tonic::transport::Channel>>),
}

/// What comes back, part by part.
pub(crate) enum Findings {
    /// Lines of JSON.
    Lines(aggregated::Lines),
    /// Messages.
    Messages(Box<tonic::Streaming<v1::Finding>>),
}

impl MeshArgs {
    /// The namespace that is meant, of `mesh` and for what is asked about; empty: all of them.
    pub(crate) fn namespace(&self, mesh: &Mesh, about: Option<&Target>) -> String {
        match (&self.namespace, self.all_namespaces, mesh) {
            (Some(namespace), ..) => namespace.clone(),
            (None, true, _) => String::new(),
            (None, false, mesh) => about.and_then(Target::place).unwrap_or_else(|| match mesh {
                Mesh::Cluster(client) => client.default_namespace().to_owned(),
                Mesh::Direct(_) => String::new(),
            }),
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// There is nobody to ask, or it cannot be reached.
    ///
    /// # Cancel safety
    /// Nothing is lost but a join token's use.
    pub(crate) async fn open(&self) -> anyhow::Result<Mesh> {
        let Some(control_plane) = self.control_plane.clone() else {
            return Ok(Mesh::Cluster(self.connect.client().await?));
        };
        let anchors = self.trust_anchors.clone().context("--control-plane needs --trust-anchors FILE")?;
        let pass = match (&self.certificate, &self.key, &self.join_token_file) {
            (Some(certificate), Some(key), _) => {
                Pass::Files { certificate: certificate.clone(), key: key.clone() }
            }
            (_, _, Some(file)) => {
                Pass::Token { workload: self.visitor.clone(), token: JoinToken::File(file.clone()) }
            }
            _ => bail!(
                "--control-plane needs --join-token-file FILE, or --certificate FILE and --key FILE, of an \
                 identity that it was started with as --observer"
            ),
        };
        let (namespace, service_account) = OWN;
        let identity = self.control_plane_identity.clone().unwrap_or_else(|| SpiffeId {
            trust_domain: self.trust_domain.clone(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        });
        let channel = Visit { control_plane, identity, anchors, pass }.connect().await?;
        let client = ObserveClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        Ok(Mesh::Direct(Box::new(client)))
    }
}

impl Mesh {
    /// Asks.
    ///
    /// # Errors
    /// The question is refused; the message says why and what to do.
    ///
    /// # Cancel safety
    /// Dropping it ends the question.
    pub(crate) async fn ask(&self, question: v1::Question) -> anyhow::Result<Findings> {
        match self {
            Self::Cluster(client) => Ok(Findings::Lines(aggregated::ask(client, &question).await?)),
            Self::Direct(client) => {
                let answer = client.as_ref().clone().ask(question).await.map_err(refused)?;
                Ok(Findings::Messages(Box::new(answer.into_inner())))
            }
        }
    }
}

impl Findings {
    /// The next part; `None`: that was all.
    ///
    /// # Errors
    /// It broke off.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<v1::Finding>> {
        match self {
            Self::Lines(lines) => lines.next().await,
            Self::Messages(messages) => messages.message().await.map_err(refused),
        }
    }
}

fn refused(status: tonic::Status) -> anyhow::Error {
    match status.code() {
        Code::PermissionDenied | Code::InvalidArgument | Code::ResourceExhausted => {
            anyhow::anyhow!("the control plane refuses: {}", status.message())
        }
        Code::Unimplemented => {
            anyhow::anyhow!("the control plane does not know such questions: upgrade it")
        }
        _ => anyhow::anyhow!("the control plane's answer broke off: {}", status.message()),
    }
}

/// What was heard beside the answer itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Beside {
    /// Who was asked.
    pub(crate) asked: v1::Asked,
    /// Who did not answer.
    pub(crate) silent: Vec<v1::Silent>,
}

impl Beside {
    /// Notes a part that is not the answer; gives back one that is.
    pub(crate) fn note(&mut self, found: Found) -> Option<Found> {
        match found {
            Found::Asked(asked) => {
                self.asked.sidecars += asked.sidecars;
                self.asked.older += asked.older;
                self.asked.replicas = self.asked.replicas.max(asked.replicas);
                None
            }
            Found::Silent(silent) => {
                self.silent.push(silent);
                None
            }
            other => Some(other),
        }
    }

    /// What a person should know of it, line by line; `namespace` empty: all.
    pub(crate) fn lines(&self, namespace: &str) -> Vec<String> {
        let mut lines = Vec::new();
        if self.asked.sidecars + self.asked.older == 0 {
            let place =
                if namespace.is_empty() { "the mesh".to_owned() } else { format!("namespace {namespace}") };
            lines.push(format!(
                "no sidecar of {place} that this concerns is connected (see `weft status`; -n or -A for others)"
            ));
        }
        if self.asked.older > 0 {
            lines.push(format!(
                "{} sidecar(s) are too old to be asked: restart their pods after an upgrade",
                self.asked.older
            ));
        }
        lines.extend(
            self.silent.iter().map(|silent| format!("no answer from {}: {}", silent.who, silent.why)),
        );
        lines
    }
}

//! Who looks at a mesh: a program with a certificate of its own, that asks the control plane.
//!
//! Invariant: it comes by its certificate as `weft stat` does.

use tonic::transport::Channel;
use weft_proto::v1;
use weft_proto::v1::finding::Found;
use weft_proto::v1::observe_client::ObserveClient;
use weft_proxy::visit::{JoinToken, Pass, Visit};

use super::look::in_time;
use super::{Mesh, Plan, Pod};

/// A visitor.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// The connection, with the visitor's certificate.
    pub channel: Channel,
}

/// An answer that comes bit by bit.
#[derive(Debug)]
pub struct Findings(Box<tonic::Streaming<v1::Finding>>);

impl Plan {
    /// Adds `observer-0`: it runs nowhere, and its identity may look at the mesh.
    #[must_use]
    pub fn observer(self) -> Self {
        let identity = "spiffe://cluster.local/ns/test/sa/observer";
        self.pod(Pod::named("observer-0").not_started()).control_plane("--observer", identity)
    }
}

impl Mesh {
    /// Visits the control plane with the identity of a pod of this mesh.
    ///
    /// # Cancel safety
    /// Dropped, nothing is open.
    pub async fn visit(&self, pod: &str) -> Visitor {
        let pod = self.pods.iter().find(|known| known.name == pod).expect("a pod of this mesh");
        let address = self.grpc.expect("a control plane that ran").to_string();
        let visit = Visit {
            control_plane: address.parse().unwrap(),
            identity: "spiffe://cluster.local/ns/weft-system/sa/weft-control-plane".parse().unwrap(),
            anchors: self.anchors(),
            pass: Pass::Token {
                workload: format!("test/{}", pod.name).parse().unwrap(),
                token: JoinToken::given(&pod.token()),
            },
        };
        Visitor { channel: in_time("a visitor's connection", visit.connect()).await.unwrap() }
    }
}

impl Visitor {
    /// Asks.
    ///
    /// # Errors
    /// The control plane's refusal.
    ///
    /// # Cancel safety
    /// Dropped, the question is over.
    pub async fn ask(&self, question: v1::Question) -> Result<Findings, tonic::Status> {
        let mut client = ObserveClient::new(self.channel.clone());
        let asked = in_time("an answer to a question", Box::pin(client.ask(question))).await;
        asked.map(|answer| Findings(Box::new(answer.into_inner())))
    }

    /// Asks what `what` says of namespace `test`.
    ///
    /// # Cancel safety
    /// Dropped, the question is over.
    pub async fn look(&self, what: v1::question::What) -> Findings {
        let namespace = "test".to_owned();
        let question = v1::Question { namespace, what: Some(what), ..v1::Question::default() };
        self.ask(question).await.unwrap()
    }
}

impl Findings {
    /// The next part; `None`: that was all.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<v1::Finding> {
        in_time("the next part of an answer", self.0.message()).await.unwrap()
    }

    /// All parts until the end.
    ///
    /// # Cancel safety
    /// What came is lost.
    pub async fn all(mut self) -> Vec<v1::Finding> {
        let mut all = Vec::new();
        while let Some(finding) = self.next().await {
            all.push(finding);
        }
        all
    }

    /// The edges of an answer, and who was silent.
    ///
    /// # Cancel safety
    /// What came is lost.
    pub async fn edges(self) -> (v1::Edges, Vec<v1::Silent>) {
        let (mut edges, mut silent) = (v1::Edges::default(), Vec::new());
        for finding in self.all().await {
            match finding.found {
                Some(Found::Edges(told)) => edges = told,
                Some(Found::Silent(one)) => silent.push(one),
                _ => {}
            }
        }
        (edges, silent)
    }

    /// The next decision, with the sidecar that tells it, and how many are missing before it.
    ///
    /// # Cancel safety
    /// What came is lost.
    pub async fn decisions(&mut self) -> (String, v1::Decisions) {
        loop {
            let finding = self.next().await.expect("a tap that goes on");
            match finding.found {
                Some(Found::Decisions(decisions)) => return (finding.workload, decisions),
                Some(Found::Silent(silent)) => panic!("{} says nothing: {}", silent.who, silent.why),
                _ => {}
            }
        }
    }
}

//! Traces of real sidecars, read back from a real Jaeger and a real Zipkin.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "tracing/policy.rs"]
mod policy;
#[path = "tracing/shape.rs"]
mod shape;
#[path = "tracing/trouble.rs"]
mod trouble;
#[path = "tracing/zipkin.rs"]
mod zipkin;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, Request};
use weft_cluster::{part, skip};
use weft_tests::mesh;
use weft_tests::mesh::{App, Http, Mesh, Plan, Pod, reply};

/// Jaeger's program; `None`, said loudly, where it cannot be built.
fn jaeger() -> Option<PathBuf> {
    match part::JAEGER.folder() {
        Ok(folder) => Some(folder.join("jaeger")),
        Err(error) => {
            skip::say(&format!("{error:#}"));
            None
        }
    }
}

/// A TelemetryPolicy for the whole mesh: `tracing` is what it says of traces.
fn policy(tracing: &str) -> String {
    policy_of("mesh", "weft-system", "kind: Mesh", tracing)
}

/// A TelemetryPolicy.
fn policy_of(name: &str, namespace: &str, target: &str, tracing: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: TelemetryPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{targetRefs: [{{{target}}}], tracing: {{{tracing}}}}}\n"
    )
}

/// Where the front's application reaches the back: known once its sidecar runs.
type Door = Arc<OnceLock<SocketAddr>>;

/// An application that asks the back at its door and answers what that answers; it passes on trace fields if
/// `forwards`.
async fn front(door: &Door, forwards: bool) -> App {
    let door = door.clone();
    App::http(move |request| {
        let door = door.clone();
        async move {
            let mut call = Request::get(request.uri().path());
            for name in ["traceparent", "tracestate", "b3"] {
                if let Some(value) = request.headers().get(name).filter(|_| forwards) {
                    call = call.header(name, value);
                }
            }
            let mut http = Http::open(*door.get().unwrap()).await;
            match http.send(call, Bytes::new()).await {
                Ok(answer) => reply(answer.status, answer.body),
                Err(_) => reply(502, "the back is gone"),
            }
        }
    })
    .await
}

/// client → front → back: applications, doors and a plan with a policy.
struct Chain {
    _front: App,
    _back: App,
    mesh: Mesh,
}

impl Chain {
    /// A chain whose back answers everything with 200, under manifests.
    async fn start(forwards: bool, policy: &str) -> Self {
        Self::over(App::saying("goods").await, forwards, policy, |plan| plan).await
    }

    async fn over(back: App, forwards: bool, policy: &str, more: impl FnOnce(Plan) -> Plan) -> Self {
        let door = Door::default();
        let front = front(&door, forwards).await;
        let plan = mesh!()
            .service("front", 8080, Some("http"))
            .service("back", 8080, Some("http"))
            .pod(Pod::named("client-0").calls("front:8080"))
            .pod(Pod::named("front-0").serves(8080, front.address).calls("back:8080"))
            .pod(Pod::named("back-0").serves(8080, back.address))
            .manifest("telemetry.yaml", policy);
        let mesh = more(plan).start().await;
        door.set(mesh.door("front-0", "back:8080")).unwrap();
        Self { _front: front, _back: back, mesh }
    }

    /// One request through the whole chain.
    async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap) {
        let mut http = Http::open(self.mesh.door("client-0", "front:8080")).await;
        let request =
            headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        let answer = http.send(request, Bytes::new()).await.unwrap();
        (answer.status, answer.headers)
    }

    /// One request of a trace whose id is told.
    async fn traced(&self, path: &str) -> (String, u16) {
        let id = trace_id();
        let parent = format!("00-{id}-00f067aa0ba902b7-01");
        let (status, _) = self.ask(path, &[("traceparent", &parent)]).await;
        (id, status)
    }
}

/// An id that no other trace of this machine has.
fn trace_id() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let random = || std::hash::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random() | 1)
}

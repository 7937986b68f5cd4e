//! One AdmissionReview: bytes in, answer out.
//!
//! Before it: `serve` has read the whole body. After it: the answer travels back, a refusal becomes an
//! event.
//!
//! Invariant: no input panics; what is no AdmissionReview is an error in words, everything else is
//! answered with the uid it came with.

use base64::Engine as _;
use k8s_openapi::api::core::v1::ObjectReference;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weft_control_plane_core::inject::{Decision, INJECT, Injector, NamespaceFacts, Skip};

use super::metrics::Outcome;

/// The version that is spoken. Source: the Kubernetes API, admission.k8s.io/v1.
const VERSION: &str = "admission.k8s.io/v1";
/// Status of a blocked pod. Source: RFC 9110 §15.5.4.
const FORBIDDEN: u16 = 403;

/// What the API server asks, as far as it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    request: Option<Request>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    kind: RequestKind,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(default)]
    object: Value,
}

#[derive(Debug, Default, Deserialize)]
struct RequestKind {
    #[serde(default)]
    kind: String,
}

/// The answer, as it is sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Status {
    code: u16,
    message: String,
}

/// What is sent back, and what is to be told besides.
#[derive(Debug)]
pub struct Answer {
    /// The AdmissionReview, JSON.
    pub body: Vec<u8>,
    /// What became of the pod.
    pub outcome: Outcome,
    /// Why a pod that should have a sidecar has none; absent in a dry run.
    pub refusal: Option<Refusal>,
}

/// A pod that should have a sidecar and cannot.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Whom to tell: what owns the pod, for a pod that is about to be made has no name yet.
    pub about: ObjectReference,
    /// What stands in the way.
    pub reason: String,
}

/// Answers one review. `namespace` tells what is known of a namespace.
///
/// # Errors
/// The bytes are no AdmissionReview of a version that is spoken.
pub fn answer(
    body: &[u8],
    injector: &Injector,
    namespace: &dyn Fn(&str) -> NamespaceFacts,
) -> Result<Answer, String> {
    let review: Review =
        serde_json::from_slice(body).map_err(|error| format!("this is no AdmissionReview: {error}"))?;
    if review.api_version != VERSION {
        return Err(format!("AdmissionReview of {:?} is not spoken, only {VERSION}", review.api_version));
    }
    let request = review.request.ok_or("this AdmissionReview has no request")?;
    let is_pod = request.kind.kind == "Pod" && request.sub_resource.as_deref().unwrap_or("").is_empty();
    if !is_pod || request.operation != "CREATE" {
        let reason = format!("only the creation of pods is looked at, not {:?}", request.operation);
        return Ok(request.allow(Outcome::Skipped, vec![format!("weft: {reason}")]));
    }
    let facts = namespace(&request.namespace);
    match injector.decide(&request.object, &facts) {
        Decision::Skip(skip) => Ok(request.allow(Outcome::Skipped, skipped(skip, &request.object))),
        Decision::Refuse(reason) => Ok(request.refuse(reason, injector.config().block_refused)),
        Decision::Inject(injected) => request.patch(&injected.pod, injected.warnings),
    }
}

/// Only who asked for a sidecar is told why there is none.
fn skipped(skip: Skip, pod: &Value) -> Vec<String> {
    let said =
        |part: &str| pod.pointer(&format!("/metadata/{part}")).is_some_and(|map| map.get(INJECT).is_some());
    let asked = said("labels") || said("annotations");
    match skip {
        Skip::Namespace | Skip::Mirror if asked => vec![format!("weft: not injected: {}", skip.text())],
        _ => Vec::new(),
    }
}

impl Request {
    fn allow(&self, outcome: Outcome, warnings: Vec<String>) -> Answer {
        let response = Response { warnings, ..self.response() };
        Answer { body: encode(response), outcome, refusal: None }
    }

    fn patch(&self, pod: &Value, warnings: Vec<String>) -> Result<Answer, String> {
        let patch = json_patch::diff(&self.object, pod);
        let patch = serde_json::to_vec(&patch).map_err(|error| error.to_string())?;
        let response = Response {
            patch_type: Some("JSONPatch"),
            patch: Some(base64::engine::general_purpose::STANDARD.encode(patch)),
            warnings: warnings.into_iter().map(|warning| format!("weft: {warning}")).collect(),
            ..self.response()
        };
        Ok(Answer { body: encode(response), outcome: Outcome::Injected, refusal: None })
    }

    fn refuse(&self, reason: String, block: bool) -> Answer {
        let told = format!("weft: no sidecar was injected: {reason}");
        let response = if block {
            let status = Some(Status { code: FORBIDDEN, message: told });
            Response { allowed: false, status, ..self.response() }
        } else {
            Response { warnings: vec![told], ..self.response() }
        };
        let about = self.about();
        let refusal = (self.dry_run != Some(true)).then_some(Refusal { about, reason });
        Answer { body: encode(response), outcome: Outcome::Refused, refusal }
    }

    fn response(&self) -> Response {
        Response {
            uid: self.uid.clone(),
            allowed: true,
            status: None,
            patch_type: None,
            patch: None,
            warnings: Vec::new(),
        }
    }

    /// What owns the pod, else the pod itself.
    fn about(&self) -> ObjectReference {
        let owners = self.object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let owner =
            owners.into_iter().flatten().find(|owner| owner.get("controller") == Some(&Value::Bool(true)));
        let namespace = Some(self.namespace.clone());
        if let Some(owner) = owner {
            let text = |name: &str| owner.get(name).and_then(Value::as_str).map(str::to_owned);
            return ObjectReference {
                api_version: text("apiVersion"),
                kind: text("kind"),
                name: text("name"),
                uid: text("uid"),
                namespace,
                ..ObjectReference::default()
            };
        }
        let of_object = |name: &str| {
            self.object.pointer(&format!("/metadata/{name}")).and_then(Value::as_str).map(str::to_owned)
        };
        let name = self.name.clone().filter(|name| !name.is_empty());
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: name.or_else(|| of_object("name")).or_else(|| of_object("generateName")),
            namespace,
            ..ObjectReference::default()
        }
    }
}

fn encode(response: Response) -> Vec<u8> {
    let reply = Reply { api_version: VERSION, kind: "AdmissionReview", response };
    // Text and flags only: nothing in it can fail to be JSON.
    serde_json::to_vec(&reply).unwrap_or_default()
}

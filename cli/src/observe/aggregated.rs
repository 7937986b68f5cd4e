//! The aggregated API of a cluster: a question as JSON within the target, an answer of JSON lines.
//!
//! Invariant: a line is bounded; what the API server refuses is said with what is missing.

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Client;
use kube::client::Body;
use weft_proto::v1;
use weft_proto::v1::question::What;

use super::explain;

/// The API. Source: the chart's APIService.
const API: &str = "/apis/observe.weft.dev/v1alpha1";
/// Longest line. Source: the edges of a large mesh, 1 KiB each.
const LINE: usize = 64 << 20;
/// Longest refusal that is read. Source: Kubernetes' own are far shorter.
const REFUSAL: usize = 64 << 10;

/// An answer's lines.
pub(crate) struct Lines {
    body: Body,
    held: BytesMut,
}

/// Asks.
pub(super) async fn ask(client: &Client, question: &v1::Question) -> anyhow::Result<Lines> {
    let (resource, watch) = match &question.what {
        Some(What::Stat(_)) => ("stats", ""),
        Some(What::Tap(_)) => ("taps", "/watch"),
        Some(What::Recall(_)) => ("decisions", ""),
        Some(What::Explain(_)) => ("explanations", ""),
        None => bail!("nothing is asked"),
    };
    let namespace = match question.namespace.as_str() {
        "" => String::new(),
        namespace => format!("/namespaces/{namespace}"),
    };
    let asked = URL_SAFE_NO_PAD.encode(serde_json::to_vec(question)?);
    let request = http::Request::get(format!("{API}{watch}{namespace}/{resource}?question={asked}"))
        .body(Body::empty())?;
    let answer = client.send(request).await.map_err(explain)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(Lines { body: answer.into_body(), held: BytesMut::new() });
    }
    let body = http_body_util::Limited::new(answer.into_body(), REFUSAL).collect().await;
    let text = body.map(|body| body.to_bytes()).unwrap_or_default();
    Err(refused(status.as_u16(), &text, &question.namespace))
}

/// What to do about a refusal.
fn refused(code: u16, body: &Bytes, namespace: &str) -> anyhow::Error {
    let said = serde_json::from_slice::<Status>(body).ok().and_then(|status| status.message);
    let said = said.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    match code {
        401 => anyhow!("the API server does not know you, or its front proxy is not known to Weft: {said}"),
        403 => {
            let bind = if namespace.is_empty() {
                "kubectl create clusterrolebinding NAME --clusterrole=weft-observer --user=YOU".to_owned()
            } else {
                format!(
                    "kubectl create rolebinding NAME --namespace={namespace} --clusterrole=weft-observer --user=YOU"
                )
            };
            anyhow!("not permitted: {said}; who may grant it: {bind}")
        }
        404 => anyhow!(
            "the cluster does not serve observe.weft.dev: is Weft installed, and not older than this program? \
             (kubectl get apiservice v1alpha1.observe.weft.dev)"
        ),
        503 => anyhow!(
            "the control plane cannot be asked: {said} (kubectl get apiservice v1alpha1.observe.weft.dev says why)"
        ),
        _ => anyhow!("the API server refuses ({code}): {said}"),
    }
}

impl Lines {
    /// The next finding.
    ///
    /// # Errors
    /// The answer broke off, or is none.
    ///
    /// # Cancel safety
    /// What was read is kept.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<v1::Finding>> {
        loop {
            while let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
                let line = self.held.split_to(end);
                self.held.advance(1);
                // An empty line only says that the connection lives.
                if !line.is_empty() {
                    return serde_json::from_slice(&line).map(Some).context("an answer is not understood");
                }
            }
            if self.held.len() > LINE {
                bail!("an answer has a line of more than {LINE} bytes");
            }
            match self.body.frame().await {
                Some(frame) => {
                    let frame = frame.map_err(explain).context("the answer broke off")?;
                    self.held.extend(frame.into_data().unwrap_or_default());
                }
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static str) -> Lines {
        Lines { body: Body::from(text.as_bytes().to_vec()), held: BytesMut::new() }
    }

    #[tokio::test]
    async fn findings_come_line_by_line_and_empty_lines_are_nothing() {
        let mut lines = lines("{\"workload\":\"shop/a\",\"found\":{\"asked\":{\"sidecars\":2}}}\n\n\n{}\n");
        let first = lines.next().await.unwrap().unwrap();
        assert_eq!(first.workload, "shop/a");
        assert!(matches!(first.found, Some(v1::finding::Found::Asked(v1::Asked { sidecars: 2, .. }))));
        assert_eq!(lines.next().await.unwrap().unwrap(), v1::Finding::default());
        assert!(lines.next().await.unwrap().is_none());
        assert!(super::tests::lines("no json\n").next().await.is_err());
    }

    #[test]
    fn a_refusal_names_what_is_missing() {
        let status = br#"{"kind":"Status","apiVersion":"v1","message":"stats is forbidden","code":403}"#;
        let text = refused(403, &Bytes::from_static(status), "shop").to_string();
        assert!(
            text.contains("stats is forbidden") && text.contains("--clusterrole=weft-observer"),
            "{text}"
        );
        assert!(text.contains("--namespace=shop"), "{text}");
        assert!(refused(403, &Bytes::new(), "").to_string().contains("clusterrolebinding"));
        assert!(refused(404, &Bytes::new(), "").to_string().contains("is Weft installed"));
    }
}

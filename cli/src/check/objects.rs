//! A cluster's objects, compiled here as the control plane compiles them, and what is the matter with them.
//!
//! Invariant: read only; what the asker may not list is a finding with a remedy.

use anyhow::Context as _;
use kube::Client;
use serde_json::Value;
use weft_control_plane::kubernetes::watch::kinds::{WATCHED, Watched};
use weft_control_plane::kubernetes::watch::sight::{Sight, see};
use weft_control_plane_core::build;
use weft_control_plane_core::lint::{Check, Lint, lint};
use weft_control_plane_core::model::Model;

use super::{Finding, Findings, manifests};
use crate::cluster::explain;

/// Objects of one page of a list. Source: client-go's default.
const PAGE: usize = 500;

/// Looks at all of them.
pub(super) async fn look(client: &Client) -> Vec<Finding> {
    let mut findings = Findings::of("Objects");
    match model(client).await {
        Ok(model) => {
            let compiled = build(&model);
            let all = lint(&model, &compiled);
            // What is not in force is told by the control plane, which knows what sidecars refuse as well.
            let beyond: Vec<&Lint> =
                all.iter().filter(|lint| !matches!(lint.check, Check::NotInForce | Check::Warning)).collect();
            manifests::told(&beyond, &mut findings);
            findings.list.retain(|finding| finding.check != "configuration");
        }
        Err(error) => {
            let remedy = "ask someone who may list pods, services, endpoint slices, routes and policies";
            findings.warn("objects", format!("not looked at: {error:#}"), remedy);
        }
    }
    findings.list
}

async fn model(client: &Client) -> anyhow::Result<Model> {
    let mut model = Model::default();
    for watched in WATCHED.iter().filter(|watched| !watched.metadata_only()) {
        for version in watched.versions {
            if list(client, watched, version, &mut model).await? {
                break;
            }
        }
    }
    Ok(model)
}

/// Lists the objects of a kind; `false`: this version of it is not served.
async fn list(client: &Client, watched: &Watched, version: &str, model: &mut Model) -> anyhow::Result<bool> {
    let mut more = String::new();
    loop {
        let path = format!("{}?limit={PAGE}{more}", watched.path(version));
        let request = http::Request::get(&path).body(Vec::new()).context("a request")?;
        let mut page: Value = match client.request(request).await {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
            Err(error) => return Err(explain(error)).with_context(|| format!("listing {}", watched.plural)),
        };
        let items = page.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take);
        for item in items.into_iter().flatten() {
            match see(watched.kind, &watched.api_version(version), item) {
                Some(Sight::Good(object)) => drop(model.apply(*object, None)),
                Some(Sight::Refused { stand_in: Some(object), .. }) => drop(model.apply(*object, None)),
                Some(Sight::Refused { stand_in: None, .. }) | None => {}
            }
        }
        match page.pointer("/metadata/continue").and_then(Value::as_str) {
            // The token is base64 of the URL's alphabet.
            Some(token) if !token.is_empty() => more = format!("&continue={token}"),
            _ => return Ok(true),
        }
    }
}

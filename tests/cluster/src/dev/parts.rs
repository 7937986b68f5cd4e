//! `cargo dev parts`: builds what the cluster's tests need, before they need it.
//!
//! Invariant: says of each part where it is and how long that took.

use std::time::Instant;

use clap::Args;

use crate::part::{
    CONFORMANCE, ECHO, GATEWAY_API, HELM, JAEGER, KUBERNETES, NAME_SERVER, PAUSE, Part, ZIPKIN,
};

/// Every part, those first that carry the packages of others.
const ALL: [&Part; 9] =
    [&KUBERNETES, &NAME_SERVER, &PAUSE, &ECHO, &GATEWAY_API, &CONFORMANCE, &HELM, &JAEGER, &ZIPKIN];

/// Arguments of `cargo dev parts`.
#[derive(Debug, Args)]
pub(super) struct PartsArgs {
    /// Only these: kubernetes, dns, pause, echo, gateway-api, conformance, helm, jaeger, zipkin.
    names: Vec<String>,
}

impl PartsArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        for name in &self.names {
            anyhow::ensure!(ALL.iter().any(|part| part.name == name), "there is no part {name:?}");
        }
        for part in
            ALL.iter().filter(|part| self.names.is_empty() || self.names.iter().any(|name| name == part.name))
        {
            let began = Instant::now();
            let folder = part.folder()?;
            super::say(&format!("{:6.1} s  {}", began.elapsed().as_secs_f32(), folder.display()))?;
        }
        Ok(())
    }
}

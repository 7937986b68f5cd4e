//! A sidecar of a mesh: a process, its addresses, its admin pages and its access log.
//!
//! Invariant: what a test learns of a sidecar it learns as an operator would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

use serde_json::Value;

use super::look::until;
use super::manifest::Pod;
use super::part::Part;
use super::place::Place;
use super::{address, app};

/// A running sidecar.
#[derive(Debug)]
pub struct Sidecar {
    part: Part,
    calls: Vec<String>,
    access_log: PathBuf,
    pub(super) outbound: BTreeMap<String, SocketAddr>,
}

impl Sidecar {
    pub(super) fn spawn(place: &Place, pod: &Pod, control_plane: SocketAddr) -> Self {
        let access_log = place.path(&format!("{}.access.log", pod.name));
        let mut words = vec![
            "proxy".to_owned(),
            format!("--workload=test/{}", pod.name),
            format!("--control-plane={control_plane}"),
            format!("--trust-anchors={}", place.path("trust-anchors.pem").display()),
            format!("--join-token={}", pod.token()),
            format!("--state-dir={}", place.path(&format!("{}.state", pod.name)).display()),
            format!("--admin={}", SocketAddr::new(pod.ip, 0)),
            format!("--access-log-file={}", access_log.display()),
            "--workers=1".to_owned(),
        ];
        words.extend(
            pod.calls
                .iter()
                .map(|service| format!("--outbound={}=test/{service}", SocketAddr::new(pod.ip, 0))),
        );
        words.extend(
            pod.serves
                .iter()
                .map(|(port, target)| format!("--inbound={}={target}", SocketAddr::new(pod.ip, *port))),
        );
        if pod.calls.is_empty() && pod.serves.is_empty() {
            words.push(format!("--transparent-outbound={}", SocketAddr::new(pod.ip, 0)));
        }
        words.extend(pod.flags.iter().cloned());
        let part = Part::spawn(place, &pod.name, &words);
        Self { part, calls: pod.calls.clone(), access_log, outbound: BTreeMap::new() }
    }

    pub(super) async fn ready(&mut self) {
        let ready = self.part.ready().await;
        self.part.admin = Some(address(&ready["admin"]));
        let listeners = ready["listeners"].as_array().unwrap();
        self.outbound = self.calls.iter().cloned().zip(listeners.iter().map(address)).collect();
    }

    /// A page of its admin server.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ask(&self, path: &str) -> String {
        app::text(self.part.admin.unwrap(), path).await
    }

    /// The sum of a metric over all its series whose labels contain all of `labels`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.ask("/metrics").await;
        let of_it = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && labels.iter().all(|l| line.contains(l))
        };
        let values = page.lines().filter(of_it).filter_map(|line| line.rsplit(' ').next());
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    }

    /// What its access log holds so far.
    pub fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.access_log).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The first line of its access log that is as asked, once there is one.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn logged(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(what, async || self.log().into_iter().find(&is_it)).await
    }
}

impl Deref for Sidecar {
    type Target = Part;

    fn deref(&self) -> &Part {
        &self.part
    }
}

impl DerefMut for Sidecar {
    fn deref_mut(&mut self) -> &mut Part {
        &mut self.part
    }
}

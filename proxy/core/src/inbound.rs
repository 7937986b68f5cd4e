//! How this workload receives traffic: mTLS, protocol and policy by port.
//!
//! Adopt compiles it; the rooms `detect` and `authorize` of the inbound side ask it.
//!
//! Invariant: a policy named here whose resource is missing denies everything until it arrives.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::authorize::{Asked, Denial, Peer, Policy, RuleRef, Verdict, judged, together};
use crate::head::Head;
use crate::invalid::Invalid;
use crate::names::{Name, WorkloadName};
use crate::probe::{Probe, Probes, Sent};
use crate::spec::{self, Action, MutualTls, Protocol, ProtocolBy};

/// How one workload receives traffic, compiled.
#[derive(Debug)]
pub struct Inbound {
    /// The workload.
    pub workload: WorkloadName,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// Services that select it, sorted.
    pub services: Vec<Name>,
    /// Name of the owning workload.
    pub owner: Arc<str>,
    /// What the workload tells about its requests; `None`: what the Mesh says.
    pub telemetry: Option<Arc<spec::Telemetry>>,
    mutual_tls: MutualTls,
    /// What says so of mTLS.
    pub(crate) mutual_tls_by: Option<Name>,
    probes: Probes,
    pub(crate) ports: FxHashMap<u16, Port>,
    pub(crate) enforced: Policies,
    /// The enforced ones and those in shadow; `None` when there is none in shadow.
    pub(crate) shadow: Option<Policies>,
}

#[derive(Debug)]
pub(crate) struct Port {
    protocol: Protocol,
    pub(crate) protocol_by: ProtocolBy,
    mutual_tls: MutualTls,
    /// The port has a mode of its own.
    pub(crate) own_mutual_tls: bool,
    service_ports: Vec<Name>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    pub(crate) deny: Vec<Arc<Policy>>,
    pub(crate) allow: Vec<Arc<Policy>>,
    /// Names those that allow; `None`: there are none, and nobody needs leave.
    allowing: Option<RuleRef>,
    pub(crate) missing: Option<Name>,
    /// Names those that look at paths.
    pub(crate) on_paths: Option<Name>,
}

impl Inbound {
    /// Compiles an inbound; `lookup` finds the compiled policies by name.
    ///
    /// # Errors
    /// `Invalid` when a port is 0 or occurs twice.
    pub fn compile(
        spec: &spec::Inbound,
        lookup: impl Fn(&Name) -> Option<Arc<Policy>>,
    ) -> Result<Self, Invalid> {
        let mut ports = FxHashMap::default();
        for port in &spec.ports {
            let compiled = Port {
                protocol: port.protocol,
                protocol_by: port.protocol_by,
                own_mutual_tls: port.mutual_tls.is_some(),
                mutual_tls: port.mutual_tls.unwrap_or(spec.mutual_tls),
                service_ports: port.service_ports.clone(),
            };
            if port.port == 0 || ports.insert(port.port, compiled).is_some() {
                return Err(Invalid::new("ports", format!("port {} is 0 or occurs twice", port.port)));
            }
        }
        let (mut enforced, mut all) = (Policies::default(), Policies::default());
        for name in &spec.authorizations {
            let policy = lookup(name);
            if !policy.as_ref().is_some_and(|policy| policy.shadow) {
                enforced.add(name, policy.as_ref());
            }
            all.add(name, policy.as_ref());
        }
        enforced.name_them();
        all.name_them();
        let shadowed = all.deny.len() + all.allow.len() > enforced.deny.len() + enforced.allow.len();
        let pod = || spec.workload.as_str().rsplit('/').next().unwrap_or_default().into();
        Ok(Self {
            workload: spec.workload.clone(),
            namespace: spec.namespace.clone(),
            service_account: spec.service_account.clone(),
            services: spec.services.clone(),
            owner: if spec.owner.is_empty() { pod() } else { spec.owner.clone() },
            telemetry: spec.telemetry.clone(),
            mutual_tls: spec.mutual_tls,
            mutual_tls_by: spec.mutual_tls_by.clone(),
            probes: Probes::of(spec),
            ports,
            enforced,
            shadow: shadowed.then_some(all),
        })
    }

    /// Whether plaintext is accepted on the port.
    #[must_use]
    pub fn mutual_tls(&self, port: u16) -> MutualTls {
        self.ports.get(&port).map_or(self.mutual_tls, |port| port.mutual_tls)
    }

    /// Declared protocol of the port.
    #[must_use]
    pub fn protocol(&self, port: u16) -> Protocol {
        self.ports.get(&port).map_or(Protocol::Detect, |port| port.protocol)
    }

    /// Service ports that target the port.
    #[must_use]
    pub fn service_ports(&self, port: u16) -> &[Name] {
        self.ports.get(&port).map_or(&[], |port| &port.service_ports)
    }

    /// The probe of the kubelet that this is, if it is one: it passes, whatever the policies say.
    #[must_use]
    pub fn probe(&self, peer: &Peer, port: u16, sent: Sent<'_>) -> Option<Probe> {
        self.probes.find(peer, port, sent)
    }

    /// Whether a request on this connection may be a probe, although the port is declared to be bytes.
    #[must_use]
    pub fn expects_probes(&self, peer: &Peer, port: u16) -> bool {
        self.probes.has_requests(peer, port)
    }

    /// Judges a connection that carries opaque bytes (the application's own TLS among them).
    #[must_use]
    pub fn authorize_connection(&self, peer: &Peer, port: u16) -> Verdict {
        self.judge(&self.enforced, peer, port, Asked::Bytes)
    }

    /// Judges one request.
    #[must_use]
    pub fn authorize_request(&self, peer: &Peer, port: u16, head: &Head<'_>) -> Verdict {
        self.judge_request(&self.enforced, peer, port, head)
    }

    /// What the verdict on a connection would be with the policies in shadow; `None` when the same.
    #[must_use]
    pub fn shadow_connection(&self, peer: &Peer, port: u16) -> Option<Verdict> {
        let shadow = self.judge(self.shadow.as_ref()?, peer, port, Asked::Bytes);
        (shadow.is_allowed() != self.authorize_connection(peer, port).is_allowed()).then_some(shadow)
    }

    /// What the verdict on a request would be with the policies in shadow; `None` when the same.
    #[must_use]
    pub fn shadow_request(&self, peer: &Peer, port: u16, head: &Head<'_>) -> Option<Verdict> {
        let shadow = self.judge_request(self.shadow.as_ref()?, peer, port, head);
        (shadow.is_allowed() != self.authorize_request(peer, port, head).is_allowed()).then_some(shadow)
    }

    fn judge_request(&self, policies: &Policies, peer: &Peer, port: u16, head: &Head<'_>) -> Verdict {
        if policies.is_empty() {
            return self.judge(policies, peer, port, Asked::Bytes);
        }
        match judged(head, policies.on_paths.as_ref()) {
            Ok(path) => self.judge(policies, peer, port, Asked::Request(head.method, &path)),
            Err(by) => Verdict::Denied { by },
        }
    }

    fn judge(&self, policies: &Policies, peer: &Peer, port: u16, asked: Asked<'_>) -> Verdict {
        if peer.identity.is_none() && self.mutual_tls(port) == MutualTls::Strict {
            return Verdict::Denied { by: Denial::MutualTlsRequired(self.mutual_tls_by.clone()) };
        }
        policies.judge(peer, port, asked)
    }
}

impl Policies {
    fn add(&mut self, name: &Name, policy: Option<&Arc<Policy>>) {
        let Some(policy) = policy else {
            self.missing.get_or_insert_with(|| name.clone());
            return;
        };
        match policy.action {
            Action::Allow => self.allow.push(policy.clone()),
            Action::Deny => self.deny.push(policy.clone()),
        }
    }

    /// What a denial will say, so that a request formats nothing.
    fn name_them(&mut self) {
        self.allowing = together(&self.allow).map(RuleRef::of_none);
        let all = self.deny.iter().chain(&self.allow);
        self.on_paths = together(all.filter(|policy| policy.looks_at_paths()));
    }

    fn is_empty(&self) -> bool {
        self.deny.is_empty() && self.allow.is_empty() && self.missing.is_none()
    }

    fn judge(&self, peer: &Peer, port: u16, asked: Asked<'_>) -> Verdict {
        if let Some(missing) = &self.missing {
            return Verdict::Denied { by: Denial::PolicyMissing(missing.clone()) };
        }
        let first = |policies: &[Arc<Policy>]| -> Option<RuleRef> {
            policies.iter().find_map(|policy| policy.matching(peer, port, asked).cloned())
        };
        if let Some(rule) = first(&self.deny) {
            return Verdict::Denied { by: Denial::Rule(rule) };
        }
        match (first(&self.allow), &self.allowing) {
            (None, Some(policies)) => Verdict::Denied { by: Denial::NoRuleAllows(policies.clone()) },
            (by, _) => Verdict::Allowed { by },
        }
    }
}

//! The Lease: which replica writes status, events of routes, the CA bundle and the root.
//!
//! Before it: a client. After it: everyone that writes asks the returned [`Leading`].
//!
//! Invariant: a record is written only over the version that was read, so one of two writers loses.
//! Invariant: leadership ends here, by this machine's own clock, before the record ends elsewhere; no
//! request that hangs can hold it up.
//! Invariant: an ordered end gives the Lease away, so that the next replica need not wait.

mod decide;

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::decide::{Election, RENEW_DEADLINE, RETRY, Step};
use super::counts::Counts;

/// Name of the Lease. Source: the installation's name.
pub const NAME: &str = "weft-control-plane";
/// Deadline of one request. Source: half of the renew deadline leaves room for a second try.
const REQUEST: Duration = Duration::from_secs(5);
/// Deadline of giving the Lease away at the end. Source: the pod's own farewell, 5 s, has other things
/// to do as well.
const FAREWELL: Duration = Duration::from_secs(2);
/// Jitter on the time between two looks, as a part of it. Source: client-go's factor, 1.2.
const JITTER: f64 = 0.2;

/// Whether this replica leads, now and from now on.
pub type Leading = watch::Receiver<bool>;

/// Which Lease, and as whom.
#[derive(Debug, Clone)]
pub struct LeaseSettings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of this replica: its pod's.
    pub identity: String,
}

struct Candidate {
    api: Api<Lease>,
    election: Election,
    /// The Lease as this replica last wrote it: renewed without reading it first.
    held: Option<Lease>,
    identity: String,
    namespace: String,
    origin: Instant,
    leading: watch::Sender<bool>,
    counts: Counts,
}

/// Takes part in the election until stopped. The task ends once the Lease is given away.
///
/// # Cancel safety
/// Aborting the task ends leadership here; elsewhere it ends with the record.
pub fn start(
    client: Client,
    settings: LeaseSettings,
    counts: Counts,
    stop: CancellationToken,
) -> (Leading, JoinHandle<()>) {
    let (leading, receiver) = watch::channel(false);
    let identity = unique(&settings.identity);
    let candidate = Candidate {
        api: Api::namespaced(client, &settings.namespace),
        election: Election::new(identity.clone()),
        held: None,
        identity,
        namespace: settings.namespace,
        origin: Instant::now(),
        leading,
        counts,
    };
    (receiver, tokio::spawn(candidate.run(stop)))
}

/// A pod that restarts in place must not take its predecessor's record for its own. Source: client-go's
/// callers add a UUID to the host's name.
fn unique(name: &str) -> String {
    format!("{name}_{:016x}", RandomState::new().hash_one(std::process::id()))
}

impl Candidate {
    async fn run(mut self, stop: CancellationToken) {
        let mut until = Instant::now();
        loop {
            let sent = Instant::now();
            let deadline = if self.leads() { until.min(sent + REQUEST) } else { sent + REQUEST };
            let turn = tokio::select! {
                () = stop.cancelled() => break,
                turn = tokio::time::timeout_at(deadline, self.turn()) => turn,
            };
            match turn {
                Ok(Ok(true)) => {
                    // Counted from before the request: the record elsewhere begins later.
                    until = sent + RENEW_DEADLINE;
                    self.lead(true);
                }
                Ok(Ok(false)) => self.lead(false),
                Ok(Err(error)) => self.failed(&error.to_string()),
                Err(_) => self.failed("no answer in time"),
            }
            let pause = RETRY.mul_f64(1.0 + JITTER * chance());
            let wake = if self.leads() { until.min(Instant::now() + pause) } else { Instant::now() + pause };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(wake) => {}
            }
            if self.leads() && Instant::now() >= until {
                tracing::error!("the Lease could not be renewed in time: this replica leads no more");
                self.lead(false);
            }
        }
        self.farewell().await;
    }

    fn leads(&self) -> bool {
        *self.leading.borrow()
    }

    /// One look and, where it may, one write. `Ok(true)`: the Lease is this replica's.
    async fn turn(&mut self) -> Result<bool, Error> {
        // What a holder keeps may be stale because a person edited the Lease: then it is read once.
        for held in [self.held.take(), None] {
            let read = match held {
                Some(held) => Some(held),
                None => self.api.get_opt(NAME).await?,
            };
            let spec = read.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
            let step = self.election.decide(spec.as_ref(), self.origin.elapsed(), &stamp());
            let Step::Write(spec) = step else { return Ok(false) };
            match self.write(read, *spec).await {
                Ok(lease) => {
                    self.held = Some(lease);
                    return Ok(true);
                }
                Err(Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    async fn write(&self, read: Option<Lease>, spec: LeaseSpec) -> Result<Lease, Error> {
        match read {
            Some(mut lease) => {
                lease.spec = Some(spec);
                lease.metadata.managed_fields = None;
                self.api.replace(NAME, &PostParams::default(), &lease).await
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(NAME.to_owned()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                };
                let lease = Lease { metadata, spec: Some(spec) };
                self.api.create(&PostParams::default(), &lease).await
            }
        }
    }

    fn lead(&mut self, leads: bool) {
        if !self.leading.send_if_modified(|before| std::mem::replace(before, leads) != leads) {
            return;
        }
        self.counts.leader.set(i64::from(leads));
        if leads {
            self.counts.elected.inc();
        } else {
            self.held = None;
        }
        tracing::info!(leads, identity = self.identity, "leadership changed");
    }

    fn failed(&mut self, reason: &str) {
        // What stands on the server is not known any more.
        self.held = None;
        tracing::warn!(reason, leads = self.leads(), "the Lease cannot be read or written");
    }

    /// Gives the Lease away; whoever waits takes it at the next look.
    async fn farewell(&mut self) {
        let led = self.leads();
        // Told first: nothing is written any more once another may lead.
        self.lead(false);
        if led && tokio::time::timeout(FAREWELL, self.release()).await.is_err() {
            tracing::warn!("the Lease was not given away in time; another leads once it has ended");
        }
    }

    async fn release(&mut self) {
        let released = async {
            let Some(lease) = self.api.get_opt(NAME).await? else { return Ok(false) };
            let spec = lease.spec.clone().unwrap_or_default();
            let Some(spec) = self.election.release(&spec, &stamp()) else { return Ok(false) };
            self.write(Some(lease), spec).await.map(|_| true)
        };
        match released.await {
            Ok(given) => tracing::info!(given, "the Lease was given away"),
            Err(error) => tracing::warn!(%error, "the Lease was not given away"),
        }
    }
}

fn stamp() -> MicroTime {
    MicroTime(Timestamp::now())
}

/// A number from 0 to 1 that differs from replica to replica and from look to look.
pub(super) fn chance() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 32;
    f64::from(u32::try_from(bits).unwrap_or_default()) / f64::from(u32::MAX)
}

//! A data thread: its listeners, its connections, its tick.
//!
//! Invariant: a thread binds its own sockets (`SO_REUSEPORT`) and shares no connection with another.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::LocalOptions;
use tokio::sync::watch;
use weft_proxy_net::http::live::TICK;
use weft_proxy_net::listen::{Bind, Listener};

use super::chores::Stage;
use crate::plane::Plane;
use crate::rooms::accept::{Door, accept};
use crate::worker::Worker;
use crate::{inbound, outbound};

/// All data threads.
pub(super) struct Threads {
    /// Where the doors really are, in their order.
    pub(super) addresses: Vec<SocketAddr>,
    running: Vec<std::thread::JoinHandle<()>>,
}

impl Threads {
    /// Whether all have ended.
    pub(super) fn are_done(&self) -> bool {
        self.running.iter().all(std::thread::JoinHandle::is_finished)
    }
}

/// Starts the data threads; the first one's ports are the others'.
pub(super) fn start(
    plane: &Arc<Plane>,
    doors: &[(SocketAddr, Door)],
    workers: usize,
    stage: &watch::Sender<Stage>,
) -> anyhow::Result<Threads> {
    let mut doors = doors.to_vec();
    let mut threads = Threads { addresses: Vec::new(), running: Vec::new() };
    for number in 0..workers {
        let (told, bound) = mpsc::channel();
        let (plane, given, stage) = (plane.clone(), doors.clone(), stage.subscribe());
        let running = std::thread::Builder::new()
            .name(format!("data-{number}"))
            .spawn(move || thread(plane, number, &given, stage, &told, workers > 1))
            .context("starting a data thread")?;
        threads.addresses = bound.recv().context("a data thread ended at its start")??;
        for (door, address) in doors.iter_mut().zip(&threads.addresses) {
            door.0 = *address;
        }
        threads.running.push(running);
    }
    Ok(threads)
}

fn thread(
    plane: Arc<Plane>,
    number: usize,
    doors: &[(SocketAddr, Door)],
    stage: watch::Receiver<Stage>,
    told: &mpsc::Sender<anyhow::Result<Vec<SocketAddr>>>,
    shared: bool,
) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let runtime = match runtime.context("starting a data thread's runtime") {
        Ok(runtime) => runtime,
        Err(error) => return drop(told.send(Err(error))),
    };
    runtime.block_on(async {
        let bound: anyhow::Result<Vec<_>> = doors.iter().map(|door| bind(door, shared)).collect();
        let bound = match bound {
            Ok(bound) => bound,
            Err(error) => return drop(told.send(Err(error))),
        };
        let addresses = bound.iter().map(|(listener, _)| Ok(listener.local_addr()?)).collect();
        if told.send(addresses).is_err() {
            return;
        }
        Box::pin(serve(plane, number, bound, stage)).await;
    });
}

fn bind((address, door): &(SocketAddr, Door), shared: bool) -> anyhow::Result<(Listener, Door)> {
    let listener = Listener::bind(Bind { shared, ..Bind::to(*address) })
        .with_context(|| format!("binding {address}; is it taken, or not an address of this machine?"))?;
    Ok((listener, door.clone()))
}

async fn serve(
    plane: Arc<Plane>,
    number: usize,
    bound: Vec<(Listener, Door)>,
    mut stage: watch::Receiver<Stage>,
) {
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), number);
    let worker = Worker::new(plane, u16::try_from(number).unwrap_or(u16::MAX), seed);
    tokio::task::spawn_local(tick(worker.clone(), number));
    tokio::task::spawn_local(worker.sweep.clone().run());
    // The sender lives as long as the chores do; with them the process ends.
    let _ = stage.wait_for(|stage| *stage != Stage::Waiting).await;
    let accepting: Vec<_> = bound
        .into_iter()
        .map(|(listener, door)| tokio::task::spawn_local(listen(worker.clone(), listener, door)))
        .collect();
    let _ = stage.wait_for(|stage| *stage >= Stage::Finishing).await;
    for task in &accepting {
        task.abort();
    }
    worker.live.drain();
    tokio::select! {
        () = emptied(&worker, LOOK) => {}
        _ = stage.wait_for(|stage| *stage == Stage::Cutting) => {
            tracing::warn!(connections = worker.places.taken(), "the drain's deadline passed; cutting");
            worker.ledger.cut();
            worker.sweep.cut();
            // What is relayed ends by itself and says so; what is not ends with this thread.
            let _ = tokio::time::timeout(CUT, emptied(&worker, CUT / 20)).await;
        }
    }
}

async fn emptied(worker: &Worker, look: Duration) {
    while worker.places.taken() > 0 {
        tokio::time::sleep(look).await;
    }
}

/// How long connections that were cut may take to end. Source: half of what the chores wait for the threads.
const CUT: Duration = Duration::from_secs(1);

/// How often a draining thread looks whether its connections have ended. Source: as often as the tick.
const LOOK: Duration = Duration::from_millis(50);

async fn listen(worker: Rc<Worker>, listener: Listener, door: Door) {
    let limit = worker.plane.limits.connections;
    loop {
        let (tcp, client) = listener.accept().await;
        let Some(place) = worker.places.take(limit) else {
            worker.ledger.metrics().plain().limit("connections").up();
            continue;
        };
        let accepted = accept(tcp, client, &door);
        if accepted.is_astray() {
            tracing::warn!(%client, ?door, "a connection came to the listener itself, not by redirection");
        }
        let worker = worker.clone();
        let outward = matches!(door, Door::Outbound | Door::Service(_));
        tokio::task::spawn_local(async move {
            if outward {
                Box::pin(outbound::connection(worker, accepted)).await;
            } else {
                Box::pin(inbound::connection(worker, accepted)).await;
            }
            drop(place);
        });
    }
}

/// The thread's chores: a sign of life, configuration, idle and slow connections.
async fn tick(worker: Rc<Worker>, number: usize) {
    let mut timer = tokio::time::interval(TICK);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for count in 0u64.. {
        timer.tick().await;
        worker.tick();
        worker.plane.pulse.beat(number, worker.now());
        if count % TICKS_A_MINUTE == 0 {
            worker.ledger.sweep();
        }
    }
}

const TICKS_A_MINUTE: u64 = 240;

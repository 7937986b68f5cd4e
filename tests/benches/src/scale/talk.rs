//! What the rig says to its control plane and to its fleet, and what they answer: lines of JSON on a connection.
//! Before this: `process` started them. After it: `scale` reads the figures.
//!
//! Invariant: one answer to each question, in order; times are of the kernel's monotonic clock, which all processes share.

use std::fmt::Debug;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::process::Process;

/// A question to the control plane.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToPlane {
    /// Make an endpoint of a service ready, or not ready.
    Flip { service: usize },
    /// Change a fact of a service's endpoints of which the same bytes are compiled.
    Shuffle { service: usize },
    /// Tell what was done so far.
    Tell,
}

/// An answer of the control plane.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum OfPlane {
    /// A change was taken.
    Taken(Taken),
    /// What was done so far.
    Told { streams: usize, epochs: u64, body_bytes: u64 },
}

/// One change, as the control plane took it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// When the event came.
    pub(crate) at: u64,
    /// CPU time from the event to the published state, of the compiling thread.
    pub(crate) cpu_nanos: u64,
    /// What is published then.
    pub(crate) generation: u64,
}

/// A question to the fleet.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToFleet {
    /// Open every stream, presenting what is held; done when each was brought to a state.
    Open,
    /// Close every connection; what is held is kept.
    Close,
    /// Hand over what was received since the last time.
    Take,
}

/// What the fleet received.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Received {
    /// Time the question took.
    pub(crate) nanos: u64,
    /// Epochs in the order they came.
    pub(crate) epochs: Vec<Receipt>,
    /// Bytes of messages.
    pub(crate) bytes: u64,
    /// Resources in them.
    pub(crate) resources: u64,
    /// Streams that ended though nobody closed them, with the first reason.
    pub(crate) lost: (u64, String),
}

/// One epoch, as a sidecar received it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Receipt {
    /// The sidecar.
    pub(crate) sidecar: usize,
    /// The generation that the epoch shows.
    pub(crate) generation: u64,
    /// When it came.
    pub(crate) at: u64,
}

/// The rig's end of a conversation.
pub(crate) struct Talk {
    reader: BufReader<TcpStream>,
}

impl Talk {
    /// Connects to a child that tells its address in a file.
    ///
    /// # Errors
    /// The child ended, or does not answer.
    pub(crate) fn with(child: &mut Process, file: &Path) -> Result<Self> {
        child.wait_for_file(file)?;
        let stream = TcpStream::connect(std::fs::read_to_string(file)?.trim())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// No answer in time, or none that is understood.
    pub(crate) fn ask<A: DeserializeOwned>(&mut self, question: &(impl Serialize + Debug)) -> Result<A> {
        writeln!(self.reader.get_mut(), "{}", serde_json::to_string(question)?)?;
        let mut line = String::new();
        self.reader.read_line(&mut line).with_context(|| format!("no answer to {question:?}"))?;
        if line.is_empty() {
            bail!("no answer to {question:?}: the process ended");
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// A child's end: answers one rig until it hangs up.
///
/// # Errors
/// The connection fails, or an answer does.
pub(crate) fn answer<Q: DeserializeOwned, A: Serialize>(
    file: &Path,
    mut answer: impl FnMut(Q) -> Result<A>,
) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let temporary = file.with_extension("writing");
    std::fs::write(&temporary, listener.local_addr()?.to_string())?;
    std::fs::rename(&temporary, file)?;
    let stream = listener.accept()?.0;
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        writeln!(writer, "{}", serde_json::to_string(&answer(serde_json::from_str(&line?)?)?)?)?;
    }
    Ok(())
}

/// Now, in nanoseconds of the monotonic clock.
pub(crate) fn now() -> u64 {
    nanos(ClockId::Monotonic)
}

/// CPU time of the calling thread, in nanoseconds.
pub(crate) fn thread_cpu() -> u64 {
    nanos(ClockId::ThreadCPUTime)
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Longest wait for an answer. Source: five thousand handshakes on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(300);

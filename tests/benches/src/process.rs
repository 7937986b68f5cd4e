//! Child processes: proxies, control plane and backends, started here and ended here by their own ids.
//! Before this: `peer` decides what to run. After it: `cpu` reads what the processes used.
//!
//! Invariant: no child outlives the rig. Dropping a [`Process`] ends it, Ctrl-C and SIGTERM end all that are
//! listed, and the kernel ends the rest when the rig itself is killed (parent-death signal, set by `child:exec`).
//! Invariant: only ids of children that this process started and has not yet reaped are ever signalled.
//! Invariant: processes are started by the main thread only, since the parent-death signal follows the thread.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{
    Pid, Signal, WaitOptions, getppid, kill_process, set_parent_process_death_signal, waitpid,
};

/// First argument of the rig when it is to become another program (see [`become_program`]).
pub(crate) const EXEC: &str = "child:exec";

/// Children that were started and not yet reaped.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// A running child; dropping it ends it.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` in `workdir`, its output in `workdir/name.log`.
    ///
    /// # Errors
    /// The program cannot be started, or its log file cannot be made.
    pub(crate) fn start(name: &str, program: &Path, args: &[String], workdir: &Path) -> Result<Self> {
        let log = workdir.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(std::env::current_exe()?)
            .arg(EXEC)
            .arg(program)
            .args(args)
            .current_dir(workdir)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        listed(|pids| pids.push(child.id()));
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The process id: the program's own, since it replaced the rig's image.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails, with the end of its log, if the process has ended.
    ///
    /// # Errors
    /// The process is gone.
    pub(crate) fn still_runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}; the end of its log:\n{}", self.name, tail(&self.log));
        }
        Ok(())
    }

    /// Waits until `file` exists, watching that the process lives.
    ///
    /// # Errors
    /// The process ended, or the file did not appear in time.
    pub(crate) fn wait_for_file(&mut self, file: &Path) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while !file.exists() {
            self.still_runs()?;
            if Instant::now() > deadline {
                bail!(
                    "{} did not write {} in time; its log ends:\n{}",
                    self.name,
                    file.display(),
                    tail(&self.log)
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Killed, not asked: a proxy that drains politely would bleed into the next peer's window.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let pid = self.child.id();
        listed(|pids| pids.retain(|one| *one != pid));
    }
}

/// Ends every child on Ctrl-C or SIGTERM, then the rig.
///
/// # Errors
/// The thread or the signal handlers cannot be set up.
pub(crate) fn end_children_on_signal() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            else {
                return;
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = term.recv() => {}
            }
            listed(|pids| pids.iter().filter_map(|pid| as_pid(*pid)).for_each(end_and_reap));
            std::process::exit(130);
        });
    })?;
    Ok(())
}

/// Becomes the program named in `words`, bound to the life of the rig.
///
/// # Errors
/// There is no program in `words`, or it cannot be executed.
pub(crate) fn become_program(words: &[String]) -> Result<()> {
    let Some((program, args)) = words.split_first() else { bail!("{EXEC} needs a program") };
    follow_parent()?;
    Err(Command::new(program).args(args).exec()).with_context(|| format!("cannot execute {program}"))
}

/// Asks the kernel to end this process with its parent, and ends it if the parent is gone already.
///
/// # Errors
/// The kernel refuses.
fn follow_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid().is_none_or(Pid::is_init) {
        bail!("the rig is gone");
    }
    Ok(())
}

fn end_and_reap(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
    let _ = waitpid(Some(pid), WaitOptions::empty());
}

fn as_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

fn listed(change: impl FnOnce(&mut Vec<u32>)) {
    change(&mut RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Time a process has to become ready. Source: linkerd2-proxy and Envoy need 0.1 s; a loaded CI machine may need much more.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(20);
/// Lines of a log that are shown when its process ends too early.
const TAIL_LINES: usize = 25;

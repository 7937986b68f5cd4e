//! What a process used: CPU time and memory, read from `/proc`.
//! Before this: `process` started it. After it: `measure` divides by the requests of the window.
//!
//! Invariant: CPU is user + system time of all threads; nothing is estimated from a sampling profiler.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// CPU time of a process so far, in nanoseconds.
///
/// The scheduler's own account per thread is taken where the kernel keeps it (nanoseconds); otherwise the
/// 10 ms ticks of `stat`. Both count user and system time of the same threads.
///
/// # Errors
/// The process is gone.
pub(crate) fn nanos(pid: u32) -> Result<u64> {
    let tasks = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in fs::read_dir(&tasks).with_context(|| format!("process {pid} is gone"))? {
        match fs::read_to_string(task?.path().join("schedstat")).ok().as_deref().and_then(on_cpu) {
            Some(nanos) => sum += nanos,
            None => return ticks(pid),
        }
    }
    Ok(sum)
}

/// Proportional set size of a process in KiB: shared pages count by share.
///
/// # Errors
/// The process is gone, or its memory map may not be read.
pub(crate) fn pss_kib(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("smaps_rollup has no Pss")?;
    let kib = line.split_whitespace().next().context("Pss has no figure")?;
    Ok(kib.parse()?)
}

/// Time that the host took from this machine so far, in ticks; 0 where it is not told.
pub(crate) fn stolen_ticks() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    line.split_whitespace().nth(STEAL_FIELD).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

/// One line that names the machine: processor, cores, memory, kernel.
pub(crate) fn machine() -> String {
    let first = |file: &str, key: &str| -> String {
        let text = fs::read_to_string(Path::new("/proc").join(file)).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or(line, |(_, value)| value).trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = first("meminfo", "MemTotal");
    format!("{}, {cores} cores, {memory}, Linux {}", first("cpuinfo", "model name"), kernel.trim())
}

fn on_cpu(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

fn ticks(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, second field, may hold spaces: count from its closing parenthesis.
    let rest = text.rsplit_once(')').context("stat has no name")?.1;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || -> Result<u64> { Ok(fields.next().context("stat is short")?.parse()?) };
    let (user, system) = (next()?, next()?);
    Ok((user + system) * (1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)))
}

/// Source: proc(5), `/proc/stat`: "cpu" user nice system idle iowait irq softirq steal.
const STEAL_FIELD: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cpu_time_grows_with_work() {
        let pid = std::process::id();
        let before = nanos(pid).unwrap();
        let mut sum = 0u64;
        let mut after = before;
        for round in 0..200_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(round));
            if round % 10_000_000 == 0 {
                after = nanos(pid).unwrap();
                if after > before + 30_000_000 {
                    break;
                }
            }
        }
        assert!(after > before, "{before} -> {after}");
    }

    #[test]
    fn own_memory_is_read() {
        assert!(pss_kib(std::process::id()).unwrap() > 100);
    }
}

//! What the operating system says about the process.
//!
//! Read from /proc at each scrape.
//!
//! Invariant: what cannot be read is left out, never shown as zero. Names have no `weft_` prefix, because
//! every process's dashboards expect these.

use std::fmt::Error;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::render::Families;

/// The process's own metrics.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut families = Families(encoder);
        if let Some(seconds) = cpu_seconds() {
            let family = ("process_cpu_seconds", "Processor time used, user and system");
            families.counter(family, [(vec![], seconds)])?;
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let gauges = [
            ("process_resident_memory_bytes", "Memory resident", field(&status, "VmRSS:").map(|kib| kib * 1024)),
            ("process_threads", "Threads", field(&status, "Threads:")),
            ("process_open_fds", "File descriptors open", open_fds()),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                families.gauge((name, help), [(vec![], value)])?;
            }
        }
        Ok(())
    }
}

/// Source: proc(5), `/proc/pid/stat`: fields 14 and 15, in ticks; the name in field 2 may hold anything,
/// so counting starts behind its closing bracket.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn field(status: &str, name: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<i64> {
    // One of them is this listing's own.
    i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1)).ok()
}

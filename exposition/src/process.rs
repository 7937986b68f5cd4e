//! What the operating system says about the process.
//!
//! Read from /proc at each scrape.
//!
//! Invariant: what cannot be read is left out, never shown as zero. Names have no prefix of ours, because
//! every process's dashboards expect these.

use std::fs;

use crate::family::Family;
use crate::page::{Number, Page};

/// Processor time.
pub static CPU: Family = Family::counter("process_cpu_seconds", "Processor time used, user and system");
/// Memory resident.
pub static RESIDENT: Family = Family::gauge("process_resident_memory_bytes", "Memory resident");
/// Memory mapped.
pub static VIRTUAL: Family = Family::gauge("process_virtual_memory_bytes", "Memory mapped");
/// Threads.
pub static THREADS: Family = Family::gauge("process_threads", "Threads");
/// Descriptors open.
pub static OPEN_FDS: Family = Family::gauge("process_open_fds", "File descriptors open");
/// Descriptors allowed.
pub static MAX_FDS: Family = Family::gauge("process_max_fds", "File descriptors allowed");
/// When it started.
pub static START: Family =
    Family::gauge("process_start_time_seconds", "When the process started, since 1970");

/// The families of every process, in the order in which [`write`] writes them.
pub const FAMILIES: [&Family; 7] = [&CPU, &RESIDENT, &VIRTUAL, &THREADS, &OPEN_FDS, &MAX_FDS, &START];

/// Writes the process's own families.
pub fn write(page: &mut Page) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let kib = |name| field(&status, name).map(|kib| Number::Signed(kib * 1024));
    let values = [
        cpu_seconds(&stat).map(Number::Real),
        kib("VmRSS:"),
        kib("VmSize:"),
        field(&status, "Threads:").map(Number::Signed),
        open_fds().map(Number::Signed),
        field(&limits, "Max open files").map(Number::Signed),
        started(&stat).map(Number::Real),
    ];
    for (family, value) in FAMILIES.into_iter().zip(values) {
        if let Some(value) = value {
            page.family(family).one(value);
        }
    }
}

/// A field of `/proc/self/stat`, counted from 1.
///
/// Source: proc(5). The name in field 2 may hold anything, so counting starts behind its closing bracket.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    let ticks = stat_field(stat, 14)? + stat_field(stat, 15)?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn started(stat: &str) -> Option<f64> {
    let after_boot = stat_field(stat, 22)? as f64 / rustix::param::clock_ticks_per_second() as f64;
    let system = fs::read_to_string("/proc/stat").ok()?;
    Some(field(&system, "btime")? as f64 + after_boot)
}

/// The first number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<i64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<i64> {
    // One of them is this listing's own.
    i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;

    #[test]
    fn a_process_knows_itself() {
        let mut page = Page::new(&FAMILIES, Format::Classic);
        write(&mut page);
        let text = String::from_utf8(page.finish()).unwrap();
        for family in FAMILIES {
            let name = family.exposed();
            let row = text.lines().find(|line| line.starts_with(&format!("{name} ")));
            let value: f64 = row
                .unwrap_or_else(|| panic!("{name} in\n{text}"))
                .rsplit(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert!(value >= 0.0, "{name}");
        }
    }

    #[test]
    fn a_name_may_hold_brackets_and_blanks() {
        let stat = "7 (a) (b c) S 1 1 1 0 -1 4 5 6 7 8 150 50 0 0 20 0 3 0 1234 9";
        assert_eq!((stat_field(stat, 14), stat_field(stat, 22)), (Some(150), Some(1234)));
    }
}

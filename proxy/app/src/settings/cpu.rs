//! How many data threads a sidecar gets: from the CPU limit that the kernel enforces on it.
//!
//! Invariant: a missing, unreadable or odd limit means one worker, never the machine's core count.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Most data threads of one sidecar.
/// Source: one worker carries tens of thousands of requests a second; beyond eight the application next
/// to it is the bottleneck.
pub(super) const MAX_WORKERS: usize = 8;

/// The number of workers: as asked, else the quota rounded up, else one.
///
/// # Errors
/// The asked number, when out of range.
pub(super) fn workers(asked: Option<usize>, quota: Option<f64>) -> Result<NonZeroUsize, usize> {
    if let Some(asked) = asked {
        return NonZeroUsize::new(asked).filter(|n| n.get() <= MAX_WORKERS).ok_or(asked);
    }
    let whole = match quota {
        Some(quota) if quota.is_finite() && quota > 0.0 => (1..MAX_WORKERS).find(|n| quota <= *n as f64),
        _ => Some(1),
    };
    Ok(NonZeroUsize::new(whole.unwrap_or(MAX_WORKERS)).unwrap_or(NonZeroUsize::MIN))
}

/// CPUs this process may use by its control group; none: no limit.
pub(super) fn quota() -> Option<f64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    quota_under(Path::new("/sys/fs/cgroup"), &own)
}

/// The tightest limit on the way from the process's group to the root of the hierarchy.
fn quota_under(root: &Path, own: &str) -> Option<f64> {
    let v2 = group_of(own, |line| line.strip_prefix("0::"));
    let v1 = group_of(own, |line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == "cpu").then_some(path)
    });
    let unified = v2.into_iter().flat_map(|path| up(root, &path)).filter_map(|dir| quota_v2(&dir));
    let split = ["cpu", "cpu,cpuacct"].into_iter().flat_map(|mount| {
        let path = v1.clone().unwrap_or_default();
        up(&root.join(mount), &path)
    });
    unified.chain(split.filter_map(|dir| quota_v1(&dir))).min_by(f64::total_cmp)
}

fn group_of<'a>(own: &'a str, path: impl Fn(&'a str) -> Option<&'a str>) -> Option<String> {
    own.lines().find_map(path).map(|found| found.trim_matches('/').to_owned())
}

/// The group's folder and all above it, down to `root` itself. Inside a container the path in
/// /proc may be the host's and lead nowhere; `root` is then the container's own group.
fn up(root: &Path, path: &str) -> Vec<PathBuf> {
    let mut dirs = vec![root.to_owned()];
    let mut dir = root.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != "..") {
        dir.push(part);
        dirs.push(dir.clone());
    }
    dirs
}

fn quota_v2(dir: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(dir.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    share(quota, period)
}

fn quota_v1(dir: &Path) -> Option<f64> {
    let quota = std::fs::read_to_string(dir.join("cpu.cfs_quota_us")).ok()?;
    let period = std::fs::read_to_string(dir.join("cpu.cfs_period_us")).ok()?;
    share(quota.trim(), period.trim())
}

/// "max" (v2) and -1 (v1) mean no limit.
fn share(quota: &str, period: &str) -> Option<f64> {
    let quota: u32 = quota.parse().ok()?;
    let period: u32 = period.parse().ok().filter(|period| *period > 0)?;
    Some(f64::from(quota) / f64::from(period))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_follow_the_quota_rounded_up_and_bounded() {
        let table = [
            (None, None, 1),
            (None, Some(0.1), 1),
            (None, Some(1.0), 1),
            (None, Some(1.5), 2),
            (None, Some(64.0), 8),
            (None, Some(f64::NAN), 1),
            (Some(3), Some(1.0), 3),
        ];
        for (asked, quota, expected) in table {
            assert_eq!(workers(asked, quota).unwrap().get(), expected, "{asked:?} {quota:?}");
        }
        assert_eq!(workers(Some(0), None), Err(0));
        assert_eq!(workers(Some(9), None), Err(9));
    }

    #[test]
    fn the_tightest_group_on_the_way_up_counts() {
        let root = crate::testing::scratch("cgroup");
        let dir = root.join("kubepods/pod1");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(root.join("kubepods/cpu.max"), "400000 100000\n").unwrap();
        std::fs::write(dir.join("cpu.max"), "150000 100000\n").unwrap();
        assert_eq!(quota_under(&root, "0::/kubepods/pod1\n"), Some(1.5));
        assert_eq!(quota_under(&root, "0::/kubepods\n"), Some(4.0));
        std::fs::write(dir.join("cpu.max"), "max 100000\n").unwrap();
        assert_eq!(quota_under(&root, "0::/kubepods/pod1\n"), Some(4.0));
        assert_eq!(quota_under(&root, "0::/elsewhere\n"), None);
    }

    #[test]
    fn the_first_version_of_groups_is_read_too() {
        let root = crate::testing::scratch("cgroup-v1");
        let dir = root.join("cpu,cpuacct/docker/7");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("cpu.cfs_quota_us"), "250000\n").unwrap();
        std::fs::write(dir.join("cpu.cfs_period_us"), "100000\n").unwrap();
        assert_eq!(quota_under(&root, "4:cpu,cpuacct:/docker/7\n"), Some(2.5));
        std::fs::write(dir.join("cpu.cfs_quota_us"), "-1\n").unwrap();
        assert_eq!(quota_under(&root, "4:cpu,cpuacct:/docker/7\n"), None);
    }
}

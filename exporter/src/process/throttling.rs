//! A container's CPU quota, and how often the kernel kept it from CPUs because that was used up: the files of its cgroup. Absent
//! where they cannot be found: a private cgroup namespace does not show those of others.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// The CFS bandwidth figures of a cgroup, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Throttling {
    /// Periods in which it had something to run, with a quota set.
    pub(crate) periods: u64,
    /// Periods in which it was throttled.
    pub(crate) throttled_periods: u64,
    /// For how long, seconds, added up over CPUs.
    pub(crate) throttled_seconds: f64,
    /// CPUs that the quota lets it use; none where neither it nor a cgroup above it has one.
    pub(crate) limit: Option<f64>,
}

/// Where cgroup file systems are mounted, in this mount namespace and the machine's own.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/proc/1/root/sys/fs/cgroup"];

impl Throttling {
    /// That of the process's cgroup.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let cgroups = super::told(pid, "cgroup").ok()?;
        files(&cgroups).into_iter().find_map(|file| {
            let read = |path: &Path| fs::read_to_string(path).ok();
            let found = Self::parse(&read(&file)?)?;
            Some(Self { limit: limit(&file, read), ..found })
        })
    }

    /// cgroup v2 counts microseconds (`throttled_usec`), v1 nanoseconds (`throttled_time`): Documentation/scheduler/sched-bwc.rst.
    fn parse(stat: &str) -> Option<Self> {
        let value = |name: &str| {
            let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok();
            stat.lines().find_map(of)
        };
        let seconds = value("throttled_usec").map(|us| us as f64 / 1e6);
        Some(Self {
            periods: value("nr_periods")?,
            throttled_periods: value("nr_throttled")?,
            throttled_seconds: seconds.or_else(|| value("throttled_time").map(|ns| ns as f64 / 1e9))?,
            limit: None,
        })
    }
}

/// The least quota of a `cpu.stat`'s cgroup and those above it, in CPUs: a pod's limit is its cgroup's, above its containers'.
fn limit(stat: &Path, read: impl Fn(&Path) -> Option<String>) -> Option<f64> {
    let above = stat.ancestors().skip(1).take_while(|at| MOUNTS.iter().any(|it| at.starts_with(it)));
    let quota = |cgroup: &Path| {
        let v2 = || read(&cgroup.join("cpu.max"));
        let v1 = || Some([read(&cgroup.join("cpu.cfs_quota_us"))?, read(&cgroup.join("cpu.cfs_period_us"))?].join(" "));
        let text = v2().or_else(v1)?;
        let mut parts = text.split_whitespace().map(str::parse::<u64>);
        // `max`, and -1 of v1, are no quota.
        let (Some(Ok(quota)), Some(Ok(period))) = (parts.next(), parts.next()) else { return None };
        (period > 0).then(|| quota as f64 / period as f64)
    };
    above.filter_map(quota).reduce(f64::min)
}

/// Where the figures may be, by the lines of `/proc/PID/cgroup` (`ID:CONTROLLERS:PATH`).
fn files(cgroups: &[u8]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroups.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(3, |byte| *byte == b':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        // Outside of this process's cgroup namespace; what `..` stands for is not known.
        if path.split(|byte| *byte == b'/').any(|part| part == b"..") {
            continue;
        }
        let root = path.iter().take_while(|byte| **byte == b'/').count();
        let below = OsStr::from_bytes(&path[root..]);
        let hierarchies: &[&str] = match controllers {
            b"" => &["", "unified"],
            _ if controllers.split(|byte| *byte == b',').any(|controller| controller == b"cpu") => {
                &["cpu,cpuacct", "cpu"]
            }
            _ => continue,
        };
        for mount in MOUNTS {
            for hierarchy in hierarchies {
                files.push(PathBuf::from(mount).join(hierarchy).join(below).join("cpu.stat"));
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_the_file_are_read() {
        let v2 = "usage_usec 5\nnr_periods 10\nnr_throttled 3\nthrottled_usec 2500000\nnr_bursts 0\n";
        let v1 = "nr_periods 10\nnr_throttled 3\nthrottled_time 2500000000\n";
        let wanted = Throttling { periods: 10, throttled_periods: 3, throttled_seconds: 2.5, limit: None };
        assert_eq!(Throttling::parse(v2), Some(wanted));
        assert_eq!(Throttling::parse(v1), Some(wanted));
        assert_eq!(Throttling::parse("usage_usec 5\n"), None);
    }

    #[test]
    fn the_least_quota_of_the_cgroups_above_it_is_the_limit() {
        let limit = |stat: &str, files: &[(&str, &str)]| {
            let read = |path: &Path| {
                let found = files.iter().find(|(name, _)| path == Path::new(name));
                found.map(|(_, text)| (*text).to_owned())
            };
            super::limit(Path::new(stat), read)
        };
        let (stat, own, pod) = (
            "/sys/fs/cgroup/kubepods/pod/app/cpu.stat",
            "/sys/fs/cgroup/kubepods/pod/app/cpu.max",
            "/sys/fs/cgroup/kubepods/pod/cpu.max",
        );
        assert_eq!(limit(stat, &[(own, "150000 100000\n"), (pod, "max 100000\n")]), Some(1.5));
        assert_eq!(limit(stat, &[(own, "max 100000\n"), (pod, "50000 100000\n")]), Some(0.5));
        assert_eq!(limit(stat, &[(own, "400000 100000"), (pod, "200000 100000")]), Some(2.0));
        assert_eq!(limit(stat, &[(own, "max 100000\n")]), None);
        assert_eq!(limit(stat, &[("/sys/fs/cpu.max", "1 100000")]), None, "outside of the mount");
        let v1 = |quota| {
            [("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", quota), ("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n")]
        };
        assert_eq!(limit("/sys/fs/cgroup/cpu/a/cpu.stat", &v1("250000\n")), Some(2.5));
        assert_eq!(limit("/sys/fs/cgroup/cpu/a/cpu.stat", &v1("-1\n")), None);
    }

    #[test]
    fn paths_of_both_versions_and_none_outside_the_namespace() {
        let found = files(b"5:cpu,cpuacct:/kubepods/a\n4:memory:/x\n0::/b\n");
        assert_eq!(found[0], PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/kubepods/a/cpu.stat"));
        assert!(found.contains(&PathBuf::from("/sys/fs/cgroup/b/cpu.stat")));
        assert!(found.iter().all(|path| !path.to_string_lossy().contains("/x/")));
        assert!(files(b"0::/../../other\n").is_empty());
    }
}

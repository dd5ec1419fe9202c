//! What a process uses, from /proc, as client_golang's process collector reads it. Knows nothing of Go.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::fs::MetadataExt as _,
    sync::{Mutex, PoisonError},
};

use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime},
};

/// What tells one image of a process from what comes after it under the same id: its start, and where its stack begins, which
/// an `execve` changes wherever addresses are random. Without the right to trace the process the latter is 0 (proc(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Image {
    /// Clock ticks since boot.
    pub(crate) started: u64,
    stack: u64,
}

/// The figures of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    /// Whose they are.
    pub(crate) image: Image,
    /// Seconds, user and system.
    pub(crate) cpu_seconds: f64,
    /// Bytes.
    pub(crate) virtual_bytes: u64,
    /// Bytes.
    pub(crate) resident_bytes: u64,
}

/// What else /proc tells. A part that could not be read is not there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Open file descriptors.
    pub(crate) open_fds: Option<u64>,
    /// Most of them; `u64::MAX` where there is no limit.
    pub(crate) max_fds: Option<u64>,
    /// Most virtual memory, bytes; `u64::MAX` where there is no limit.
    pub(crate) max_virtual_bytes: Option<u64>,
    /// Bytes received and sent in its network namespace.
    pub(crate) network: Option<(u64, u64)>,
}

/// Network figures by namespace: reading them takes longer than all the rest, and processes share namespaces.
#[derive(Debug, Default)]
pub(crate) struct Networks(HashMap<u64, Option<(u64, u64)>>);

impl Stat {
    /// Reads it; a process that is gone, or a zombie, is `NotFound`.
    pub(crate) fn read(pid: u32) -> io::Result<Self> {
        // The name in it is cut at 15 bytes, which may be in the middle of a character.
        let bytes = fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The fields are numbered in proc(5); the name in parentheses may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        if matches!(fields.first(), Some(&("Z" | "X" | "x")) | None) {
            return None;
        }
        Some(Self {
            image: Image { started: field(22)?, stack: field(28)? },
            cpu_seconds: (field(14)? + field(15)?) as f64 / procfs::ticks_per_second() as f64,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)?.saturating_mul(procfs::page_size()),
        })
    }
}

impl Image {
    /// When it started, seconds since 1970, as precise as the kernel's whole seconds of the boot. As client_golang's, it is by the
    /// clock of now: where that was set, so is this.
    pub(crate) fn start_seconds(self) -> Option<f64> {
        static BOOT: Mutex<Option<u64>> = Mutex::new(None);
        let now = boot_by(clock_gettime(ClockId::CLOCK_REALTIME).ok()?, clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
        let mut boot = BOOT.lock().unwrap_or_else(PoisonError::into_inner);
        if boot.is_none_or(|boot| was_set(boot, now)) {
            *boot = boot_of(&fs::read_to_string("/proc/stat").ok()?);
        }
        Some((*boot)? as f64 + self.started as f64 / procfs::ticks_per_second() as f64)
    }
}

impl Image {
    /// How long ago it started, seconds, by the clock that goes on while the machine sleeps; none where that cannot be read.
    pub(crate) fn age_seconds(self) -> Option<f64> {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
        let now = now.tv_sec() as f64 + now.tv_nsec() as f64 / 1e9;
        Some((now - self.started as f64 / procfs::ticks_per_second() as f64).max(0.0))
    }
}

fn boot_of(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

/// When the machine was started, by these clocks; seconds since 1970.
fn boot_by(real: TimeSpec, boot: TimeSpec) -> i64 {
    (real - boot).tv_sec()
}

/// Whether the clock was set since the boot was read. A second more or less is the clock being slowed or sped up: it is not told,
/// since a start that moves looks like another process.
fn was_set(boot: u64, now: i64) -> bool {
    now.abs_diff(boot.cast_signed()) > 1
}

impl Usage {
    /// Reads it. What is read may be another process's by now: the caller compares [`Image`]s.
    pub(crate) fn read(pid: u32, networks: &mut Networks) -> Self {
        let (max_fds, max_virtual_bytes) = limits(pid).unwrap_or_default();
        Self { open_fds: open_fds(pid), max_fds, max_virtual_bytes, network: networks.of(pid) }
    }
}

/// Linux 6.2 and later say the number as the directory's size.
fn open_fds(pid: u32) -> Option<u64> {
    let path = format!("/proc/{pid}/fd");
    match fs::metadata(&path).ok()?.size() {
        0 => Some(fs::read_dir(&path).ok()?.count() as u64),
        size => Some(size),
    }
}

fn limits(pid: u32) -> Option<(Option<u64>, Option<u64>)> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let soft = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?;
        if value == "unlimited" { Some(u64::MAX) } else { value.parse().ok() }
    };
    Some((soft("Max open files"), soft("Max address space")))
}

impl Networks {
    fn of(&mut self, pid: u32) -> Option<(u64, u64)> {
        let namespace = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino();
        *self.0.entry(namespace).or_insert_with(|| octets(pid))
    }
}

/// `IpExt: ... InOctets OutOctets ...`, names in one line and values in the next.
fn octets(pid: u32) -> Option<(u64, u64)> {
    let file = File::open(format!("/proc/{pid}/net/netstat")).ok()?.take(64 * 1024);
    let mut lines = BufReader::new(file).lines().map_while(Result::ok).filter(|line| line.starts_with("IpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |name: &str| {
        let mut pairs = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
        pairs.find(|(it, _)| *it == name)?.1.parse().ok()
    };
    Some((value("InOctets")?, value("OutOctets")?))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn the_boot_is_read_again_when_the_clock_was_set_and_only_then() {
        let boot =
            |real: i64, nanoseconds: i64| boot_by(TimeSpec::new(real, nanoseconds), TimeSpec::new(1000, 999_999_999));
        let kept = 1_700_000_000;
        assert_eq!(boot(1_700_001_001, 0), 1_700_000_000);
        for (real, is_set) in [(0, false), (-1, false), (1, false), (3600, true), (-3600, true), (-1_700_001_000, true)]
        {
            assert_eq!(was_set(kept, boot(1_700_001_001 + real, 0)), is_set, "{real}");
        }
        assert_eq!(boot_of("cpu  1 2\nbtime 1700000000\n"), Some(kept));
    }

    #[test]
    fn this_process_uses_something() {
        let me = std::process::id();
        let stat = Stat::read(me).unwrap();
        assert!(stat.resident_bytes > 0 && stat.virtual_bytes > stat.resident_bytes && stat.image.stack > 0);
        let boot = boot_of(&fs::read_to_string("/proc/stat").unwrap()).unwrap() as f64;
        let since_boot = stat.image.start_seconds().unwrap() - boot;
        assert!((since_boot - stat.image.started as f64 / procfs::ticks_per_second() as f64).abs() < 2.5);
        let mut networks = Networks::default();
        let usage = Usage::read(me, &mut networks);
        assert!(usage.open_fds.unwrap() > 2 && usage.max_fds.unwrap() >= usage.open_fds.unwrap());
        assert!(usage.max_virtual_bytes.is_some() && usage.network.is_some() && networks.0.len() == 1);
    }

    #[test]
    fn descriptors_are_counted() {
        // Another process's: the tests beside this one open and close descriptors of this one's all the time.
        let mut shell = Command::new("sh")
            .args(["-c", "echo one; read line; exec 8</dev/null 9</dev/null; echo three; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        let mut stdout = BufReader::new(shell.stdout.take().unwrap());
        let mut open_fds = || {
            stdout.read_line(&mut String::new()).unwrap();
            Usage::read(shell.id(), &mut Networks::default()).open_fds.unwrap()
        };
        let before = open_fds();
        stdin.write_all(b"\n").unwrap();
        assert_eq!(open_fds(), before + 2);
        drop(stdin);
        shell.wait().unwrap();
    }

    #[test]
    fn a_name_may_hold_anything_and_a_zombie_is_gone() {
        let rest = "1 1 1 0 -1 0 0 0 0 0 7 5 0 0 20 0 1 0 1234 4096 2 18446744073709551615 1 1 777 0";
        let stat = Stat::parse(&format!("42 (a) Z (b) S {rest}")).unwrap();
        assert_eq!((stat.image.started, stat.image.stack, stat.virtual_bytes), (1234, 777, 4096));
        assert!(Stat::parse(&format!("42 (x) Z {rest}")).is_none());
        assert_eq!(Stat::read(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

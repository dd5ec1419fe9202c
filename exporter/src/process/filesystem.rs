//! What kind of file system a file is on, by the mounts that /proc tells of: unlike `statfs`, that asks nothing of the file system
//! itself, which may never answer. Knows nothing of what is done about it.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags};

/// What is known of an inode without a question to a file system's server.
const BASIC: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);

/// `stat` of what a path leads to, as the kernel knows it already: a file system in user space or over the network is not asked
/// (`AT_STATX_DONT_SYNC`, statx(2)).
pub(super) fn stat_of_path(path: &Path) -> io::Result<Statx> {
    Ok(rustix::fs::statx(CWD, path, AtFlags::STATX_DONT_SYNC, BASIC)?)
}

/// The same of an open file.
pub(super) fn stat_of(file: impl AsFd) -> io::Result<Statx> {
    Ok(rustix::fs::statx(file, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, BASIC)?)
}

/// A handle on what a path leads to, which is not opened (`O_PATH`).
pub(super) fn handle(path: &Path) -> io::Result<File> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// Opens for reading what a handle is on. This may wait for the file system.
pub(super) fn open(handle: &File) -> io::Result<File> {
    File::open(path_of(handle))
}

/// A path to an open file's very inode, for this process.
pub(super) fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Whether a file may be opened and read, and probes put into what maps it.
///
/// Not where a server in user space answers for it: the kernel cannot end a thread that waits for one (`request_wait_answer` in
/// fs/fuse/dev.c), and reads the pages of probed code with the lock held that every `fork` on the machine takes
/// (`register_for_each_vma` in kernel/events/uprobes.c: `dup_mmap_sem`).
///
/// # Errors
/// `Unsupported` where it may not, or where its file system cannot be told.
pub(super) fn may_be_read(pid: u32, seen: &Statx) -> io::Result<()> {
    // A real device, or a file in memory, which is on no mount that anybody sees.
    if seen.stx_dev_major != 0 || Some(device(seen)) == memory_files() {
        return Ok(());
    }
    let refuse = |what: String| Err(io::Error::new(io::ErrorKind::Unsupported, what));
    // A process sees no mount that is outside of its root; what is not in its own namespace is mostly in the first.
    let namespaces = [pid, 1, std::process::id()];
    let kind = namespaces.iter().find_map(|pid| kind_of(&super::told(*pid, "mountinfo").ok()?, seen.stx_mnt_id));
    match kind {
        Some(kind) if is_in_user_space(&kind) => refuse(format!(
            "it is on a file system in user space ({kind}), whose server may never answer: the kernel would wait for it with locks \
             that other programs need"
        )),
        Some(_) => Ok(()),
        None => {
            refuse("its file system is no longer mounted, so that it cannot be told whether that will answer".into())
        }
    }
}

/// `fuse`, `fuseblk` and `fuse.SUBTYPE`; not `virtiofs`, whose server is the hypervisor.
fn is_in_user_space(kind: &str) -> bool {
    kind.strip_prefix("fuse").is_some_and(|rest| rest.is_empty() || rest == "blk" || rest.starts_with('.'))
}

/// The type of the file system of a mount: `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [FIELDS] - TYPE SOURCE SUPER_OPTIONS` (proc(5)).
fn kind_of(mountinfo: &[u8], id: u64) -> Option<String> {
    let id = format!("{id} ");
    let line = mountinfo.split(|byte| *byte == b'\n').find(|line| line.starts_with(id.as_bytes()))?;
    let mut fields = line.split(|byte| *byte == b' ').skip(6).skip_while(|field| *field != b"-").skip(1);
    Some(String::from_utf8_lossy(fields.next()?).into_owned())
}

pub(super) fn device(seen: &Statx) -> u64 {
    nix::sys::stat::makedev(u64::from(seen.stx_dev_major), u64::from(seen.stx_dev_minor))
}

/// The device of files that memfd_create(2) makes.
fn memory_files() -> Option<u64> {
    static DEVICE: OnceLock<Option<u64>> = OnceLock::new();
    *DEVICE.get_or_init(|| {
        let file = File::from(memfd_create("device", MFdFlags::MFD_CLOEXEC).ok()?);
        Some(file.metadata().ok()?.dev())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_in_user_space_is_told_by_the_mount() {
        let mounts = b"29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
            290 29 0:51 / /mnt rw - fuse.sshfs x:/ rw\n\
            31 29 0:52 / /a\\040b rw - fuse /dev/fuse rw\n32 29 0:53 / /v rw - virtiofs share rw\n33 29 0:54 / /t rw,x a:1 b:2 - tmpfs none rw";
        let kind = |id| kind_of(mounts, id);
        assert_eq!(kind(29).as_deref(), Some("ext4"));
        assert_eq!(kind(290).as_deref(), Some("fuse.sshfs"));
        assert_eq!(kind(31).as_deref(), Some("fuse"));
        assert_eq!(kind(33).as_deref(), Some("tmpfs"));
        assert_eq!((kind(2), kind(0), kind_of(b"", 1), kind_of(b"1 2", 1)), (None, None, None, None));
        for (kind, is) in
            [("fuse", true), ("fuse.s3fs", true), ("fuseblk", true), ("virtiofs", false), ("fusectl", false)]
        {
            assert_eq!(is_in_user_space(kind), is, "{kind}");
        }
    }

    #[test]
    fn what_is_mounted_here_may_be_read_and_what_is_mounted_nowhere_may_not() {
        let me = std::process::id();
        let mut here = stat_of_path(Path::new("/proc/self/exe")).unwrap();
        may_be_read(me, &here).unwrap();
        let memory = memfd_create("some", MFdFlags::MFD_CLOEXEC).unwrap();
        may_be_read(me, &stat_of(&memory).unwrap()).unwrap();
        may_be_read(me, &stat_of_path(Path::new("/proc/self/stat")).unwrap()).unwrap();
        (here.stx_dev_major, here.stx_mnt_id) = (0, u64::MAX);
        assert_eq!(may_be_read(me, &here).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}

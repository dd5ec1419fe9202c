//! Whether a file's content can change while nobody runs it: a probe on a file that can is on whatever is written there, by the
//! kernel alone and before anybody could look at it. Knows nothing of probes.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use nix::sys::statfs::{FsType, OVERLAYFS_SUPER_MAGIC, fstatfs};
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};

use super::Process;

/// File systems that cannot be written at all: squashfs, erofs, ISO 9660 and cramfs (include/uapi/linux/magic.h; fs/squashfs,
/// fs/isofs). One that is merely mounted read-only can be written through another mount.
const READ_ONLY: [i64; 4] = [0x7371_7368, 0xe0f5_e1e2, 0x9660, 0x28cd_3d45];

/// Whether the file, which the process runs, keeps its content. In doubt it does not.
///
/// `of_an_image` says that the process runs in a container: what lies in a lower layer of its root is the image's, which
/// container runtimes do not write once they have unpacked it, and which the container itself cannot write: it gets a copy.
pub(crate) fn is_lasting(process: &Process, file: &File, of_an_image: bool) -> bool {
    let Ok(kind) = fstatfs(file).map(|it| it.filesystem_type()) else { return false };
    if READ_ONLY.iter().any(|magic| kind == FsType(*magic as _)) || is_sealed(file) {
        return true;
    }
    of_an_image && kind == OVERLAYFS_SUPER_MAGIC && in_lower_layer(process) == Some(true)
}

/// Whether the file is marked so that root cannot write it either: by fs-verity, which nobody can undo, or as immutable
/// (chattr(1)), by which an operator says that it is not to be changed.
fn is_sealed(file: &File) -> bool {
    let sealed = StatxAttributes::IMMUTABLE | StatxAttributes::VERITY;
    rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .is_ok_and(|it| it.stx_attributes.intersects(sealed))
}

/// Whether a process's executable, which is on overlayfs, is in a lower layer; none where that cannot be told.
fn in_lower_layer(process: &Process) -> Option<bool> {
    let mounts = super::told(process.id.pid, "mountinfo").ok()?;
    let Place::Upper { layer, within } = place_of(&mounts, &process.executable)? else { return Some(true) };
    let root = runtimes_root(process.id.pid)?;
    let in_node = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    if !fs::symlink_metadata(in_node(&layer)).ok()?.is_dir() {
        return None;
    }
    match fs::symlink_metadata(in_node(&layer.join(&within))) {
        Ok(_) => Some(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(true),
        Err(_) => None,
    }
}

/// The root of the container runtime, whose paths are those that overlayfs was mounted with: that of the nearest process above the
/// container's, which is the runtime's shim. Mostly it is the node's, but a runtime may have a mount namespace of its own.
fn runtimes_root(pid: u32) -> Option<PathBuf> {
    const MOST_ABOVE: usize = 64;
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let inside = namespace(pid)?;
    let above = std::iter::successors(Some(pid), |pid| parent(*pid).filter(|parent| *parent != 0));
    let shim = above.take(MOST_ABOVE).find(|pid| namespace(*pid).is_some_and(|outside| outside != inside))?;
    Some(PathBuf::from(format!("/proc/{shim}/root")))
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let mut lines = status.split(|byte| *byte == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(b"PPid:"))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

/// Where an overlay has the files that were changed.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Nowhere: it has no upper layer.
    Nowhere,
    /// There, and a file's path within.
    Upper { layer: PathBuf, within: PathBuf },
}

/// Where a path's copy would be, by the overlay that it is on, from /proc/PID/mountinfo (proc(5)); none where it is not on one, or on
/// a part of one.
fn place_of(mountinfo: &[u8], path: &Path) -> Option<Place> {
    // The last of those that are mounted nearest to it is the one that is seen.
    let nearest = mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(Mount::parse)
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.as_os_str().len())?;
    if nearest.kind != "overlay" || nearest.root != Path::new("/") {
        return None;
    }
    let within = path.strip_prefix(&nearest.point).ok()?.to_path_buf();
    match nearest.upper {
        None => Some(Place::Nowhere),
        Some(layer) if layer.is_absolute() => Some(Place::Upper { layer, within }),
        Some(_) => None,
    }
}

struct Mount {
    root: PathBuf,
    point: PathBuf,
    kind: OsString,
    upper: Option<PathBuf>,
}

impl Mount {
    /// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [FIELDS] - TYPE SOURCE SUPER_OPTIONS`.
    fn parse(line: &[u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
        let upper = fields.get(dash + 3).and_then(|options| {
            let mut options = options.split(|byte| *byte == b',');
            options.find_map(|option| option.strip_prefix(b"upperdir="))
        });
        Some(Self {
            root: unescaped(fields[3]),
            point: unescaped(fields[4]),
            kind: OsStr::from_bytes(fields.get(dash + 1)?).to_owned(),
            upper: upper.map(unescaped),
        })
    }
}

/// Blanks, tabs, line ends and backslashes are written as three octal digits (seq_file's `mangle_path`).
fn unescaped(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|it| (b'0'..b'8').contains(it)));
        if let Some(digits) = octal {
            out.push(digits.iter().fold(0_u8, |sum, digit| sum.wrapping_mul(8).wrapping_add(digit - b'0')));
            rest = &after[3..];
        } else {
            out.push(byte);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"500 400 0:52 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/l/2:/l/1,upperdir=/l/3/fs,workdir=/l/3/w\n\
        501 500 0:60 / /proc rw - proc proc rw\n\
        502 500 8:1 /data /srv/data rw shared:7 master:3 - ext4 /dev/sda1 rw\n\
        503 500 0:53 / /opt/two\\040words rw - overlay o rw,upperdir=/x\\134y\\040z,lowerdir=/a\n\
        504 500 0:54 / /ro ro - overlay o ro,lowerdir=/a:/b\n\
        505 500 0:55 /inner /part rw - overlay o rw,upperdir=/u\n\
        506 500 0:56 / /relative rw - overlay o rw,upperdir=u\n\
        half a line\n";

    #[test]
    fn the_nearest_overlay_says_where_a_copy_would_be() {
        let place = |path: &str| place_of(MOUNTS, Path::new(path));
        let upper = |layer: &str, within: &str| Some(Place::Upper { layer: layer.into(), within: within.into() });
        assert_eq!(place("/app/server"), upper("/l/3/fs", "app/server"));
        assert_eq!(place("/opt/two words/app"), upper("/x\\y z", "app"));
        assert_eq!(place("/ro/app"), Some(Place::Nowhere), "nobody can have copied it");
        assert_eq!(place("/srv/data/app"), None, "it is not on an overlay");
        assert_eq!(place("/part/app"), None, "paths there are not those of the layer");
        assert_eq!(place("/relative/app"), None);
        assert_eq!(place("/relatively/app"), upper("/l/3/fs", "relatively/app"), "not below that mount");
        assert_eq!(place_of(b"", Path::new("/app")), None);
    }

    #[test]
    fn a_process_that_shares_its_mounts_with_all_above_it_has_no_runtime() {
        assert_eq!(parent(std::process::id()), Some(std::os::unix::process::parent_id()));
        assert_eq!(parent(u32::MAX), None);
        // As root; otherwise the namespaces of others cannot be seen, and nothing is told either.
        assert_eq!(runtimes_root(std::process::id()), None);
    }

    #[test]
    fn a_file_of_this_machine_does_not_last() {
        let me = Process::find(std::process::id()).unwrap();
        assert!(!is_lasting(&me, &me.open().unwrap(), true));
    }
}

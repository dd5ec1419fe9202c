//! Telling one process, and one executable, from another: ids are reused, files are replaced, processes exec in place.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};
use serde::Serialize;

use super::usage::{Image, Stat};

/// One executable file as it is mapped, also when its name has been removed or given to another file since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(crate) struct FileId {
    /// Device, as `stat` says it; 0 on overlayfs, where each mount has its own for what may be one underlying file, as the
    /// containers of one image have, and a probe on that file is on all of them.
    pub(crate) device: u64,
    /// Inode number.
    pub(crate) inode: u64,
    /// Modification time, nanoseconds: a file written in place is another file to us.
    pub(crate) modified_ns: i128,
    /// Time of the inode's last change, nanoseconds, on overlayfs alone (0 elsewhere): a file that a container has changed is
    /// copied to its own layer, where it keeps number, size and modification time, but not this.
    pub(crate) changed_ns: i128,
    /// Size in bytes.
    pub(crate) size: u64,
}

impl FileId {
    /// The identity of an open file.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let nanoseconds = |seconds, rest| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        let overlay = fstatfs(file)?.filesystem_type() == OVERLAYFS_SUPER_MAGIC;
        Ok(Self {
            device: if overlay { 0 } else { meta.dev() },
            inode: meta.ino(),
            modified_ns: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            changed_ns: if overlay { nanoseconds(meta.ctime(), meta.ctime_nsec()) } else { 0 },
            size: meta.size(),
        })
    }
}

/// One image of one process: a new one after `execve`, and after the id is given to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProcessId {
    /// Process id in the PID namespace of /proc.
    pub(crate) pid: u32,
    /// When it started, which an `execve` leaves as it is (Linux: `de_thread` in fs/exec.c hands it on), and where its stack
    /// begins, which it does not.
    pub(crate) image: Image,
    /// What it runs.
    pub(crate) file: FileId,
}

/// A process with what names it.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Its identity.
    pub(crate) id: ProcessId,
    /// Where its executable was when it was started, without the kernel's " (deleted)".
    pub(crate) executable: PathBuf,
}

impl Process {
    /// Looks a process up. Kernel threads have no executable: `NotFound`, as for a process that is gone.
    pub(crate) fn find(pid: u32) -> io::Result<Self> {
        let image = Stat::read(pid)?.image;
        let executable = executable(pid)?;
        let file = FileId::of(&File::open(exe_path(pid))?)?;
        // The same process still, or the two halves would describe two.
        if Stat::read(pid)?.image != image {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Ok(Self { id: ProcessId { pid, image, file }, executable })
    }

    /// Opens the executable, checking that it is still the one that was found.
    pub(crate) fn open(&self) -> io::Result<File> {
        let file = File::open(exe_path(self.id.pid))?;
        if FileId::of(&file)? == self.id.file {
            Ok(file)
        } else {
            Err(io::Error::other("the process runs another executable now"))
        }
    }

    /// Holds the executable open, if it is the one that was inspected: by its identity, and by its build id, since a file that
    /// was written in place and given its old times back (as `rsync --inplace --times` does) is another under the same identity.
    pub(crate) fn hold(&self, inspected_build_id: Option<&str>) -> io::Result<Held> {
        let held = Held { file: self.open()?, id: self.id.file, build_id: inspected_build_id.map(str::to_owned) };
        held.still()?;
        Ok(held)
    }

    /// The path through which the kernel finds the executable's inode, whatever has become of its name.
    pub(crate) fn exe(&self) -> PathBuf {
        exe_path(self.id.pid)
    }
}

/// An executable held open: what is done to its path is done to the file that was inspected, also when the process runs
/// another by then, or its id is another process's.
#[derive(Debug)]
pub(crate) struct Held {
    file: File,
    id: FileId,
    build_id: Option<String>,
}

impl Held {
    /// A path to this very inode, for this process.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Whether the file still is what was inspected.
    pub(crate) fn still(&self) -> io::Result<()> {
        let build_id = gobinary::build_id(&self.file).map_err(io::Error::other)?;
        if build_id == self.build_id && FileId::of(&self.file)? == self.id {
            Ok(())
        } else {
            Err(io::Error::other("it is not the file that was inspected: it was written in place"))
        }
    }
}

/// Where a process's executable was when it was started.
pub(crate) fn executable(pid: u32) -> io::Result<PathBuf> {
    Ok(without_deleted(fs::read_link(exe_path(pid))?))
}

/// `/proc/PID/exe`.
fn exe_path(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

fn without_deleted(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(text) => Path::new(text).to_path_buf(),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_this_process_and_nothing_for_one_that_is_not() {
        let me = Process::find(std::process::id()).unwrap();
        assert_eq!(me.id.pid, std::process::id());
        assert!(me.id.image != Image::default() && me.id.file.inode > 0);
        assert_eq!(me.executable, std::env::current_exe().unwrap());
        assert_eq!(Process::find(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// A program that runs until it is dropped.
    struct Sleeper(std::process::Child);

    impl Sleeper {
        fn start(binary: &Path) -> (Self, Process) {
            // A child that another test starts has the file that was just written open too, until its `execve`.
            let child = loop {
                match std::process::Command::new(binary).arg("60").spawn() {
                    Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                    spawned => break spawned.unwrap(),
                }
            };
            let pid = child.id();
            let sleeper = Self(child);
            // The child is this test's own image until its `execve`.
            for _ in 0..500 {
                if let Ok(process) = Process::find(pid)
                    && process.executable == binary
                {
                    return (sleeper, process);
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            panic!("{} was not started", binary.display());
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_swap_is_caught() {
        let directory = std::env::temp_dir().join(format!("gopulse-swap-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let binary = directory.join("sleeper");
        fs::copy("/bin/sleep", &binary).unwrap();
        let build_id = gobinary::build_id(File::open(&binary).unwrap()).unwrap().expect("sleep has a build id");
        let (sleeper, before) = Sleeper::start(&binary);
        let held = before.hold(Some(&build_id)).unwrap();
        assert_eq!(fs::metadata(held.path()).unwrap().ino(), before.id.file.inode);
        assert!(before.hold(None).is_err() && before.hold(Some("00")).is_err());

        // Another file under its name: the process still runs the first.
        let next = directory.join("next");
        fs::copy("/bin/sleep", &next).unwrap();
        fs::rename(&next, &binary).unwrap();
        before.hold(Some(&build_id)).unwrap();
        let (second, after) = Sleeper::start(&binary);
        assert_ne!(after.id.file, before.id.file);
        // The id of a process that runs the second now, and the identity of the first.
        let reused = Process { id: ProcessId { file: before.id.file, ..after.id }, ..after.clone() };
        assert!(reused.hold(Some(&build_id)).unwrap_err().to_string().contains("another executable now"));
        // What was held is the first for ever.
        drop(sleeper);
        held.still().unwrap();
        assert_eq!(fs::metadata(held.path()).unwrap().ino(), before.id.file.inode);

        // Written in place, as long as before, and given its old time back: the same to stat.
        let held = after.hold(Some(&build_id)).unwrap();
        drop(second);
        let mut bytes = fs::read(&binary).unwrap();
        let raw: Vec<u8> =
            (0..build_id.len() / 2).map(|i| u8::from_str_radix(&build_id[2 * i..2 * i + 2], 16).unwrap()).collect();
        let at = bytes.windows(raw.len()).position(|window| window == raw).unwrap();
        bytes[at] ^= 1;
        let modified = fs::metadata(&binary).unwrap().modified().unwrap();
        fs::write(&binary, &bytes).unwrap();
        File::options().write(true).open(&binary).unwrap().set_modified(modified).unwrap();
        let (_third, swapped) = Sleeper::start(&binary);
        if swapped.id.file.changed_ns == 0 {
            assert_eq!(swapped.id.file, after.id.file, "stat cannot tell them apart");
        }
        assert!(held.still().unwrap_err().to_string().contains("not the file that was inspected"));
        assert!(swapped.hold(Some(&build_id)).is_err());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_removed_executable_keeps_its_name() {
        assert_eq!(without_deleted("/srv/app (deleted)".into()), PathBuf::from("/srv/app"));
        assert_eq!(without_deleted("/srv/app".into()), PathBuf::from("/srv/app"));
    }
}

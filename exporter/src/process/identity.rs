//! Telling one process, and one executable, from another: ids are reused, files are replaced, processes exec in place.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{Statx, StatxTimestamp};

use super::{
    code::Code,
    filesystem,
    usage::{Image, Stat},
};

/// One executable file as it is mapped, also when its name has been removed or given to another file since, and whatever is
/// written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Inode {
    /// Device, as `stat` says it; 0 where no real device is behind it, as on overlayfs, where each mount has its own number for
    /// what may be one underlying file, as the containers of one image have.
    pub(crate) device: u64,
    /// Its number.
    pub(crate) number: u64,
}

/// One content of one file, as far as `stat` tells: what was read of a file holds for no other. Two files may still agree in it,
/// as those do on two file systems below overlayfs that were made from one image; [`Code`] tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FileId {
    /// Which file.
    pub(crate) inode: Inode,
    /// Modification time, nanoseconds, which can be set to any value.
    pub(crate) modified_ns: i128,
    /// Time of the inode's last change, nanoseconds: of its content, but also of its mode or its names.
    pub(crate) changed_ns: i128,
    /// Size in bytes.
    pub(crate) size: u64,
}

impl FileId {
    /// By what the kernel knows, without a question to the file system.
    fn of(seen: &Statx) -> Self {
        let nanoseconds = |at: StatxTimestamp| i128::from(at.tv_sec) * 1_000_000_000 + i128::from(at.tv_nsec);
        Self {
            inode: Inode {
                device: if seen.stx_dev_major == 0 { 0 } else { filesystem::device(seen) },
                number: seen.stx_ino,
            },
            modified_ns: nanoseconds(seen.stx_mtime),
            changed_ns: nanoseconds(seen.stx_ctime),
            size: seen.stx_size,
        }
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
    /// What it runs. Its content is no part of this: a file cannot be written while it runs, but renamed and touched.
    pub(crate) inode: Inode,
}

/// A process with what names it.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Its identity.
    pub(crate) id: ProcessId,
    /// Its executable, when it was found.
    pub(crate) file: FileId,
    /// The device that its executable is on, also where that is no real one.
    pub(crate) device: u64,
    /// Where its executable was when it was started, without the kernel's " (deleted)".
    pub(crate) executable: PathBuf,
}

#[cfg(test)]
impl Process {
    /// A process of a file that has this inode number, for tests; `started` tells it from others with its id.
    pub(crate) fn sample(pid: u32, file: u64, started: u64) -> Self {
        let inode = Inode { device: 1, number: file };
        let mut image = Image::default();
        image.started = started;
        Self {
            id: ProcessId { pid, image, inode },
            file: FileId { inode, modified_ns: 0, changed_ns: 0, size: 1 },
            device: 1,
            executable: format!("/bin/app{file}").into(),
        }
    }
}

impl Process {
    /// Looks a process up. Kernel threads have no executable: `NotFound`, as for a process that is gone. Waits for nobody: neither
    /// for the process's memory nor for the file system that its executable is on.
    pub(crate) fn find(pid: u32) -> io::Result<Self> {
        let image = Stat::read(pid)?.image;
        let executable = executable(pid)?;
        let seen = filesystem::stat_of_path(&exe_path(pid))?;
        let file = FileId::of(&seen);
        // The same process still, or the two halves would describe two.
        if Stat::read(pid)?.image != image {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Ok(Self {
            id: ProcessId { pid, image, inode: file.inode },
            file,
            device: filesystem::device(&seen),
            executable,
        })
    }

    /// Whether it still is the process that was found.
    pub(crate) fn is_there(&self) -> bool {
        Self::find(self.id.pid).is_ok_and(|now| now.id == self.id)
    }

    /// Opens the executable, checking that it is still the one that was found. Opening and reading wait for its file system.
    ///
    /// # Errors
    /// `Unsupported` where that might never answer; `InvalidData` where the process runs another executable now.
    pub(crate) fn open(&self) -> io::Result<File> {
        // First a handle, which can be asked what it is of before anything waits.
        let handle = filesystem::handle(&exe_path(self.id.pid))?;
        let seen = filesystem::stat_of(&handle)?;
        if FileId::of(&seen).inode != self.id.inode {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the process runs another executable now"));
        }
        filesystem::may_be_read(self.id.pid, &seen)?;
        filesystem::open(&handle)
    }

    /// Holds the executable open, if its code is what was inspected. What `stat` says does not show that: a file that was
    /// written in place can be given its old times, and files of two file systems may agree in all that it says.
    ///
    /// # Errors
    /// `NotFound` where the process is gone; `InvalidData` where its code is another; another kind where that cannot be told.
    pub(crate) fn hold(&self, inspected: &Code) -> io::Result<Held> {
        let held = Held { file: self.open()?, code: inspected.clone() };
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
    code: Code,
}

impl Held {
    /// A path to this very inode, for this process.
    pub(crate) fn path(&self) -> PathBuf {
        filesystem::path_of(&self.file)
    }

    /// Whether the file's code still is what was inspected.
    pub(crate) fn still(&self) -> io::Result<()> {
        if self.code.is_in(&self.file)? {
            Ok(())
        } else {
            let what = "its code is not what was inspected: the file was written in place";
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
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
mod tests;

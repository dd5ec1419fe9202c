use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;

#[test]
fn finds_this_process_and_nothing_for_one_that_is_not() {
    let me = Process::find(std::process::id()).unwrap();
    assert_eq!(me.id.pid, std::process::id());
    assert!(me.id.image != Image::default() && me.id.inode.number > 0 && me.file.inode == me.id.inode);
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
        // The child is this test's own image until its `execve`, which changes one thing after another.
        let mut before: Option<Process> = None;
        for _ in 0..500 {
            let found = Process::find(pid).ok().filter(|it| it.executable == binary);
            if let (Some(found), Some(before)) = (&found, &before)
                && (found.id, found.file) == (before.id, before.file)
            {
                return (sleeper, found.clone());
            }
            before = found;
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
    // Stands for the code of a function: what is in the middle of the file.
    let middle = fs::metadata(&binary).unwrap().len() / 2;
    let code = Code::read(&File::open(&binary).unwrap(), [(middle, 32)]).unwrap();
    let (sleeper, before) = Sleeper::start(&binary);
    let held = before.hold(&code).unwrap();
    assert_eq!(fs::metadata(held.path()).unwrap().ino(), before.id.inode.number);
    assert!(before.hold(&Code::default()).is_err());

    // Its mode and its times are not its code, but may be another file's.
    File::options().write(false).read(true).open(&binary).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o700)).unwrap();
    before.hold(&code).unwrap();
    let touched = Process::find(before.id.pid).unwrap();
    assert_eq!(touched.id, before.id);
    assert_ne!(touched.file, before.file);

    // Another file under its name: the process still runs the first.
    let next = directory.join("next");
    fs::copy("/bin/sleep", &next).unwrap();
    fs::rename(&next, &binary).unwrap();
    before.hold(&code).unwrap();
    let (second, after) = Sleeper::start(&binary);
    assert_ne!(after.id.inode, before.id.inode);
    // The id of a process that runs the second now, and the identity of the first.
    let reused = Process { id: ProcessId { inode: before.id.inode, ..after.id }, ..after.clone() };
    assert!(reused.hold(&code).unwrap_err().to_string().contains("another executable now"));
    // What was held is the first for ever.
    drop(sleeper);
    held.still().unwrap();
    assert_eq!(fs::metadata(held.path()).unwrap().ino(), before.id.inode.number);

    // Written in place, as long as before, and given its old time back.
    let held = after.hold(&code).unwrap();
    drop(second);
    let mut bytes = fs::read(&binary).unwrap();
    bytes[middle as usize] ^= 1;
    let modified = fs::metadata(&binary).unwrap().modified().unwrap();
    fs::write(&binary, &bytes).unwrap();
    File::options().write(true).open(&binary).unwrap().set_modified(modified).unwrap();
    let (_third, swapped) = Sleeper::start(&binary);
    assert_eq!((swapped.id.inode, swapped.file.size), (after.id.inode, after.file.size));
    assert_ne!(swapped.file, after.file, "the time of its change cannot be set");
    assert!(held.still().unwrap_err().to_string().contains("not what was inspected"));
    assert!(swapped.hold(&code).is_err());
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_removed_executable_keeps_its_name() {
    assert_eq!(without_deleted("/srv/app (deleted)".into()), PathBuf::from("/srv/app"));
    assert_eq!(without_deleted("/srv/app".into()), PathBuf::from("/srv/app"));
}

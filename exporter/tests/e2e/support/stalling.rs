//! A file system in user space whose server stops answering when a test says so, with one program under many names.

use std::{
    ffi::OsStr,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, ReplyStatfs, Request,
    SessionACL,
};

/// After so long it answers again, so that nothing waits for a test that failed.
const GUARD: Duration = Duration::from_mins(2);
/// Nothing that the kernel may keep without asking again.
const TTL: Duration = Duration::ZERO;

type Answer = Box<dyn FnOnce() + Send>;

/// Answers that are held back, while they are.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<Option<Vec<Answer>>>>);

impl Gate {
    fn pass(&self, answer: impl FnOnce() + Send + 'static) {
        let mut held = self.0.lock().expect("nobody panics with it");
        match &mut *held {
            Some(held) => held.push(Box::new(answer)),
            None => answer(),
        }
    }

    fn open(&self) {
        let held = self.0.lock().expect("nobody panics with it").take();
        held.into_iter().flatten().for_each(|answer| answer());
    }
}

/// The file system, mounted until this is dropped.
pub(crate) struct Stalling {
    at: PathBuf,
    gate: Gate,
    session: Option<BackgroundSession>,
}

struct Files {
    content: Arc<Vec<u8>>,
    count: u64,
    gate: Gate,
}

fn name(number: u64) -> String {
    format!("never-answers-{number:02}")
}

impl Stalling {
    /// Mounts it at this place, with so many files of this content.
    pub(crate) fn mount(at: PathBuf, content: Vec<u8>, count: u64) -> Self {
        let _ = Command::new("umount").arg("--lazy").arg(&at).output();
        std::fs::create_dir_all(&at).expect("a directory");
        let gate = Gate::default();
        let files = Files { content: Arc::new(content), count, gate: gate.clone() };
        let mut config = Config::default();
        // Whoever asks has to wait, also for statfs(2).
        config.acl = SessionACL::All;
        let session = fuser::spawn_mount(files, &at, &config).expect("root may mount");
        Self { at, gate, session: Some(session) }
    }

    /// Where its files are.
    pub(crate) fn at(&self) -> &PathBuf {
        &self.at
    }

    /// The names of its files.
    pub(crate) fn names(count: u64) -> impl Iterator<Item = String> {
        (0..count).map(name)
    }

    /// Answers nothing from here on, until [`Stalling::go_on`].
    pub(crate) fn stall(&self) {
        self.gate.0.lock().expect("nobody panics with it").get_or_insert_default();
        let gate = self.gate.clone();
        thread::spawn(move || {
            thread::sleep(GUARD);
            gate.open();
        });
    }

    /// Answers what was asked meanwhile, and goes on.
    pub(crate) fn go_on(&self) {
        self.gate.open();
    }
}

impl Drop for Stalling {
    fn drop(&mut self) {
        self.go_on();
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).output();
        drop(self.session.take());
    }
}

impl Files {
    fn attributes(&self, ino: u64) -> Option<FileAttr> {
        let root = ino == INodeNo::ROOT.0;
        let size = if root { 0 } else { self.content.len() as u64 };
        (root || (2..2 + self.count).contains(&ino)).then_some(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if root { FileType::Directory } else { FileType::RegularFile },
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, _: INodeNo, wanted: &OsStr, reply: ReplyEntry) {
        let number = (0..self.count).find(|number| wanted.to_str() == Some(&name(*number)));
        let attributes = number.and_then(|number| self.attributes(2 + number));
        self.gate.pass(move || match attributes {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let attributes = self.attributes(ino.0);
        self.gate.pass(move || match attributes {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        });
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.gate.pass(move || reply.opened(FileHandle(0), FopenFlags::empty()));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let content = Arc::clone(&self.content);
        self.gate.pass(move || {
            let from = content.len().min(offset as usize);
            reply.data(&content[from..content.len().min(from + size as usize)]);
        });
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        for number in offset..self.count {
            if reply.add(INodeNo(2 + number), number + 1, FileType::RegularFile, name(number)) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.gate.pass(move || reply.statfs(0, 0, 0, 0, 0, 4096, 255, 0));
    }
}

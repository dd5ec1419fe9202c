//! Reads of kernel maps that fail in a running agent: its system calls are traced (ptrace(2)), and those chosen return an error in
//! place of what they would.

use std::{
    collections::HashSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options, regset::NT_PRSTATUS},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use self::registers::{argument, call, is_entry, result};

/// `BPF_MAP_LOOKUP_BATCH` (include/uapi/linux/bpf.h).
const LOOKUP_BATCH: u64 = 24;
/// No command of bpf(2): nothing is done.
const NO_COMMAND: u64 = 0xffff;

/// While this lives, every batch but the first of a read of a map fails: what was read by then is a part of the map.
pub(crate) struct Failing {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
    tracer: Option<JoinHandle<()>>,
}

impl Failing {
    pub(crate) fn of(agent: u32) -> Self {
        let (stop, failed) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stops, fails) = (Arc::clone(&stop), Arc::clone(&failed));
        let tracer = thread::spawn(move || trace(Pid::from_raw(agent as i32), &stops, &fails));
        Self { stop, failed, tracer: Some(tracer) }
    }

    /// How many have failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The kernel lets go of what a thread traces when that ends.
        let ended = self.tracer.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "the tracer failed");
    }
}

fn trace(agent: Pid, stop: &AtomicBool, failed: &AtomicU64) {
    let tasks = fs::read_dir(format!("/proc/{agent}/task")).expect("it runs");
    for task in tasks.flatten() {
        let task = Pid::from_raw(task.file_name().to_string_lossy().parse().expect("a number"));
        // One may have ended meanwhile, or be traced as another's child already.
        if ptrace::seize(task, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE).is_ok() {
            let _ = ptrace::interrupt(task);
        }
    }
    let mut failing = HashSet::new();
    loop {
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let (task, signal) = match waitpid(None, Some(flags)) {
            Ok(WaitStatus::StillAlive) => {
                if stop.load(Ordering::Relaxed) && failing.is_empty() {
                    return;
                }
                thread::sleep(Duration::from_micros(100));
                continue;
            }
            Ok(WaitStatus::PtraceSyscall(task)) => {
                at_system_call(task, &mut failing, failed, stop.load(Ordering::Relaxed));
                (task, None)
            }
            Ok(WaitStatus::Stopped(task, signal)) => (task, Some(signal)),
            Ok(WaitStatus::PtraceEvent(task, ..)) => (task, None),
            Ok(_) => continue,
            Err(Errno::ECHILD) => return,
            Err(error) => panic!("waitpid: {error}"),
        };
        // It may be gone.
        let _ = ptrace::syscall(task, signal);
    }
}

fn at_system_call(task: Pid, failing: &mut HashSet<Pid>, failed: &AtomicU64, over: bool) {
    let Ok(mut registers) = ptrace::getregset::<NT_PRSTATUS>(task) else { return };
    if failing.remove(&task) {
        *result(&mut registers) = (-i64::from(nix::libc::ENOMEM)).cast_unsigned();
        ptrace::setregset::<NT_PRSTATUS>(task, registers).expect("it stands still");
        failed.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let [number, command, attributes] = call(&registers);
    let is_batch = number == nix::libc::SYS_bpf.cast_unsigned() && command == LOOKUP_BATCH;
    // The first member: where the batch begins, none for the first.
    if is_entry(&registers)
        && is_batch
        && !over
        && ptrace::read(task, attributes as ptrace::AddressType).is_ok_and(|from| from != 0)
    {
        *argument(&mut registers) = NO_COMMAND;
        ptrace::setregset::<NT_PRSTATUS>(task, registers).expect("it stands still");
        failing.insert(task);
    }
}

/// The registers of a system call, as syscall(2) has them.
#[cfg(target_arch = "x86_64")]
mod registers {
    use nix::libc::user_regs_struct;

    /// The call's number and its first two arguments.
    pub(super) fn call(registers: &user_regs_struct) -> [u64; 3] {
        [registers.orig_rax, registers.rdi, registers.rsi]
    }

    /// -ENOSYS is what an entry has there, and no exit of bpf(2).
    pub(super) fn is_entry(registers: &user_regs_struct) -> bool {
        registers.rax.cast_signed() == -i64::from(nix::libc::ENOSYS)
    }

    pub(super) fn argument(registers: &mut user_regs_struct) -> &mut u64 {
        &mut registers.rdi
    }

    pub(super) fn result(registers: &mut user_regs_struct) -> &mut u64 {
        &mut registers.rax
    }
}

#[cfg(target_arch = "aarch64")]
mod registers {
    use nix::libc::user_regs_struct;

    /// The call's number and its first two arguments.
    pub(super) fn call(registers: &user_regs_struct) -> [u64; 3] {
        [registers.regs[8], registers.regs[0], registers.regs[1]]
    }

    /// At such a stop x7 is 0 for an entry and 1 for an exit (arch/arm64/kernel/ptrace.c: report_syscall).
    pub(super) fn is_entry(registers: &user_regs_struct) -> bool {
        registers.regs[7] == 0
    }

    pub(super) fn argument(registers: &mut user_regs_struct) -> &mut u64 {
        &mut registers.regs[0]
    }

    pub(super) fn result(registers: &mut user_regs_struct) -> &mut u64 {
        &mut registers.regs[0]
    }
}

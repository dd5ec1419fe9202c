//! Reads a live Go runtime's own counters from outside, by the layouts of its executable. Costs the program nothing: no probe, no
//! write, no stop. Knows nothing of targets, labels or formats; anything it reads may be half changed, or another process's by
//! now, and is checked for that before it counts.

mod counters;
mod figures;
mod goroutines;
mod heap;
mod histogram;
mod layouts;
mod memory;
mod plan;
mod threads;

pub(crate) use self::{
    figures::{Buckets, DISTRIBUTIONS, FIGURES, Figure, Figures, GcSummary, Goroutines, QUANTILES, Reading, Waiting},
    goroutines::Scratch,
    layouts::LAYOUTS,
    plan::Plan,
};

use std::{fs::File, io, io::Read as _, sync::Arc, time::Duration};

use self::{
    counters::Look,
    memory::{Memory, u64_at},
    plan::Item,
};
use crate::process::{Image, Networks, Process, Stat, Usage};

/// What came of a look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its figures.
    Read,
    /// The process ended, or runs another image: no figures.
    Gone,
    /// Its runtime has not set itself up yet: the process's figures alone.
    TooEarly,
    /// Its memory changed under every look: the process's figures alone.
    Torn,
    /// Its memory cannot be read: the process's figures alone.
    Unreadable,
    /// Its memory says what cannot be: the process's figures alone.
    Absurd,
    /// Its memory took too long to read. In time: the process's figures alone; not in time for the answer: no figures.
    Slow,
}

impl Outcome {
    /// All of them.
    pub(crate) const ALL: [Self; 7] =
        [Self::Read, Self::Gone, Self::TooEarly, Self::Torn, Self::Unreadable, Self::Absurd, Self::Slow];

    /// As a label says it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Gone => "gone",
            Self::TooEarly => "too_early",
            Self::Torn => "torn",
            Self::Unreadable => "unreadable",
            Self::Absurd => "absurd",
            Self::Slow => "slow",
        }
    }
}

/// Goroutines that a program can have: each takes 2 KiB of stack, and these 8 TiB. More is a lie.
const MAX_GOROUTINES: u64 = 1 << 32;
/// CPU time of one look, or of one walk. A look takes a tenth of a millisecond, a walk 20 ms at most; more is a program's doing.
const LOOK_TIME: Duration = Duration::from_millis(100);

/// One image of one process, and how it is read.
#[derive(Debug)]
pub(crate) struct Reader {
    pid: u32,
    memory: Memory,
    image: Image,
    /// None where the runtime's memory is not read.
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Runtime {
    plan: Arc<Plan>,
    /// What is added to link-time addresses.
    bias: u64,
    /// The list of threads, as of the last look.
    threads: Vec<u64>,
    /// The figures of the last look.
    figures: Figures,
    /// Where the array of all goroutines was at the last look, and how many it had.
    allgs: Option<(u64, u64)>,
}

impl Reader {
    /// Begins with a process. Without a plan only the process's own figures are read.
    ///
    /// # Errors
    /// The process is gone, or is another by now; its memory does not look like its executable says.
    pub(crate) fn open(process: &Process, plan: Option<Arc<Plan>>) -> io::Result<Self> {
        let pid = process.id.pid;
        let image = process.id.image;
        let memory = Memory::of(pid)?;
        let runtime = plan.map(|plan| {
            let bias = plan.anchor.map_or(Ok(0), |anchor| load_bias(pid, anchor))?;
            check_version(memory, &plan, bias)?;
            Ok::<_, io::Error>(Runtime { plan, bias, threads: Vec::new(), figures: Figures::default(), allgs: None })
        });
        let runtime = runtime.transpose()?;
        // All of it was the same image's, and that is the one that is meant.
        if Process::find(pid)?.id != process.id {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self { pid, memory, image, runtime })
    }

    /// Reads everything but the walk over goroutines.
    pub(crate) fn read(&mut self, networks: &mut Networks) -> (Outcome, Reading) {
        let mut reading = Reading::default();
        let mut outcome = Outcome::Read;
        if let Some(runtime) = &mut self.runtime {
            outcome =
                runtime.read(self.memory.within(LOOK_TIME), &mut reading).unwrap_or_else(|error| match error.kind() {
                    io::ErrorKind::TimedOut => Outcome::Slow,
                    io::ErrorKind::InvalidData => Outcome::Absurd,
                    _ => Outcome::Unreadable,
                });
            if outcome != Outcome::Read {
                reading = Reading::default();
            }
        }
        let usage = Usage::read(self.pid, networks);
        // Last of all: that what was read is all of the image that is meant.
        let Some(stat) = Stat::read(self.pid).ok().filter(|stat| stat.image == self.image) else {
            return (Outcome::Gone, Reading::default());
        };
        process_figures(&stat, &usage, &mut reading.figures);
        (outcome, reading)
    }

    /// Walks over the goroutines that the last [`Self::read`] saw; none where that is not possible, or the process is gone.
    pub(crate) fn goroutines(&self, scratch: &mut Scratch) -> Option<Goroutines> {
        let runtime = self.runtime.as_ref()?;
        let (allgptr, allglen) = runtime.allgs?;
        let memory = self.memory.within(LOOK_TIME);
        let found =
            goroutines::walk(memory, &runtime.plan, allgptr, allglen, crate::clock::monotonic_ns(), scratch).ok()??;
        let same = Stat::read(self.pid).ok().is_some_and(|stat| stat.image == self.image);
        same.then_some(found)
    }
}

impl Runtime {
    fn read(&mut self, memory: Memory, out: &mut Reading) -> io::Result<Outcome> {
        let plan = &*self.plan;
        self.allgs = None;
        let Some(look) = Look::take(memory, plan, self.bias)? else { return Ok(Outcome::Torn) };
        if !look.has_begun() {
            return Ok(Outcome::TooEarly);
        }
        if look.word(Item::Allglen).is_some_and(|len| len > MAX_GOROUTINES) {
            return Ok(Outcome::Absurd);
        }
        self.allgs = look.word(Item::Allgptr).zip(look.word(Item::Allglen));
        let processors = match look.allp() {
            Some((allp, len)) => Some(threads::processors(memory, &plan.offsets, allp, len)?),
            None => None,
        };
        let threads = match look.word(Item::Allm) {
            Some(allm) => threads::threads(memory, &plan.offsets, allm, &mut self.threads)?,
            None => None,
        };
        look.figures(processors, threads, out);
        out.figures.at_least(&self.figures);
        self.figures.clone_from(&out.figures);
        Ok(Outcome::Read)
    }
}

fn process_figures(stat: &Stat, usage: &Usage, out: &mut Figures) {
    let mut set = |figure, value: Option<f64>| out.set_some(figure, value);
    let whole = |value: Option<u64>| value.map(|value| value as f64);
    set(Figure::ProcessCpuSecondsTotal, Some(stat.cpu_seconds));
    set(Figure::ProcessOpenFds, whole(usage.open_fds));
    set(Figure::ProcessMaxFds, whole(usage.max_fds));
    set(Figure::ProcessVirtualMemoryBytes, Some(stat.virtual_bytes as f64));
    set(Figure::ProcessVirtualMemoryMaxBytes, whole(usage.max_virtual_bytes));
    set(Figure::ProcessResidentMemoryBytes, Some(stat.resident_bytes as f64));
    set(Figure::ProcessStartTimeSeconds, stat.image.start_seconds());
    set(Figure::ProcessNetworkReceiveBytesTotal, whole(usage.network.map(|it| it.0)));
    set(Figure::ProcessNetworkTransmitBytesTotal, whole(usage.network.map(|it| it.1)));
}

impl Plan {
    /// Where a process has `memstats.last_gc_nanotime`; none where it says nothing of pauses (Go from 1.22 on), or the process is
    /// gone.
    pub(crate) fn last_gc_in(&self, pid: u32) -> Option<u64> {
        let address = self.last_gc?;
        let bias = self.anchor.map_or(Ok(0), |anchor| load_bias(pid, anchor)).ok()?;
        Some(address.wrapping_add(bias))
    }
}

/// How far from its link-time addresses a position-independent program is: by where the code at a file offset is mapped.
pub(crate) fn load_bias(pid: u32, (address, offset): (u64, u64)) -> io::Result<u64> {
    // Thousands of mappings are no rarity; the program's own come first.
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/maps"))?.take(256 * 1024).read_to_end(&mut bytes)?;
    // Names of files may be any bytes.
    let start = String::from_utf8_lossy(&bytes).lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (range, permissions, at) = (words.next()?, words.next()?, words.next()?);
        let (start, end) = range.split_once('-')?;
        let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
        let (start, end, at) = (hexadecimal(start)?, hexadecimal(end)?, hexadecimal(at)?);
        let inside = offset.checked_sub(at).filter(|inside| *inside < end - start)?;
        permissions.contains('x').then_some(start + inside)
    });
    let start = start.ok_or_else(|| io::Error::other("its code is not mapped where its executable says"))?;
    Ok(start.wrapping_sub(address))
}

/// Where the program keeps its Go version, it must be the one that the plan was made for.
fn check_version(memory: Memory, plan: &Plan, bias: u64) -> io::Result<()> {
    let Some(at) = plan.build_version else { return Ok(()) };
    let mut header = [0; 16];
    memory.read_at(at.wrapping_add(bias), &mut header)?;
    let (text, len) = (u64_at(&header, 0), u64_at(&header, 8));
    let mut found = vec![0; len.min(256) as usize];
    memory.read_at(text, &mut found)?;
    if found.starts_with(plan.version.as_bytes()) {
        return Ok(());
    }
    let found = String::from_utf8_lossy(&found).into_owned();
    Err(io::Error::other(format!("its memory says {found:?}, its executable {}", plan.version)))
}

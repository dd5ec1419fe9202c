//! What a hit of a probe costs on this machine: the programs themselves, attached to functions of the agent's own, once at
//! start. `unsafe` is allowed for calling those functions, which are written in assembly so that the instruction under the
//! probe is known.
#![allow(unsafe_code)]

use std::{fs, path::Path, time::Instant};

use exporter_ebpf::{
    feature::Feature,
    key::{Family, OfTarget as _, SeriesKey, address_key},
    target::TargetConfig,
    wait::{WaitState, Window},
};

use crate::kernel::{Kernel, Probe, Scope};

/// Calls that are timed: with three probes and 0.5 to 4 us a hit some ten milliseconds.
const CALLS: u32 = 1000;
/// An address that no goroutine has.
const G: u64 = 0x1000;
/// A wait reason that every Go version has.
const REASON: u64 = 1;
/// Frames of the stack that is taken: most goroutines that park have fewer.
const FRAMES: usize = 32;

/// Seconds of CPU that one hit costs the program it is in, the kernel's trap included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Costs {
    /// A probe that writes a map entry, on an instruction that the kernel emulates.
    pub(crate) park: f64,
    /// A probe that finds the entry and counts, on such an instruction.
    pub(crate) run: f64,
    /// What an instruction that is single-stepped adds.
    pub(crate) stepped: f64,
    /// What taking a stack of [`FRAMES`] adds.
    pub(crate) stack: f64,
}

impl Costs {
    /// What these hits of the probes on blocking cost.
    pub(crate) fn of_blocking(&self, hits: &WaitState) -> f64 {
        hits.parks as f64 * self.park + hits.runs as f64 * self.run + f64::from(hits.stacks) * self.stack
    }

    /// How many times as much a wait costs whose stack is taken.
    pub(crate) fn times_with_stacks(&self) -> f64 {
        1.0 + self.stack / (self.park + self.run)
    }
}

impl Default for Costs {
    /// Typical figures, for where nothing could be measured.
    fn default() -> Self {
        Self { park: 0.8e-6, run: 1.0e-6, stepped: 2.0e-6, stack: 2.0e-6 }
    }
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl gopulse_calibrate_park",
    "gopulse_calibrate_park:",
    "push rbp",
    "pop rbp",
    "ret",
    ".globl gopulse_calibrate_run",
    "gopulse_calibrate_run:",
    "push rbp",
    "pop rbp",
    "ret",
    ".globl gopulse_calibrate_stepped",
    "gopulse_calibrate_stepped:",
    "mov rax, rax",
    "ret",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl gopulse_calibrate_park",
    "gopulse_calibrate_park:",
    "nop",
    "ret",
    ".globl gopulse_calibrate_run",
    "gopulse_calibrate_run:",
    "nop",
    "ret",
    ".globl gopulse_calibrate_stepped",
    "gopulse_calibrate_stepped:",
    "mov x0, x0",
    "ret",
);

unsafe extern "C" {
    fn gopulse_calibrate_park();
    fn gopulse_calibrate_run();
    fn gopulse_calibrate_stepped();
}

/// Calls a function as Go code of this architecture would: the goroutine, the first arguments and the frame pointer in their
/// registers.
macro_rules! call {
    ($function:path, $frame:expr) => {
        // SAFETY: the functions above change nothing but what a C function may, and the frame pointer is as it was behind them.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            core::arch::asm!(
                "push rbp",
                "mov rbp, rdx",
                "call {function}",
                "pop rbp",
                function = sym $function,
                inout("r14") G => _,
                inout("rdx") $frame => _,
                inout("rax") G => _,
                inout("rcx") REASON => _,
                clobber_abi("C"),
            );
            #[cfg(target_arch = "aarch64")]
            core::arch::asm!(
                "stp x29, x30, [sp, #-16]!",
                "mov x29, x3",
                "bl {function}",
                "ldp x29, x30, [sp], #16",
                function = sym $function,
                inout("x28") G => _,
                inout("x3") $frame => _,
                inout("x0") G => _,
                inout("x2") REASON => _,
                clobber_abi("C"),
            );
        }
    };
}

/// Frames of a stack in memory as the kernel side walks them: each the address of the next one out, and one to return to.
struct Frames(Box<[[u64; 2]; FRAMES]>);

impl Frames {
    fn new() -> Self {
        let mut frames = Box::new([[0; 2]; FRAMES]);
        for i in 0..FRAMES {
            let next = frames.get(i + 1).map_or(0, |next| std::ptr::from_ref(next) as u64);
            frames[i] = [next, gopulse_calibrate_park as *const () as u64];
        }
        Self(frames)
    }

    fn innermost(&self) -> u64 {
        std::ptr::from_ref(&self.0[0]) as u64
    }
}

/// Measures. Blocks for some ten milliseconds, and for some hundred more where probes are perf events.
///
/// # Errors
/// What kept it from measuring, for a person.
pub(crate) fn calibrate(kernel: &Kernel) -> Result<Costs, String> {
    let pid = std::process::id();
    let exe = Path::new("/proc/self/exe");
    let maps = kernel.maps();
    let stack = Frames::new();
    let frame = stack.innermost();
    // No target has the id 0.
    let config = TargetConfig { pid, on: Feature::Blocking.bit(), ..TargetConfig::NONE };
    let window = Window { from_ns: 0, ..Window::CLOSED };
    maps.windows
        .set(config.id, &window)
        .and_then(|()| maps.targets.insert(&config))
        .map_err(|error| error.to_string())?;
    let measured = (|| {
        let attach = |probe, function: unsafe extern "C" fn()| {
            let offset = file_offset(function as *const () as u64)?;
            kernel.attach(probe, exe, &[offset], Scope::Process(pid)).map_err(|error| error.to_string())
        };
        let bare = time(|| call!(gopulse_calibrate_park, frame));
        let park = {
            let _link = attach(Probe::GoPark, gopulse_calibrate_park)?;
            time(|| call!(gopulse_calibrate_park, frame)) - bare
        };
        let stepped = {
            let _link = attach(Probe::GoPark, gopulse_calibrate_stepped)?;
            time(|| call!(gopulse_calibrate_stepped, frame)) - bare
        };
        let both = {
            let _links = (attach(Probe::GoPark, gopulse_calibrate_park)?, attach(Probe::GoRun, gopulse_calibrate_run)?);
            time(|| {
                call!(gopulse_calibrate_park, frame);
                call!(gopulse_calibrate_run, frame);
            }) - 2.0 * bare
        };
        let counted = maps.series.get(&SeriesKey::of(Family::Blocking, 0, REASON as u16));
        if counted.is_none_or(|value| value.count() < u64::from(CALLS)) {
            return Err("the probes were not hit".to_owned());
        }
        // The stack itself stays in its map, where the next profile begins by emptying it.
        maps.windows.set(config.id, &Window { stacks_from_ns: 0, ..window }).map_err(|error| error.to_string())?;
        let with_stack = {
            let _link = attach(Probe::GoPark, gopulse_calibrate_park)?;
            time(|| call!(gopulse_calibrate_park, frame)) - bare
        };
        Ok(Costs {
            park: park.max(1e-8),
            run: (both - park).max(1e-8),
            stepped: (stepped - park).max(0.0),
            stack: (with_stack - park).max(0.0),
        })
    })();
    maps.targets.remove(pid);
    let _ = maps.windows.set(config.id, &Window::CLOSED);
    maps.parked.remove(&address_key(0, G));
    if let Ok(keys) = maps.series.keys(|key| key.target() == 0) {
        maps.series.remove_all(&keys);
    }
    measured
}

/// Seconds a call: the fastest of several rounds, since whatever else the machine does only adds.
fn time(mut act: impl FnMut()) -> f64 {
    const ROUNDS: u32 = 5;
    act();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..CALLS / ROUNDS {
            act();
        }
        best = best.min(start.elapsed().as_secs_f64() / f64::from(CALLS / ROUNDS));
    }
    best
}

/// Where an address of this process is in its executable.
fn file_offset(address: u64) -> Result<u64, String> {
    let maps = fs::read_to_string("/proc/self/maps").map_err(|error| format!("/proc/self/maps: {error}"))?;
    let offset = maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let at = words.nth(1)?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let (start, end, at) = (hex(start)?, hex(end)?, hex(at)?);
        (start..end).contains(&address).then(|| address - start + at)
    });
    offset.ok_or_else(|| format!("{address:#x} is not in /proc/self/maps"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_functions_are_found_in_its_own_executable() {
        use std::os::unix::fs::FileExt as _;
        let offset = file_offset(gopulse_calibrate_park as *const () as u64).unwrap();
        let mut code = [0; 3];
        fs::File::open("/proc/self/exe").unwrap().read_exact_at(&mut code, offset).unwrap();
        if cfg!(target_arch = "x86_64") {
            assert_eq!(code, [0x55, 0x5d, 0xc3]);
        }
        call!(gopulse_calibrate_run, 0_u64);
    }

    #[test]
    fn stacks_count_where_they_were_taken() {
        let costs = Costs { park: 1.0, run: 2.0, stepped: 4.0, stack: 8.0 };
        let hits = WaitState { parks: 100, runs: 10, stops: 1000, ..WaitState::default() };
        assert!((costs.of_blocking(&hits) - 120.0).abs() < 1e-9);
        assert!((costs.of_blocking(&WaitState { stacks: 50, ..hits }) - 520.0).abs() < 1e-9);
        assert!((costs.times_with_stacks() - 11.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn frames_are_as_the_kernel_side_walks_them() {
        let stack = Frames::new();
        let mut at = stack.innermost();
        let mut seen = 0;
        while let Some([next, back]) = stack.0.iter().find(|it| std::ptr::from_ref(*it) as u64 == at) {
            assert_ne!(*back, 0);
            (at, seen) = (*next, seen + 1);
        }
        assert_eq!((at, seen), (0, FRAMES));
    }
}

//! The maps. User space may change a map's size before it loads the programs; their names are part of the contract.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, RingBuf},
};
use exporter_ebpf::{
    durations::{Durations, grows},
    event::{Event, KINDS, RING_BYTES},
    facts::Facts,
    http::{Hijacked, HttpState, MAX_HIJACKS, MAX_PANICS, MAX_REFUSED, MAX_ROUTED, PanicKey, Panicked, Routed},
    key::{MAX_SERIES, MAX_TEXTS, MAX_WAITS, SeriesKey, SeriesState, Text, TextKey},
    loss::{LostKey, MAX_LOST, Reason},
    span::{MAX_IN_FLIGHT, Span},
    target::{MAX_TARGETS, TARGET_SLOTS as SLOTS, TargetConfig},
};

/// Measured processes, by process id.
#[map]
pub(crate) static TARGETS: HashMap<u32, TargetConfig> = HashMap::with_max_entries(MAX_TARGETS, 0);

/// The same by [`exporter_ebpf::target::target_slot`]: the kernel compiles an array's look-up into a few instructions, where
/// a hash map's is a call of 60 to 80 ns.
#[map]
pub(crate) static TARGET_SLOTS: Array<TargetConfig> = Array::with_max_entries(SLOTS, 0);

/// What each target's instruments are told of it, by its id.
#[map]
pub(crate) static FACTS: Array<Facts> = Array::with_max_entries(MAX_TARGETS + 1, 0);

/// What goroutines are in the middle of.
#[map]
pub(crate) static INFLIGHT: HashMap<u64, Span> = HashMap::with_max_entries(MAX_IN_FLIGHT, 0);

/// What `INFLIGHT` refused, by its key there: told of at its start, it is not told of again at its end. The value is the
/// response writer where x/net's `runHandler` was refused, otherwise 0. The oldest give way.
#[map]
pub(crate) static REFUSED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(MAX_REFUSED, 0);

/// Requests whose goroutine panicked, until they end after all or the goroutine is gone.
#[map]
pub(crate) static PANICS: HashMap<PanicKey, Panicked> = HashMap::with_max_entries(MAX_PANICS, 0);

/// Requests whose connection was taken over on another goroutine, by response writer, until user space has found whose they are.
#[map]
pub(crate) static HIJACKS: HashMap<u64, Hijacked> = HashMap::with_max_entries(MAX_HIJACKS, 0);

/// Requests that muxes were given, where they are to be found by their headers. The oldest give way.
#[map]
pub(crate) static ROUTED: LruHashMap<u64, Routed> = LruHashMap::with_max_entries(MAX_ROUTED, 0);

/// Counts and durations, of all families.
#[map]
pub(crate) static SERIES: HashMap<SeriesKey, Durations> = HashMap::with_max_entries(MAX_SERIES + MAX_WAITS, 0);

/// What is kept of each target's series beside them, by its id.
#[map]
pub(crate) static SERIES_STATES: Array<SeriesState> = Array::with_max_entries(MAX_TARGETS + 1, 0);

/// The text of each series that has one.
#[map]
pub(crate) static TEXTS: HashMap<TextKey, Text> = HashMap::with_max_entries(MAX_TEXTS, 0);

/// What is kept of each target's requests beside, by its id.
#[map]
pub(crate) static HTTP_STATES: Array<HttpState> = Array::with_max_entries(MAX_TARGETS + 1, 0);

/// What could not be counted.
#[map]
pub(crate) static LOST: HashMap<LostKey, u64> = HashMap::with_max_entries(MAX_LOST, 0);

/// By kind of event: 1 from telling of it until user space looks; see [`tell_once`].
#[map]
pub(crate) static PENDING: Array<u32> = Array::with_max_entries(KINDS, 0);

/// Rare events.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Adds, and changes nothing that is there (include/uapi/linux/bpf.h).
pub(crate) const BPF_NOEXIST: u64 = 1;
/// Changes what is there, and adds nothing.
pub(crate) const BPF_EXIST: u64 = 2;

/// Adds one to what was lost. Rare, so a second map operation for the first of its kind does not matter.
#[inline(never)]
pub(crate) fn lost(target: u32, reason: Reason) {
    let key = LostKey { target, reason: reason as u32 };
    if LOST.get_ptr_mut(&key).is_none() {
        let _ = LOST.insert(&key, &0, BPF_NOEXIST);
    }
    if let Some(count) = LOST.get_ptr_mut(&key) {
        // SAFETY: from a look-up just above.
        unsafe { add(count, 1) };
    }
}

/// Adds to a counter in a map's value, atomically. Written as the instruction itself: Rust gives the BPF target no
/// read-modify-write atomics, and 5.10 knows only this one, without a result.
///
/// # Safety
/// The counter is in a map's value that was looked up in this run of the program, which keeps it valid until the run ends; it is
/// aligned to its size, and user space only reads it.
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut u64, amount: u64) {
    // SAFETY: as the caller says.
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) amount, options(nostack));
    }
}

/// Adds one to a counter of half the size, as [`add`] does.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub(crate) unsafe fn add_one(counter: *mut u32) {
    // SAFETY: as the caller says.
    unsafe {
        core::arch::asm!("lock *(u32 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1_u64, options(nostack));
    }
}

/// Adds a duration to a sum of them in a map's value, unless that has come to its end.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub(crate) unsafe fn add_time(sum_ns: *mut u64, duration_ns: u64) {
    // SAFETY: as the caller says; a word is read whole.
    unsafe {
        if grows(*sum_ns) {
            add(sum_ns, duration_ns);
        }
    }
}

/// Tells user space, and returns whether there was room. Lost events are counted; the scan of /proc is the net beneath.
#[inline(always)]
pub(crate) fn tell(kind: u32, pid: u32) -> bool {
    // SAFETY: no preconditions.
    let at_ns = unsafe { aya_ebpf::helpers::bpf_ktime_get_ns() };
    let told = EVENTS.output::<Event>(&Event { kind, pid, at_ns }, 0).is_ok();
    if !told {
        lost(0, Reason::EventRing);
    }
    told
}

/// Tells user space of what a program could make happen any number of times a second: not again before it has looked.
#[inline(never)]
pub(crate) fn tell_once(kind: u32, pid: u32) {
    let Some(pending) = PENDING.get_ptr_mut(kind) else { return };
    // SAFETY: from a map look-up; a word is read and written whole. Two CPUs that see 0 at one time tell twice.
    unsafe {
        if *pending != 0 {
            return;
        }
        *pending = 1;
        if !tell(kind, pid) {
            *pending = 0;
        }
    }
}

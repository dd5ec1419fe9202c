//! Spans of what can be within another of its kind on one goroutine, as a request that is made for the sake of another. Each is known by
//! the frame of the function that it is in: how far from the stack's end that is, which stays when Go copies the stack. Knows nothing
//! of what spans are of.

use exporter_ebpf::{
    event,
    loss::Reason,
    share::Table,
    span::{Lane, Span, span_key},
    target::{NONE, TargetConfig},
};

use super::{
    maps::{BPF_NOEXIST, INFLIGHT, REFUSED, lost, tell_once},
    memory::read,
    share,
};

/// `runtime.g.stack.hi`: its offset is known to other parts of Go too (runtime/runtime2.go: "offset known to runtime/cgo").
const STACK_HI: u16 = 8;

/// The frame of a function whose stack pointer is this, on a goroutine. Never 0.
#[inline(always)]
pub(super) fn frame(g: u64, sp: u64) -> u64 {
    read::<u64>(g, STACK_HI).unwrap_or(0).wrapping_sub(sp) | 1
}

/// The id of a goroutine; 0 where it is not known.
#[inline(always)]
fn goid(target: &TargetConfig, g: u64) -> u64 {
    if target.g_goid == NONE { 0 } else { read::<u64>(g, target.g_goid).unwrap_or(0) }
}

/// Begins a span in the first lane that has none under way; one further in than those that are. `span.words[2]` is the goroutine's id.
/// By itself for the verifier: it walks through the lanes once.
#[inline(never)]
pub(super) fn begin(target: &TargetConfig, g: u64, lanes: &[Lane; 3], span: &mut Span) {
    span.words[2] = goid(target, g);
    let mut i = 0;
    while i < lanes.len() {
        let key = span_key(target.id, g, lanes[i]);
        let Some(slot) = INFLIGHT.get_ptr_mut(&key) else {
            return insert(target, key, span);
        };
        // SAFETY: from a look-up just above. Only this goroutine's own probes write its entry, and it is in this one.
        let slot = unsafe { &mut *slot };
        if slot.open == 0 {
            *slot = *span;
            return;
        }
        // A frame that is no further out than this one's is gone, and so is another goroutine at this address: what was in it ended
        // unseen, as by a panic.
        if slot.open >= span.open || slot.words[2] != span.words[2] {
            lost(target.id, Reason::EndNotSeen);
            *slot = *span;
            return;
        }
        i += 1;
    }
    lost(target.id, Reason::NestedTooDeep);
    let _ = REFUSED.insert(&span_key(target.id, g, lanes[0]), &span.open, 0);
}

/// Inserts a span, where the target may have one more; what is refused is told, and kept as such.
#[inline(never)]
pub(super) fn insert(target: &TargetConfig, key: u64, span: &Span) {
    if !share::insert(Table::InFlight, target.id, || INFLIGHT.insert(&key, span, BPF_NOEXIST).is_ok()) {
        lost(target.id, Reason::InFlightFull);
        let _ = REFUSED.insert(&key, &span.open, 0);
        tell_once(event::IN_FLIGHT_FULL, target.pid);
    }
}

/// The span that ends now, with the frame that it began with; its entry is idle from here on. None where there is none: its start was not
/// seen, which is told unless it was refused, and told then.
#[inline(always)]
pub(super) fn take(target: &TargetConfig, g: u64, lanes: &[Lane; 3], frame: u64) -> Option<Span> {
    let mut i = 0;
    while i < lanes.len() {
        if let Some(slot) = INFLIGHT.get_ptr_mut(&span_key(target.id, g, lanes[i])) {
            // SAFETY: as in `begin`.
            let slot = unsafe { &mut *slot };
            if slot.open == frame {
                let span = *slot;
                slot.open = 0;
                return Some(span);
            }
        }
        i += 1;
    }
    no_start(target, g, lanes, frame);
    None
}

#[inline(never)]
fn no_start(target: &TargetConfig, g: u64, lanes: &[Lane; 3], frame: u64) {
    let mut i = 0;
    while i < lanes.len() {
        let key = span_key(target.id, g, lanes[i]);
        // SAFETY: copied before it is compared.
        if unsafe { REFUSED.get(&key) }.copied() == Some(frame) {
            let _ = REFUSED.remove(&key);
            return;
        }
        i += 1;
    }
    lost(target.id, Reason::NoStart);
}

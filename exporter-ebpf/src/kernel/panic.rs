//! Requests whose goroutine panics: what each is counted as, should its goroutine not end it normally after all. Knows nothing of
//! when the goroutine is gone: user space sees that.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::ProbeContext};
use exporter_ebpf::{
    event,
    feature::Feature,
    http::{GOES_ON, InFlight, PanicKey, Panicked, TOLD, request_key, status_code},
    key::{SeriesKey, target_of},
    loss::Reason,
    share::Table,
    target::{NONE, TargetConfig},
};

use super::{
    below::{admit_below, below},
    hijack::is_hijacked,
    hit::{UNREADABLE, measured, word},
    http::{http1_request, http2_state, in_flight},
    maps::{BPF_NOEXIST, PANICS, lost, tell_once},
    memory::read,
    regs::Regs,
    request::Subject,
    route::{new_route, series},
    routed::{Held, ask_routed},
    series::{HTTP_SERVER, admit, count, is_admitted},
    share::{self, give_back},
};

/// `runtime.gopanic` and `runtime.Goexit`: the goroutine may never come to the end of its request.
#[inline(always)]
pub(super) fn http_panic(ctx: &ProbeContext) {
    let Some(target) = measured(Feature::Http) else { return };
    let regs = Regs::of(ctx);
    let key = request_key(target.id, regs.g());
    // SAFETY: only this goroutine's own probes write its entry, and user space removes none that is being served.
    let Some(entry) = (unsafe { in_flight(key).map(|entry| &*entry) }) else { return };
    if entry.writer == 0 || is_hijacked(target.id, entry) || is_told_of_another(target, regs.g(), entry) {
        return;
    }
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut subject = Subject::of(entry.request);
    let status = panic_state(target, entry, &mut subject);
    if subject.address() != 0 {
        // Here, and not within, for its stack.
        ask_routed(target, Held::by(target, entry.request), entry.start_ns, false, &mut subject);
    }
    // Nothing was written yet: the client gets no answer at all, which is the server's failure.
    let (mut series, mut route) = series(target, &subject, status_code(status, 500));
    if !is_admitted(&series) {
        // There is no room on the stack for what joins routes.
        let subject = Subject { inner: 0, ..subject };
        let rest = below(target, &subject, &mut series, &mut route);
        new_route(ctx, target, &mut series, &route);
        admit_below(target, &mut series, &rest, 0);
        // Here, so that whoever settles the request need not know of limits.
        admit::<HTTP_SERVER>(&mut series);
    }
    remember(target, regs.g(), entry.start_ns, now, &series);
}

/// The status and the request to ask, where that is still being served. By itself for its stack, see `whole_request`.
#[inline(never)]
fn panic_state(target: &TargetConfig, entry: &InFlight, subject: &mut Subject) -> u64 {
    // HTTP/1 if the writer holds this very request where http.response does.
    if read::<u64>(entry.writer, target.response_req) == Some(entry.request) {
        *subject = http1_request(target, entry);
        return word(entry.writer, target.response_status);
    }
    // Every program has the server of net/http, so that only the start tells whose request it is.
    let server = if entry.outer & !(TOLD | GOES_ON) == 0 { &target.h2 } else { &target.xnet };
    if server.writer_rws == NONE {
        return UNREADABLE;
    }
    let (status, of, _) = http2_state(target, server, entry);
    *subject = of;
    status
}

/// Whether a panic is none of the request that the goroutine's entry is of: that has panicked before, and either it is settled, or its
/// goroutine was another, which has ended. The runtime gives its `g` to the next goroutine, which may serve nothing.
#[inline(never)]
fn is_told_of_another(target: &TargetConfig, g: u64, entry: &InFlight) -> bool {
    if entry.outer & TOLD == 0 {
        return false;
    }
    let key = PanicKey { goroutine: request_key(target.id, g), start_ns: entry.start_ns };
    // SAFETY: a word is read whole; user space removes the entry only once its goroutine writes it no more.
    match unsafe { PANICS.get(&key) } {
        Some(panicked) => Some(panicked.goid) != read::<u64>(g, target.g_goid),
        None => true,
    }
}

/// Marks the request that a goroutine serves as [`TOLD`]; whether it was not before.
#[inline(always)]
fn is_told_first(goroutine: u64) -> bool {
    let Some(slot) = in_flight(goroutine) else { return false };
    // SAFETY: from a look-up just above; only this goroutine's own probes write its entry.
    let slot = unsafe { &mut *slot };
    let first = slot.outer & TOLD == 0;
    slot.outer |= TOLD;
    first
}

/// Keeps what a request that panicked is to be counted as. By itself for its stack, see `whole_request`.
#[inline(never)]
fn remember(target: &TargetConfig, g: u64, start_ns: u64, now: u64, series: &SeriesKey) {
    let key = PanicKey { goroutine: request_key(target.id, g), start_ns };
    let panicked = Panicked {
        series: *series,
        duration_ns: now.wrapping_sub(start_ns),
        goid: read::<u64>(g, target.g_goid).unwrap_or(0),
        pid: target.pid,
        reserved: 0,
    };
    if let Some(earlier) = PANICS.get_ptr_mut(&key) {
        // The request has recovered from another panic, of which user space knows.
        // SAFETY: from a look-up just above. User space removes an entry only once its goroutine writes it no more.
        unsafe { *earlier = panicked };
    } else if share::insert(Table::Panics, target.id, || PANICS.insert(&key, &panicked, BPF_NOEXIST).is_ok()) {
        // Once user space has settled it, start_again() finds no panic of it, and must not take it for lost.
        let _ = is_told_first(key.goroutine);
        tell_once(event::PANIC, target.pid);
    } else if is_told_first(key.goroutine) {
        lost(target.id, Reason::PanicsFull);
    }
}

/// Counts the panicked request that began at `start_ns`; false where there is none. Of this and user space's settling one
/// alone succeeds in removing the entry, and that one counts.
#[inline(always)]
pub(super) fn settle_panic(goroutine: u64, start_ns: u64) -> bool {
    let key = PanicKey { goroutine, start_ns };
    // SAFETY: copied before it is removed.
    let Some(panicked) = unsafe { PANICS.get(&key) }.copied() else { return false };
    if PANICS.remove(&key).is_ok() {
        give_back(Table::Panics, target_of(goroutine));
        count::<HTTP_SERVER>(&panicked.series, panicked.duration_ns);
    }
    true
}

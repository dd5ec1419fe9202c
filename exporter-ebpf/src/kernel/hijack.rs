//! Connections that handlers take over: their requests end as such, whichever goroutine does it. Knows nothing of how requests begin.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::ProbeContext};
use exporter_ebpf::{
    event,
    feature::Feature,
    http::{self, GOES_ON, Hijacked, InFlight, request_key},
    key::{SeriesKey, address_key},
    share::Table,
    target::TargetConfig,
};

use super::{
    below::{admit_below, below},
    hit::{measured, word},
    http::{answered, http1_request, in_flight, is_request, take},
    maps::{BPF_EXIST, BPF_NOEXIST, HIJACKS, REFUSED, tell_once},
    memory::read,
    regs::Regs,
    request::Subject,
    route::new_route,
    routed::{Held, ask_routed},
    series::{HTTP_SERVER, admit, count, is_admitted},
    share::{self, give_back},
};

/// `net/http.(*response).Hijack()`: the request ends as such; what the connection carries afterwards is not HTTP.
#[inline(always)]
pub(super) fn http_hijack(ctx: &ProbeContext) {
    let Some(target) = measured(Feature::Http) else { return };
    let regs = Regs::of(ctx);
    let writer = regs.arg(0);
    // Without an entry, another goroutine serves the request with this response writer, and waits for this one. Entries are by
    // goroutine: user space looks whose it is.
    let own = take(target, regs.g(), writer);
    if own.is_some_and(|entry| entry.outer & GOES_ON != 0) {
        return;
    }
    if own.is_none() && REFUSED.remove(&request_key(target.id, regs.g())).is_ok() {
        return;
    }
    let mut subject = match &own {
        Some(entry) => http1_request(target, entry),
        None => Subject::with_line(read::<u64>(writer, target.response_req).unwrap_or(0)),
    };
    let (request, start_ns) = own.map_or((subject.address(), 0), |entry| (entry.request, entry.start_ns));
    ask_routed(target, Held::by(target, request), start_ns, true, &mut subject);
    let (mut series, mut route) = answered(target, &subject, word(writer, target.response_status), 101);
    if is_request(&mut series) && (subject.inner != 0 || !is_admitted(&series)) {
        let rest = below(target, &subject, &mut series, &mut route);
        new_route(ctx, target, &mut series, &route);
        admit_below(target, &mut series, &rest, subject.inner);
        admit::<HTTP_SERVER>(&mut series);
    }
    // SAFETY: no preconditions.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    if let Some(entry) = own {
        hijacked(&series, at_ns.wrapping_sub(entry.start_ns));
    } else {
        remember_hijack(target, address_key(target.id, writer), &Hijacked { series, at_ns });
    }
}

/// Keeps a hijack for user space. Where there is no room, the request's end is not seen, and told as such.
#[inline(never)]
fn remember_hijack(target: &TargetConfig, key: u64, hijacked: &Hijacked) {
    if HIJACKS.get_ptr(&key).is_some() {
        // A writer that had the same address, and whose request user space looks for.
        let _ = HIJACKS.insert(&key, hijacked, BPF_EXIST);
    } else if share::insert(Table::Hijacks, target.id, || HIJACKS.insert(&key, hijacked, BPF_NOEXIST).is_ok()) {
        tell_once(event::HIJACK, target.pid);
    }
}

/// `golang.org/x/net/http2/h2c.h2cUpgrade(w http.ResponseWriter, r *http.Request)`: it takes the connection over, and serves the
/// same request over HTTP/2.
#[inline(always)]
pub(super) fn h2c_upgrade(ctx: &ProbeContext) {
    let Some(target) = measured(Feature::Http) else { return };
    let Some(entry) = in_flight(request_key(target.id, Regs::of(ctx).g())) else { return };
    // SAFETY: from a look-up just above; only this goroutine's own probes write its entry.
    let entry = unsafe { &mut *entry };
    if entry.writer != 0 {
        entry.outer |= GOES_ON;
    }
}

/// What is known of the hijack of a request on another goroutine.
#[inline(always)]
fn hijack_of(target: u32, request: &InFlight) -> Option<Hijacked> {
    // SAFETY: copied before use.
    let found = unsafe { HIJACKS.get(&address_key(target, request.writer)) }.copied()?;
    if found.at_ns < request.start_ns { None } else { Some(found) }
}

/// By itself, so that a panic's program has no more on its stack.
#[inline(never)]
pub(super) fn is_hijacked(target: u32, request: &InFlight) -> bool {
    hijack_of(target, request).is_some()
}

#[inline(always)]
fn hijacked(series: &SeriesKey, duration_ns: u64) {
    if http::is_request(series) {
        count::<HTTP_SERVER>(series, duration_ns);
    }
}

/// Counts the request whose connection was taken over on another goroutine.
#[inline(always)]
pub(super) fn settle_hijack(target: u32, request: &InFlight) -> bool {
    let Some(found) = hijack_of(target, request) else { return false };
    if HIJACKS.remove(&address_key(target, request.writer)).is_ok() {
        give_back(Table::Hijacks, target);
        hijacked(&found.series, found.at_ns - request.start_ns);
    }
    true
}

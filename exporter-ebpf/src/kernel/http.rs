//! HTTP server requests: a start at the handler's call, an end where every normal way out passes, two map operations each.
//! A request is known by its goroutine: net/http calls the handler and ends the request on the same one (net/http/server.go:
//! conn.serve; h2_bundle.go: runHandler), and one goroutine serves one request at a time.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::uprobe,
    programs::ProbeContext,
};
use exporter_ebpf::{
    event,
    http::{
        GOES_ON, Hijacked, InFlight, PanicKey, Panicked, SeriesKey, TOLD, XNET, XNET_CALLED, goroutine_key,
        goroutine_key_target, status_code,
    },
    loss::Reason,
    method,
    share::Table,
    target::{Http2Offsets, NONE, TargetConfig, at_check, request_words, target_slot},
};

use super::{
    below::{admit_below, below},
    maps::{
        BPF_EXIST, BPF_NOEXIST, HIJACKS, INFLIGHT, PANICS, REFUSED, SERIES, TARGET_SLOTS, TARGETS, lost, tell_once,
    },
    memory::{GoString, read, zero},
    regs::Regs,
    request::{Subject, packed, same_word},
    routed::{Held, ask_routed, keep},
    series::{Route, admit, count, new_route, record, series},
    share::{self, give_back},
};

super::programs! {
    /// `net/http.serverHandler.ServeHTTP(rw ResponseWriter, req *Request)`: rw's data word is RCX, req RDI.
    http_start, http_start_multi => start(at_check::HTTP_START, 2, 3, 0);
    /// `golang.org/x/net/http2.(*serverConn).runHandler(rw *responseWriter, req *http.Request, ...)`.
    xnet_start, xnet_start_multi => start(at_check::XNET_START, 1, 2, XNET);
    /// `net/http.(*response).finishRequest()`.
    http1_end, http1_end_multi => http1_end_at();
    /// `net/http.(*http2responseWriter).handlerDone()`; `net/http/internal/http2.(*responseWriter).handlerDone()` from 1.27.
    http2_end, http2_end_multi => http2_end_at(at_check::HTTP2_END, |target| &target.h2);
    /// `golang.org/x/net/http2.(*responseWriter).handlerDone()`.
    xnet_end, xnet_end_multi => http2_end_at(at_check::XNET_END, |target| &target.xnet);
    /// `net/http.(*response).Hijack()`: the request ends as such; what the connection carries afterwards is not HTTP.
    http_hijack, http_hijack_multi => hijack_at();
    /// `golang.org/x/net/http2/h2c.h2cUpgrade(w http.ResponseWriter, r *http.Request)`: it takes the connection over, and serves the
    /// same request over HTTP/2.
    h2c_upgrade, h2c_upgrade_multi => upgrade_at();
    /// `runtime.gopanic` and `runtime.Goexit`: the goroutine may never come to the end of its request.
    http_panic, http_panic_multi => panic_at();
    /// `net/http.(*ServeMux).ServeHTTP(w ResponseWriter, r *Request)`: attached only where middleware hands a copy of the
    /// request to the mux, which then writes the pattern into the copy.
    http_mux, http_mux_multi => mux_at();
    /// For `cargo xtask bench overhead`: what a hit costs before a program does anything.
    nothing, nothing_multi => nothing_at();
}

#[inline(always)]
fn nothing_at(_: &ProbeContext) {}

/// A status that could not be read. A plain number, where an `Option`'s payload would be read undefined: the verifier minds.
const UNREADABLE: u64 = u64::MAX;

#[inline(always)]
fn word(base: u64, offset: u16) -> u64 {
    read::<u64>(base, offset).unwrap_or(UNREADABLE)
}

#[inline(always)]
fn pid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

#[inline(always)]
fn target(pid: u32) -> Option<&'static TargetConfig> {
    if let Some(slot) = TARGET_SLOTS.get(target_slot(pid))
        && slot.pid == pid
    {
        return Some(slot);
    }
    // SAFETY: user space replaces a value only to change limits; offsets of one process never change, so a torn read of a
    // value being replaced reads the same offsets.
    unsafe { TARGETS.get(&pid) }
}

/// The target and the registers of a call; nothing where it is no target's, or no call yet (see [`at_check`]).
#[inline(always)]
fn called(ctx: &ProbeContext, probe: u16) -> Option<(&'static TargetConfig, Regs<'_>)> {
    let target = target(pid())?;
    let regs = Regs::of(ctx);
    if target.at_check & probe != 0 && regs.lower_or_same() {
        return None;
    }
    Some((target, regs))
}

#[inline(always)]
fn start(ctx: &ProbeContext, probe: u16, writer: usize, request: usize, outer: u64) {
    let Some((target, regs)) = called(ctx, probe) else { return };
    let key = goroutine_key(target.id, regs.g());
    // SAFETY: no preconditions.
    let start_ns = unsafe { bpf_ktime_get_ns() };
    let entry = InFlight { start_ns, writer: regs.arg(writer), request: regs.arg(request), routed: zero(), outer };
    let Some(slot) = INFLIGHT.get_ptr_mut(&key) else {
        return start_first(target, key, &entry);
    };
    // SAFETY: from a look-up just above. Only this goroutine's own probes write its entry, and it is in this one. User space
    // removes idle entries: should it remove this one now, the request is told as lost at its end, as is that of a goroutine
    // that is given the entry's memory in the same moment.
    let slot = unsafe { &mut *slot };
    if slot.writer == 0 {
        *slot = entry;
    } else {
        start_again(target, key, slot, &entry);
    }
}

/// The goroutine has no entry yet.
#[inline(never)]
fn start_first(target: &TargetConfig, key: u64, entry: &InFlight) {
    if entry.outer == 0 && target.xnet.writer_rws != NONE {
        // SAFETY: copied before it is compared.
        let outer = unsafe { REFUSED.get(&key) }.copied();
        if outer == Some(entry.writer) {
            // x/net's runHandler was refused for the same request.
            return;
        }
    }
    if !share::insert(Table::InFlight, target.id, || INFLIGHT.insert(&key, entry, BPF_NOEXIST).is_ok()) {
        lost(target.id, Reason::InFlightFull);
        let outer = if entry.outer == 0 { 0 } else { entry.writer };
        let _ = REFUSED.insert(&key, &outer, 0);
        tell_once(event::IN_FLIGHT_FULL, target.pid);
    }
}

/// A request ended whose start is not in the map. `by_itself`: the server has answered it without a handler.
#[inline(always)]
fn no_start(target: &TargetConfig, g: u64, by_itself: bool) {
    if REFUSED.remove(&goroutine_key(target.id, g)).is_err() && !by_itself {
        lost(target.id, Reason::NoStart);
    }
}

/// `(*response).sendExpectationFailed` is the one answer without a handler that ends as others do (net/http/server.go).
#[inline(never)]
fn no_start_http1(target: &TargetConfig, g: u64, writer: u64) {
    no_start(target, g, word(writer, target.response_status) == 417);
}

/// `new400Handler` (`serve400Handler` from 1.27) and `handleHeaderListTooLong` are no handlers of the program's (h2_bundle.go).
#[inline(never)]
fn no_start_http2(target: &TargetConfig, server: &Http2Offsets, g: u64, writer: u64) {
    let status = word(word(writer, server.writer_rws), server.rws_status);
    no_start(target, g, status == 400 || status == 431);
}

/// The goroutine has not ended its earlier request.
#[inline(never)]
fn start_again(target: &TargetConfig, key: u64, old: &mut InFlight, entry: &InFlight) {
    if old.outer == XNET && entry.outer == 0 && old.writer == entry.writer {
        // x/net's runHandler, then serverHandler.ServeHTTP for the same request. The outer start stands.
        old.request = entry.request;
        old.outer = XNET_CALLED;
        return;
    }
    // The goroutine's address was reused, perhaps the writer's too: the earlier request ended in a panic, in a hijack on another
    // goroutine, or unseen.
    if !settle_panic(key, old.start_ns) && !settle_hijack(target.id, old) && old.outer & TOLD == 0 {
        lost(target.id, Reason::EndNotSeen);
    }
    *old = *entry;
}

/// Counts the panicked request that began at `start_ns`; false where there is none. Of this and user space's settling one
/// alone succeeds in removing the entry, and that one counts.
#[inline(always)]
fn settle_panic(goroutine: u64, start_ns: u64) -> bool {
    let key = PanicKey { goroutine, start_ns };
    // SAFETY: copied before it is removed.
    let Some(panicked) = unsafe { PANICS.get(&key) }.copied() else { return false };
    if PANICS.remove(&key).is_ok() {
        give_back(Table::Panics, goroutine_key_target(goroutine));
        count(&panicked.series, panicked.duration_ns);
    }
    true
}

/// The same for a request whose connection was taken over on another goroutine.
#[inline(always)]
fn settle_hijack(target: u32, request: &InFlight) -> bool {
    let Some(found) = hijack_of(target, request) else { return false };
    if HIJACKS.remove(&goroutine_key(target, request.writer)).is_ok() {
        give_back(Table::Hijacks, target);
        hijacked(&found.series, found.at_ns - request.start_ns);
    }
    true
}

/// The request that ends now; its entry is idle from here on. Rewriting an entry costs a third of removing it and inserting it
/// again for the next request of the connection.
#[inline(always)]
fn take(target: &TargetConfig, g: u64, writer: u64) -> Option<InFlight> {
    let slot = INFLIGHT.get_ptr_mut(&goroutine_key(target.id, g))?;
    // SAFETY: as in `start`.
    let slot = unsafe { &mut *slot };
    if slot.writer != writer {
        return None;
    }
    let entry = *slot;
    slot.writer = 0;
    Some(entry)
}

#[inline(always)]
fn http1_end_at(ctx: &ProbeContext) {
    let Some((target, regs)) = called(ctx, at_check::HTTP1_END) else { return };
    let writer = regs.arg(0);
    let Some(entry) = take(target, regs.g(), writer) else { return no_start_http1(target, regs.g(), writer) };
    let status = word(writer, target.response_status);
    let mut subject = http1_request(target, &entry);
    ask_routed(target, Held::by(target, entry.request), entry.start_ns, true, &mut subject);
    end(ctx, target, &entry, subject, status);
}

/// The request to ask: the copy that a mux was told of, where there is one. The response holds the request until it ends, and
/// with it the first line. Nothing holds the copy once it has been used last: while it shares the line's method or its target,
/// it is whole. Handlers replace either, but hardly both.
#[inline(always)]
fn http1_request(target: &TargetConfig, entry: &InFlight) -> Subject {
    let shared = |offset: u64| same_word(entry.request.wrapping_add(offset), entry.routed.wrapping_add(offset)) != 0;
    let copied =
        entry.routed != 0 && (shared(u64::from(target.request_method)) || shared(8 * request_words::URI as u64));
    Subject::with_line(if copied { entry.routed } else { entry.request })
}

#[inline(always)]
fn http2_end_at(ctx: &ProbeContext, probe: u16, server: impl Fn(&TargetConfig) -> &Http2Offsets) {
    let Some((target, regs)) = called(ctx, probe) else { return };
    let writer = regs.arg(0);
    let Some(entry) = take(target, regs.g(), writer) else {
        return no_start_http2(target, server(target), regs.g(), writer);
    };
    if server(target).writer_rws == NONE {
        return lost(target.id, Reason::LayoutUnknown);
    }
    let (status, mut subject, held) = http2_state(target, server(target), &entry);
    ask_routed(target, held, entry.start_ns, true, &mut subject);
    end(ctx, target, &entry, subject, status);
}

/// The status and the request to ask. The response writer's state holds the `*http.Request` until the end, but for Go 1.27's, which
/// holds a `ServerRequest`: there nothing holds the `*http.Request` once it has been used last, as nothing holds a copy that
/// a mux was told of, and the garbage collector may have given its memory to another. What shares the URL or the headers with
/// what is held is whole, since no other request has those. Texts would not do: HPACK's tables give one to many requests.
#[inline(always)]
fn http2_state(target: &TargetConfig, server: &Http2Offsets, entry: &InFlight) -> (u64, Subject, Held) {
    let mut held = Held::by(target, entry.request);
    let Some(rws) = read::<u64>(entry.writer, server.writer_rws) else {
        return (UNREADABLE, Subject::of(0), held);
    };
    let status = word(rws, server.rws_status);
    let mut subject = Subject::of(entry.request);
    if server.server_request_url != NONE {
        // The request is part of the state (Go 1.27: `req ServerRequest`).
        let request = rws.wrapping_add(u64::from(server.rws_req));
        held.url = request.wrapping_add(u64::from(server.server_request_url));
        held.header = request.wrapping_add(u64::from(server.server_request_header));
        // The URL follows the method: most often the one look is enough.
        let [ptr, len, url] = read::<[u64; 3]>(request, server.server_request_method).unwrap_or([0; 3]);
        subject.method = packed(GoString { ptr, len });
        let whole = url != 0 && read::<u64>(entry.request, target.request_url) == Some(url);
        if !whole && !held.is_of(target, entry.request) {
            subject.ask(0);
        }
    }
    if entry.routed != 0 && held.is_of(target, entry.routed) {
        subject.ask(entry.routed);
    }
    (status, subject, held)
}

impl Held {
    #[inline(always)]
    fn by(target: &TargetConfig, request: u64) -> Self {
        let at = |offset| request.wrapping_add(u64::from(offset));
        Self { url: at(target.request_url), header: at(target.request_header) }
    }

    #[inline(always)]
    fn is_of(&self, target: &TargetConfig, request: u64) -> bool {
        same_word(self.url, request.wrapping_add(u64::from(target.request_url))) != 0
            || same_word(self.header, request.wrapping_add(u64::from(target.request_header))) != 0
    }
}

#[inline(always)]
fn hijack_at(ctx: &ProbeContext) {
    let Some(target) = target(pid()) else { return };
    let regs = Regs::of(ctx);
    let writer = regs.arg(0);
    // Without an entry, another goroutine serves the request with this response writer, and waits for this one. Entries are by
    // goroutine: user space looks whose it is.
    let own = take(target, regs.g(), writer);
    if own.is_some_and(|entry| entry.outer & GOES_ON != 0) {
        return;
    }
    if own.is_none() && REFUSED.remove(&goroutine_key(target.id, regs.g())).is_ok() {
        return;
    }
    let mut subject = match &own {
        Some(entry) => http1_request(target, entry),
        None => Subject::with_line(read::<u64>(writer, target.response_req).unwrap_or(0)),
    };
    let (request, start_ns) = own.map_or((subject.address(), 0), |entry| (entry.request, entry.start_ns));
    ask_routed(target, Held::by(target, request), start_ns, true, &mut subject);
    let (mut series, mut route) = answered(target, &subject, word(writer, target.response_status), 101);
    if is_request(&mut series) && (subject.inner != 0 || SERIES.get_ptr(&series).is_none()) {
        let rest = below(target, &subject, &mut series, &mut route);
        new_route(ctx, target, &mut series, &route);
        admit_below(target, &mut series, &rest, subject.inner);
        admit(&mut series);
    }
    // SAFETY: no preconditions.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    if let Some(entry) = own {
        hijacked(&series, at_ns.wrapping_sub(entry.start_ns));
    } else {
        remember_hijack(target, goroutine_key(target.id, writer), &Hijacked { series, at_ns });
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

#[inline(always)]
fn upgrade_at(ctx: &ProbeContext) {
    let Some(target) = target(pid()) else { return };
    let Some(entry) = INFLIGHT.get_ptr_mut(&goroutine_key(target.id, Regs::of(ctx).g())) else { return };
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
    let found = unsafe { HIJACKS.get(&goroutine_key(target, request.writer)) }.copied()?;
    if found.at_ns < request.start_ns { None } else { Some(found) }
}

/// By itself, so that a panic's program has no more on its stack.
#[inline(never)]
fn is_hijacked(target: u32, request: &InFlight) -> bool {
    hijack_of(target, request).is_some()
}

#[inline(always)]
fn hijacked(series: &SeriesKey, duration_ns: u64) {
    if series.is_request() {
        count(series, duration_ns);
    }
}

#[inline(always)]
fn mux_at(ctx: &ProbeContext) {
    let Some((target, regs)) = called(ctx, at_check::HTTP_MUX) else { return };
    let routed = regs.arg(3);
    // SAFETY: from a look-up in this expression; only this goroutine's own probes write its entry.
    let own = INFLIGHT.get_ptr_mut(&goroutine_key(target.id, regs.g())).map(|entry| unsafe { &mut *entry });
    match own.filter(|entry| entry.writer != 0) {
        None => keep(target, routed, 0),
        Some(entry) if same_path(target, entry.request, routed) != 0 => entry.routed = routed,
        Some(entry) => {
            let header = u64::from(target.request_header);
            // A handler may give a mux requests of its own making, too.
            if same_word(entry.request.wrapping_add(header), routed.wrapping_add(header)) != 0 {
                keep(target, routed, entry.start_ns);
            }
        }
    }
}

/// Not 0 where two requests ask for the same path: the URL, or its path's text, is one and the same. A handler may give a mux
/// requests of its own making, and `http.StripPrefix` one with a part of the path, whose pattern lacks the rest.
#[inline(always)]
fn same_path(target: &TargetConfig, one: u64, other: u64) -> u64 {
    let at = u64::from(target.request_url);
    if same_word(one.wrapping_add(at), other.wrapping_add(at)) != 0 {
        return 1;
    }
    let path =
        |request| read::<u64>(request, target.request_url).and_then(|url| read::<GoString>(url, target.url_path));
    match (path(one), path(other)) {
        (Some(one), Some(other)) => u64::from(one.ptr == other.ptr && one.len == other.len),
        _ => 0,
    }
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

#[inline(always)]
fn panic_at(ctx: &ProbeContext) {
    let Some(target) = target(pid()) else { return };
    let regs = Regs::of(ctx);
    let key = goroutine_key(target.id, regs.g());
    // SAFETY: only this goroutine's own probes write its entry, and user space removes none that is being served.
    let Some(entry) = (unsafe { INFLIGHT.get(&key) }) else { return };
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
    if SERIES.get_ptr(&series).is_none() {
        // There is no room on the stack for what joins routes.
        let subject = Subject { inner: 0, ..subject };
        let rest = below(target, &subject, &mut series, &mut route);
        new_route(ctx, target, &mut series, &route);
        admit_below(target, &mut series, &rest, 0);
        // Here, so that whoever settles the request need not know of limits.
        admit(&mut series);
    }
    remember(target, regs.g(), entry.start_ns, now, &series);
}

/// Whether a panic is none of the request that the goroutine's entry is of: that has panicked before, and either it is settled, or its
/// goroutine was another, which has ended. The runtime gives its `g` to the next goroutine, which may serve nothing.
#[inline(never)]
fn is_told_of_another(target: &TargetConfig, g: u64, entry: &InFlight) -> bool {
    if entry.outer & TOLD == 0 {
        return false;
    }
    let key = PanicKey { goroutine: goroutine_key(target.id, g), start_ns: entry.start_ns };
    // SAFETY: a word is read whole; user space removes the entry only once its goroutine writes it no more.
    match unsafe { PANICS.get(&key) } {
        Some(panicked) => Some(panicked.goid) != read::<u64>(g, target.g_goid),
        None => true,
    }
}

/// Marks the request that a goroutine serves as [`TOLD`]; whether it was not before.
#[inline(always)]
fn is_told_first(goroutine: u64) -> bool {
    let Some(slot) = INFLIGHT.get_ptr_mut(&goroutine) else { return false };
    // SAFETY: from a look-up just above; only this goroutine's own probes write its entry.
    let slot = unsafe { &mut *slot };
    let first = slot.outer & TOLD == 0;
    slot.outer |= TOLD;
    first
}

/// Keeps what a request that panicked is to be counted as. By itself for its stack, see `whole_request`.
#[inline(never)]
fn remember(target: &TargetConfig, g: u64, start_ns: u64, now: u64, series: &SeriesKey) {
    let key = PanicKey { goroutine: goroutine_key(target.id, g), start_ns };
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

/// The series of a request that was answered, and its route.
#[inline(always)]
fn answered(target: &TargetConfig, subject: &Subject, status: u64, unwritten: u16) -> (SeriesKey, Route) {
    if status == UNREADABLE {
        lost(target.id, Reason::Unreadable);
    }
    series(target, subject, status_code(status, unwritten))
}

/// Whether it is to be counted: an HTTP/2 connection's preface is not. `CONNECT` is not answered with 101.
#[inline(always)]
fn is_request(series: &mut SeriesKey) -> bool {
    if series.status == 101 && series.method == method::CONNECT {
        series.status = 200;
    }
    series.is_request()
}

#[inline(always)]
fn end(ctx: &ProbeContext, target: &TargetConfig, entry: &InFlight, subject: Subject, status: u64) {
    // SAFETY: no preconditions.
    let duration_ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(entry.start_ns);
    let (mut series, mut route) = answered(target, &subject, status, 200);
    if !is_request(&mut series) {
        return;
    }
    // Where a mux was given a part of the path, its pattern belongs to the route.
    if subject.inner == 0
        && let Some(value) = SERIES.get_ptr_mut(&series)
    {
        record(value, duration_ns);
        return;
    }
    let rest = below(target, &subject, &mut series, &mut route);
    if let Some(value) = SERIES.get_ptr_mut(&rest.series(&series)) {
        record(value, duration_ns);
        return;
    }
    new_route(ctx, target, &mut series, &route);
    admit_below(target, &mut series, &rest, subject.inner);
    admit(&mut series);
    count(&series, duration_ns);
}

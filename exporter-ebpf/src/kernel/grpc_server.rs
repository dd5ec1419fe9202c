//! gRPC server calls: a start before the method is looked up, an end where the status is written. A call is known by its goroutine, which is
//! one of its own or a worker's that serves one after another, and by its stream.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::ProbeContext};
use exporter_ebpf::{
    grpc::{UNREADABLE_CODE, is_among, method_kind},
    grpc_server::GrpcServer,
    key::{Family, SeriesKey, text_kind},
    loss::Reason,
    probe::Probe,
    span::{Lane, Span, span_key},
    target::TargetConfig,
};

use super::{
    grpc::code_of,
    hit::called,
    maps::{FACTS, INFLIGHT, REFUSED, lost},
    memory::{GoString, read, zero},
    regs::Regs,
    route::{past_the_limit, text_route},
    series::{GRPC_SERVER, admit, count, counted},
    span::insert,
    texts::{has_room, is_known, put_text},
};

/// `google.golang.org/grpc.(*Server).handleStream(t transport.ServerTransport, stream)`, which every stream comes by once, of both
/// transports (server.go of 1.30 to 1.85).
#[inline(always)]
pub(super) fn grpc_server_start(ctx: &ProbeContext) {
    let Some((target, regs)) = called(ctx, Probe::GrpcServerStart) else { return };
    // SAFETY: no preconditions.
    let start_ns = unsafe { bpf_ktime_get_ns() };
    let span = Span { start_ns, open: regs.arg(3), words: [zero(); 3] };
    let key = span_key(target.id, regs.g(), Lane::GrpcServer);
    let Some(slot) = INFLIGHT.get_ptr_mut(&key) else {
        return insert(target, key, &span);
    };
    // SAFETY: from a look-up just above. Only this goroutine's own probes write its entry, and it is in this one.
    let slot = unsafe { &mut *slot };
    if slot.open != 0 {
        // grpc 1.5x to 1.83 write no status where the connection broke before a good answer; a handler can call runtime.Goexit.
        lost(target.id, Reason::EndNotSeen);
    }
    *slot = span;
}

/// `writeStatus(stream, *status.Status)` of either transport (internal/transport/http2_server.go, handler_server.go); `WriteStatus` up
/// to 1.68. Each way out that answers calls it, the first time with what is sent.
#[inline(always)]
pub(super) fn grpc_server_end(ctx: &ProbeContext) {
    let Some((target, regs)) = called(ctx, Probe::GrpcServerEnd) else { return };
    let Some(facts) = FACTS.get(target.id).map(|facts| &facts.grpc_server) else { return };
    let stream = regs.arg(1);
    let key = span_key(target.id, regs.g(), Lane::GrpcServer);
    let Some(slot) = INFLIGHT.get_ptr_mut(&key) else {
        return no_start(target, facts, key, stream, regs.caller());
    };
    // SAFETY: as above.
    let slot = unsafe { &mut *slot };
    if slot.open != stream {
        if slot.open != 0 || slot.words[0] != stream {
            no_start(target, facts, key, stream, regs.caller());
        }
        return;
    }
    // SAFETY: no preconditions.
    let duration_ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(slot.start_ns);
    slot.open = 0;
    // What is written for it from here on is not sent.
    slot.words[0] = stream;
    end(target, facts, &regs, duration_ns);
}

#[inline(always)]
fn end(target: &TargetConfig, facts: &GrpcServer, regs: &Regs, duration_ns: u64) {
    let code = code_of(regs.arg(2), facts.code);
    let mut series = SeriesKey::of(Family::GrpcServer, target.id, code);
    let method = method(facts, regs.arg(1), &mut series);
    if code == UNREADABLE_CODE || series.text_kind == text_kind::NONE {
        lost(target.id, Reason::Unreadable);
    }
    if counted::<GRPC_SERVER>(&series, duration_ns) {
        return;
    }
    if series.text_kind == method_kind::METHOD {
        new_method(target, facts, &mut series, &method);
    }
    admit::<GRPC_SERVER>(&mut series);
    count::<GRPC_SERVER>(&series, duration_ns);
}

/// Finds the method, without the slash in front. By itself for its stack.
#[inline(never)]
fn method(facts: &GrpcServer, stream: u64, series: &mut SeriesKey) -> GoString {
    let stream = if facts.points == 0 { stream } else { read::<u64>(stream, 0).unwrap_or(0) };
    let Some(mut method) = read::<GoString>(stream, facts.method) else { return GoString::EMPTY };
    if method.len != 0 && read::<u8>(method.ptr, 0) == Some(b'/') {
        method = GoString { ptr: method.ptr.wrapping_add(1), len: method.len - 1 };
    }
    if method.len == 0 {
        series.text_kind = method_kind::OTHER;
        return method;
    }
    series.text = text_route(method.ptr, method.len, 0, 0, 0);
    if series.text != 0 {
        series.text_kind = method_kind::METHOD;
    }
    method
}

/// Makes sure that a new series' method is one of the target's; past the limit it becomes the overflow method. One that the server
/// does not know is none: clients can make up any.
#[inline(never)]
fn new_method(target: &TargetConfig, facts: &GrpcServer, series: &mut SeriesKey, method: &GoString) {
    if is_known(series) {
        return;
    }
    if is_among(series.code, facts.unknown) {
        series.text = 0;
        series.text_kind = method_kind::OTHER;
        return;
    }
    if !has_room::<GRPC_SERVER>(target) || !put_text::<GRPC_SERVER>(series, method.ptr, method.len, 0, 0) {
        past_the_limit(series);
    }
}

/// A status is written on a goroutine that has not begun that stream's call. Where a message could not be sent or received it is written
/// at once, maybe on another goroutine than the handler's, and again when the handler returns: that is what counts. Otherwise the
/// call's start was not seen, which is told once.
#[inline(never)]
fn no_start(target: &TargetConfig, facts: &GrpcServer, key: u64, stream: u64, caller: u64) {
    if facts.is_early(caller) {
        return;
    }
    // SAFETY: copied before it is compared.
    if unsafe { REFUSED.get(&key) }.copied() == Some(stream) {
        return;
    }
    lost(target.id, Reason::NoStart);
    let _ = REFUSED.insert(&key, &stream, 0);
}

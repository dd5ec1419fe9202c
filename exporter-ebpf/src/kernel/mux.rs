//! Requests that a ServeMux is given: which copies of a request know its pattern. Knows nothing of when a request begins or ends.

use aya_ebpf::programs::ProbeContext;
use exporter_ebpf::{http::request_key, probe::Probe, target::TargetConfig};

use super::{
    hit::called,
    http::in_flight,
    memory::{GoString, read},
    request::same_word,
    routed::keep,
};

/// `net/http.(*ServeMux).ServeHTTP(w ResponseWriter, r *Request)`: attached only where middleware hands a copy of the request to
/// the mux, which then writes the pattern into the copy.
#[inline(always)]
pub(super) fn http_mux(ctx: &ProbeContext) {
    let Some((target, regs)) = called(ctx, Probe::HttpMux) else { return };
    let routed = regs.arg(3);
    // SAFETY: from a look-up in this expression; only this goroutine's own probes write its entry.
    let own = in_flight(request_key(target.id, regs.g())).map(|entry| unsafe { &mut *entry });
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
pub(super) fn same_path(target: &TargetConfig, one: u64, other: u64) -> u64 {
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

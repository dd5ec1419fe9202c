//! HTTP client requests: each time that `http.Client` gives one to its transport, redirects one by one, until the headers of the answer are
//! there or it has failed. Both ends are in one frame of `net/http.send`, by which they find each other.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::ProbeContext};
use exporter_ebpf::{
    feature::Feature,
    http::status_code,
    http_client::{HttpClient, LANES, failed, host_kind, kind_of_scheme},
    key::{Family, SeriesKey, text_kind},
    loss::Reason,
    method,
    probe::Probe,
    span::Span,
    target::TargetConfig,
};

use super::{
    hit::{called, measured, word},
    maps::{FACTS, lost},
    memory::{GoString, read},
    regs::Regs,
    request::method_of,
    route::{past_the_limit, text_route},
    series::{HTTP_CLIENT, admit, count, counted},
    span::{begin, frame, take},
    texts::{has_room, is_known, put_text},
};

/// `net/http.setRequestCancel(req *Request, rt RoundTripper, deadline time.Time)`, which `net/http.send` calls before `rt.RoundTrip(req)`
/// in every release from Go 1.17 to 1.27 (net/http/client.go).
#[inline(always)]
pub(super) fn http_client_start(ctx: &ProbeContext) {
    let Some((target, regs)) = called(ctx, Probe::HttpClientStart) else { return };
    // SAFETY: no preconditions.
    let start_ns = unsafe { bpf_ktime_get_ns() };
    let request = regs.arg(0);
    let method = read::<GoString>(request, target.request_method).unwrap_or(GoString::EMPTY);
    let url = read::<u64>(request, target.request_url).unwrap_or(0);
    // "For client requests, an empty string means GET" (net/http/request.go).
    let verb = if method.len == 0 { u64::from(method::GET) } else { method_of(method.ptr, method.len) };
    let open = frame(regs.g(), regs.callers_sp());
    begin(target, regs.g(), &LANES, &mut Span { start_ns, open, words: [url, verb, 0] });
}

/// The branch behind `rt.RoundTrip(req)` in `net/http.send`: the `*Response` is the first result, and the error's type the second.
#[inline(always)]
pub(super) fn http_client_end(ctx: &ProbeContext) {
    let Some(target) = measured(Feature::HttpClient) else { return };
    let regs = Regs::of(ctx);
    let Some(span) = take(target, regs.g(), &LANES, frame(regs.g(), regs.sp())) else { return };
    // SAFETY: no preconditions.
    let duration_ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(span.start_ns);
    let Some(facts) = FACTS.get(target.id).map(|facts| &facts.http_client) else { return };
    let (response, error) = (regs.arg(0), regs.arg(1));
    let mut series = SeriesKey::of(Family::HttpClient, target.id, 0);
    series.verb = span.words[1] as u8;
    if error == 0 {
        series.code = status_code(word(response, facts.response_status_code), 0);
    }
    let host = host(target, facts, span.words[0], &mut series);
    let of_host = series.text;
    if error != 0 && of_host != 0 {
        series.text = failed(of_host, error);
        series.text_kind += host_kind::FAILED;
    }
    if counted::<HTTP_CLIENT>(&series, duration_ns) {
        return;
    }
    if of_host != 0 {
        new_host(target, &mut series, of_host, &host);
        if error != 0 && series.text_kind != text_kind::OVERFLOW {
            new_error(target, facts, &mut series, of_host, error);
        }
    }
    admit::<HTTP_CLIENT>(&mut series);
    count::<HTTP_CLIENT>(&series, duration_ns);
}

/// Finds the server's address, and where its text is. By itself for its stack.
#[inline(never)]
fn host(target: &TargetConfig, facts: &HttpClient, url: u64, series: &mut SeriesKey) -> GoString {
    let host = read::<GoString>(url, facts.url_host).unwrap_or(GoString::EMPTY);
    let scheme = read::<GoString>(url, facts.url_scheme).unwrap_or(GoString::EMPTY);
    series.text = text_route(host.ptr, host.len, 0, 0, 0);
    if series.text == 0 {
        // A request without a host fails before it is sent anywhere.
        if host.len != 0 || url == 0 {
            lost(target.id, Reason::Unreadable);
        }
        return host;
    }
    series.text_kind = kind_of_scheme(read::<u64>(scheme.ptr, 0).unwrap_or(0), scheme.len);
    host
}

/// Makes sure that a new series' address is one of the target's; past the limit it becomes the overflow address.
#[inline(never)]
fn new_host(target: &TargetConfig, series: &mut SeriesKey, of_host: u64, host: &GoString) {
    let kind = if series.text_kind >= host_kind::HTTP + host_kind::FAILED {
        series.text_kind - host_kind::FAILED
    } else {
        series.text_kind
    };
    let of = SeriesKey { text: of_host, text_kind: kind, ..*series };
    if is_known(&of) {
        return;
    }
    if !has_room::<HTTP_CLIENT>(target) || !put_text::<HTTP_CLIENT>(&of, host.ptr, host.len, 0, 0) {
        past_the_limit(series);
    }
}

/// Names the type of an error, of which a new series is. The value of an interface begins with its `itab`, whose second word is the type
/// (runtime/runtime2.go; internal/abi/iface.go from 1.22 on). What is not the program's own, as a plugin's, has no name.
#[inline(never)]
fn new_error(target: &TargetConfig, facts: &HttpClient, series: &mut SeriesKey, of_host: u64, itab: u64) {
    if is_known(series) {
        return;
    }
    let ty = read::<u64>(itab, 8).unwrap_or(0);
    let mut name = GoString::EMPTY;
    if ty >= facts.types && ty < facts.etypes {
        name = type_name(facts, ty);
    }
    // A program can make up as many types as it likes.
    if !has_room::<HTTP_CLIENT>(target) || !put_text::<HTTP_CLIENT>(series, name.ptr, name.len, of_host, 0) {
        past_the_limit(series);
    }
}

/// Where a type's name is: `types` and what is 40 bytes into the type; a byte of flags, the length in groups of seven bits, the text.
/// Of a type whose pointer's name is kept for it, without the star (runtime/type.go and internal/abi/type.go of Go 1.17 to 1.27:
/// `nameOff`, `tflagExtraStar`).
#[inline(never)]
fn type_name(facts: &HttpClient, ty: u64) -> GoString {
    let offset = read::<u32>(ty, 40).unwrap_or(0);
    let extra_star = u64::from(read::<u8>(ty, 20).unwrap_or(0) & 2 != 0);
    let name = facts.types.wrapping_add(u64::from(offset));
    if offset == 0 || name >= facts.etypes {
        return GoString::EMPTY;
    }
    let first = u64::from(read::<u8>(name, 1).unwrap_or(0));
    let (len, from) = if first & 0x80 == 0 {
        (first, 2)
    } else {
        (first & 0x7f | u64::from(read::<u8>(name, 2).unwrap_or(0)) << 7, 3)
    };
    if len <= extra_star {
        return GoString::EMPTY;
    }
    GoString { ptr: name.wrapping_add(from + extra_star), len: len - extra_star }
}

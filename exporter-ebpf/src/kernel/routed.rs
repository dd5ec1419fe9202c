//! Requests that ServeMuxes were given on other goroutines than the connection's, or with a part of the path: found at the end by the
//! headers that copies of a request share. Knows nothing of series.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use exporter_ebpf::{
    http::{ROUTED_OF_ONE, ROUTED_WINDOW_NS, Routed},
    key::address_key,
    route::MAX_PATH,
    router::IS_ROUTE,
    target::TargetConfig,
};

use super::{
    maps::{HTTP_STATES, ROUTED, add},
    memory::{GoString, read},
    request::{Subject, cut_off, packed, same_word},
};

/// Remembers a request that a mux is given, of a request that began at `start_ns` (0 where that is not known).
#[inline(never)]
pub(super) fn keep(target: &TargetConfig, request: u64, start_ns: u64) {
    let Some(header) = read::<u64>(request, target.request_header) else { return };
    if header == 0 {
        return;
    }
    // SAFETY: no preconditions.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    let key = address_key(target.id, header);
    if let Some(known) = ROUTED.get_ptr_mut(&key) {
        // SAFETY: from a look-up just above. Where the entry gives way to another meanwhile, that one has an address that is not
        // its request's: `found` looks at the headers of what is there.
        let known = unsafe { &mut *known };
        if known.at_ns >= start_ns && read::<u64>(known.first, target.request_header) == Some(header) {
            known.last = request;
        } else {
            *known = Routed { first: request, last: request, at_ns };
        }
        return;
    }
    put_first(target.id, key, &Routed { first: request, last: request, at_ns }, 1);
}

/// Makes an entry where there is none, if the target may have another; it counts as so many.
#[inline(always)]
fn put_first(target: u32, key: u64, entry: &Routed, counts: u64) {
    let at_ns = entry.at_ns;
    let Some(state) = HTTP_STATES.get_ptr_mut(target) else { return };
    // SAFETY: from a look-up just above; a race lets a few in more than the limit, as many as there are CPUs at most.
    let full = unsafe {
        if at_ns.wrapping_sub((*state).routed_since_ns) >= ROUTED_WINDOW_NS {
            (*state).routed_since_ns = at_ns;
            (*state).routed = 0;
        }
        (*state).routed as i64 >= ROUTED_OF_ONE as i64
    };
    if !full && ROUTED.insert(&key, entry, 0).is_ok() {
        // SAFETY: as above.
        unsafe { add(&raw mut (*state).routed, counts) };
    }
}

/// Remembers the route of a router's pattern for the request that has this address of its own: of its headers, or of its context.
#[inline(never)]
pub(super) fn keep_route(target: &TargetConfig, identity: u64, route: u64, counts: u64) {
    if identity == 0 {
        return;
    }
    // SAFETY: no preconditions.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    let key = address_key(target.id, identity);
    let entry = Routed { first: route, last: route, at_ns };
    if let Some(known) = ROUTED.get_ptr_mut(&key) {
        // SAFETY: from a look-up just above; see `keep`.
        unsafe { *known = entry };
        return;
    }
    put_first(target.id, key, &entry, counts);
}

/// The same for its end, after which it is forgotten; 0: there is none.
#[inline(never)]
pub(super) fn take_route(target: &TargetConfig, identity: u64, start_ns: u64) -> u64 {
    if identity == 0 {
        return 0;
    }
    let key = address_key(target.id, identity);
    // SAFETY: copied before use.
    let Some(entry) = (unsafe { ROUTED.get(&key) }).copied() else { return 0 };
    if entry.last & IS_ROUTE == 0 || entry.at_ns < start_ns {
        return 0;
    }
    if ROUTED.remove(&key).is_ok()
        && let Some(state) = HTTP_STATES.get_ptr_mut(target.id)
    {
        // SAFETY: from a look-up just above.
        unsafe { add(&raw mut (*state).routed, u64::MAX) };
    }
    entry.last
}

/// What a request that ends, or may, still holds: addresses of its URL's and its headers' addresses.
pub(super) struct Held {
    pub(super) url: u64,
    pub(super) header: u64,
}

impl Held {
    #[inline(always)]
    pub(super) fn by(target: &TargetConfig, request: u64) -> Self {
        let at = |offset| request.wrapping_add(u64::from(offset));
        Self { url: at(target.request_url), header: at(target.request_header) }
    }

    #[inline(always)]
    pub(super) fn is_of(&self, target: &TargetConfig, request: u64) -> bool {
        same_word(self.url, request.wrapping_add(u64::from(target.request_url))) != 0
            || same_word(self.header, request.wrapping_add(u64::from(target.request_header))) != 0
    }
}

/// Has the copies of a request asked that muxes have found patterns for. They are forgotten where the request `ends` with that.
#[inline(always)]
pub(super) fn ask_routed(target: &TargetConfig, held: Held, start_ns: u64, ends: bool, subject: &mut Subject) {
    let Some(state) = HTTP_STATES.get_ptr(target.id) else { return };
    // SAFETY: from a look-up just above.
    if unsafe { (*state).routed_since_ns } == 0 {
        return;
    }
    let ends = if ends { ENDS } else { 0 };
    let last = find(target, held.url, held.header, start_ns, ends);
    if last == 0 {
        return;
    }
    if cut_off(last) == 0 {
        subject.ask(last);
        return;
    }
    subject.inner = last;
    let first = find(target, held.url, held.header, start_ns, ends | FIRST);
    if first != 0 && cut_off(first) == 0 {
        subject.ask(first);
    }
}

/// With plain numbers, which are not on its caller's stack.
#[inline(never)]
fn find(target: &TargetConfig, url: u64, header: u64, start_ns: u64, flags: u64) -> u64 {
    let Some(header) = read::<u64>(header, 0) else { return 0 };
    let key = address_key(target.id, header);
    let offsets = u64::from(target.request_url)
        | u64::from(target.request_header) << 16
        | u64::from(target.url_path) << 32
        | u64::from(target.request_pat) << 48;
    let mut copy = found(key, url, start_ns, offsets, flags);
    if copy == 0 && flags & FIRST == 0 {
        copy = found(key, url, start_ns, offsets, FIRST);
    }
    // Where a part of the path is off, the first is asked for next.
    let is_over = flags & FIRST != 0 || cut_off(copy) == 0;
    if is_over
        && flags & ENDS != 0
        && ROUTED.remove(&key).is_ok()
        && let Some(state) = HTTP_STATES.get_ptr_mut(target.id)
    {
        // SAFETY: from a look-up just above.
        unsafe { add(&raw mut (*state).routed, u64::MAX) };
    }
    copy
}

/// The first mux's, and not the last one's.
const FIRST: u64 = 1;
/// Nobody asks again.
const ENDS: u64 = 2;

/// The address of a request in `ROUTED` that a mux has found a pattern for, and that asks for the same path as the one whose URL's
/// address is at `url`, or for its end: then with [`cut_off`] how much of it is not there; else 0. Nothing may hold it any more:
/// with the headers in it that the other has, which no other request has, it is whole, or is another copy of the same
/// request. Global and with plain numbers, as [`super::route::text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn found(key: u64, url: u64, start_ns: u64, offsets: u64, flags: u64) -> u64 {
    // SAFETY: copied before use.
    let Some(entry) = unsafe { ROUTED.get(&key) }.copied() else { return 0 };
    let request = if flags & FIRST != 0 { entry.first } else { entry.last };
    let word = |offset: u64| read::<u64>(request, offset as u16).unwrap_or(0);
    // The other's was not read, or is of a time when it had not begun.
    if entry.at_ns < start_ns || address_key(0, word(offsets >> 16)) != address_key(0, key) || word(offsets >> 48) == 0
    {
        return 0;
    }
    let (own, url) = (word(offsets), read::<u64>(url, 0).unwrap_or(0));
    if own == url {
        return request;
    }
    let path = |url| read::<GoString>(url, (offsets >> 32) as u16).unwrap_or(GoString::EMPTY);
    let (own, whole) = (path(own), path(url));
    // strings.TrimPrefix and slices leave what is left where it is.
    let cut = whole.len.wrapping_sub(own.len);
    if own.len == 0 || own.ptr.wrapping_sub(whole.ptr) != cut || cut > MAX_PATH as u64 {
        return 0;
    }
    if cut != 0 && (starts_with_slash(own.ptr) & starts_with_slash(whole.ptr)) == 0 {
        return 0;
    }
    packed(GoString { ptr: request, len: cut })
}

#[inline(always)]
fn starts_with_slash(path: u64) -> u64 {
    u64::from(read::<u8>(path, 0) == Some(b'/'))
}

//! What goroutines are in the middle of: one span for each thing that an instrument has seen begin. Knows nothing of what it is.

use crate::key::address_key;

/// Most spans at one time over all targets (the default of the `INFLIGHT` map).
pub const MAX_IN_FLIGHT: u32 = 65_536;

/// Of what kind a goroutine's span is. A goroutine has one at a time of each: one that serves a request can make one meanwhile. The
/// number is in the low bits of a [`span_key`], of which there are [`LANES`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// An HTTP request that it serves.
    HttpServer = 0,
    /// An HTTP request that it makes.
    HttpClient = 1,
    /// One that it makes for the sake of that.
    HttpClientWithin = 2,
    /// One that it makes for the sake of both.
    HttpClientWithinBoth = 3,
    /// A gRPC call that it serves.
    GrpcServer = 4,
}

/// As many as the low bits of an address that is a multiple of 8 can tell apart.
pub const LANES: u64 = 8;

/// Value of `INFLIGHT`: something that a goroutine is doing, or the last of its lane that it has done. An entry stays when it ends,
/// for the goroutine's next one: a runtime reuses its goroutine structures, so a target has as many entries as it has had
/// goroutines doing this at one time. User space removes those that have been idle longest when the map fills, and all of a target
/// that has ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it began, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// What tells its end from another's; 0 while the goroutine is not doing it.
    pub open: u64,
    /// What its end needs to know, as the lane's instrument has it.
    pub words: [u64; 3],
}

/// Key of `INFLIGHT`.
#[inline(always)]
pub const fn span_key(target: u32, g: u64, lane: Lane) -> u64 {
    address_key(target, g) | lane as u64
}

/// Whether a span is of this lane.
#[inline(always)]
pub const fn is_in(key: u64, lane: Lane) -> bool {
    key % LANES == lane as u64
}

const _: () = assert!(size_of::<Span>() == 40);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{address_of, target_of};

    #[test]
    fn a_key_has_its_target_its_goroutine_and_its_lane() {
        let key = span_key(4096, 0xc000_0012_3400, Lane::HttpServer);
        assert_eq!((target_of(key), address_of(key)), (4096, 0xc000_0012_3400));
        assert!(is_in(key, Lane::HttpServer) && !is_in(key + 1, Lane::HttpServer));
        assert_eq!(address_of(key + LANES - 1), 0xc000_0012_3400);
        // No address of an object ends in these bits: what has some is read as without.
        assert_eq!(span_key(1, 0xc000_0000_0007, Lane::HttpServer), span_key(1, 0xc000_0000_0000, Lane::HttpServer));
    }
}

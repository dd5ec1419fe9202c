//! What the kernel side must know of a measured process: its id and the struct offsets of its Go version.

/// Most targets at one time. Ids run from 1 to this, and one is given again only when nothing in the maps names it.
pub const MAX_TARGETS: u32 = 4096;

/// An offset that this target does not have.
pub const NONE: u16 = u16::MAX;

/// Slots of the `TARGET_SLOTS` array, a power of two.
pub const TARGET_SLOTS: u32 = 8192;

/// The slot of a process. Where another target has it, the process is found in `TARGETS` alone.
#[inline(always)]
pub const fn target_slot(pid: u32) -> u32 {
    pid & (TARGET_SLOTS - 1)
}

/// Value of the `TARGETS` map, keyed by process id (`u32`), and of the `TARGET_SLOTS` array. Offsets are in bytes from the start of the struct named;
/// [`NONE`] where the version has no such field.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetConfig {
    /// The process's id; 0 in a slot that nothing has.
    pub pid: u32,
    /// The target's id, 1 to [`MAX_TARGETS`].
    pub id: u32,
    /// Most distinct routes; past it requests are counted under the overflow route.
    pub max_routes: u32,
    /// What is measured of it: bits of [`crate::feature::Feature`]. A probe on a file that processes share is hit in all of them.
    pub on: u32,
    /// Bits of the probes that sit at the branch of their function's stack check, see [`crate::probe::Probe::check_bit`].
    pub at_check: u64,
    /// Bytes of read-only memory from `literals_from` on.
    pub literals_len: u64,
    /// Where the executable's own read-only memory begins, in which string literals are: nothing else ever has an address in it.
    pub literals_from: u64,
    /// `runtime.g.goid`.
    pub g_goid: u16,
    /// `net/http.response.req`.
    pub response_req: u16,
    /// `net/http.response.status`.
    pub response_status: u16,
    /// `net/http.Request.Method`.
    pub request_method: u16,
    /// `net/http.Request.URL`.
    pub request_url: u16,
    /// `net/http.Request.Pattern` (Go 1.23).
    pub request_pattern: u16,
    /// `net/http.Request.pat` (Go 1.22).
    pub request_pat: u16,
    /// `net/http.pattern.str` (Go 1.22).
    pub pattern_str: u16,
    /// `net/url.URL.Path`.
    pub url_path: u16,
    /// The HTTP/2 server bundled with net/http.
    pub h2: Http2Offsets,
    /// `golang.org/x/net/http2`, where the program carries its own.
    pub xnet: Http2Offsets,
    /// Where `net/http.Request` has the layout of [`request_words`], how many words of it are read at one time; otherwise 0.
    pub request_words: u16,
    /// `net/http.Request.Header`.
    pub request_header: u16,
    /// Always zero.
    pub reserved: u16,
}

impl TargetConfig {
    /// Of a process of which nothing is known and nothing measured.
    pub const NONE: Self = Self {
        pid: 0,
        id: 0,
        max_routes: 0,
        on: 0,
        at_check: 0,
        literals_len: 0,
        literals_from: 0,
        g_goid: NONE,
        response_req: NONE,
        response_status: NONE,
        request_method: NONE,
        request_url: NONE,
        request_pattern: NONE,
        request_pat: NONE,
        pattern_str: NONE,
        url_path: NONE,
        h2: Http2Offsets::ABSENT,
        xnet: Http2Offsets::ABSENT,
        request_words: 0,
        request_header: NONE,
        reserved: 0,
    };
}

/// Words of `net/http.Request` on 64-bit machines (net/http/request.go), known at compile time so that the kernel side reads them
/// from one copy of the struct. A program laid out otherwise is read field by field, as its handlers left it.
pub mod request_words {
    /// `Method`, a string: address and length.
    pub const METHOD: usize = 0;
    /// `URL`, a pointer.
    pub const URL: usize = 2;
    /// `Proto`, a string.
    pub const PROTO: usize = 3;
    /// `RequestURI`, a string.
    pub const URI: usize = 24;
    /// Words up to the last of those above: the same in Go 1.17 to 1.27.
    pub const HEAD: usize = URI + 2;
    /// `Pattern`, a string (Go 1.23 to 1.27, as what follows).
    pub const PATTERN: usize = 29;
    /// `pat`, a pointer.
    pub const PAT: usize = 33;
    /// Words up to the last of all.
    pub const ALL: usize = PAT + 1;
}

/// Offsets in the response writer of one HTTP/2 server.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Offsets {
    /// `responseWriter.rws`.
    pub writer_rws: u16,
    /// `responseWriterState.status`.
    pub rws_status: u16,
    /// `responseWriterState.req`.
    pub rws_req: u16,
    /// `ServerRequest.Method` (Go 1.27, where `rws.req` is not a `*http.Request`); [`NONE`] before.
    pub server_request_method: u16,
    /// `ServerRequest.URL`.
    pub server_request_url: u16,
    /// `ServerRequest.Header`.
    pub server_request_header: u16,
}

impl Http2Offsets {
    /// A program without this server.
    pub const ABSENT: Self = Self {
        writer_rws: NONE,
        rws_status: NONE,
        rws_req: NONE,
        server_request_method: NONE,
        server_request_url: NONE,
        server_request_header: NONE,
    };
}

const _: () = assert!(size_of::<TargetConfig>() == 40 + 9 * 2 + 2 * 12 + 3 * 2);

//! What a request says of itself, read from the program's own structs: method and path as they were on the wire, and its pattern.
//! Knows nothing of series.

use core::mem::MaybeUninit;

use exporter_ebpf::{
    line::Line,
    method,
    route::MAX_PATH,
    target::{NONE, TargetConfig, request_words},
};

use super::memory::{Buffer, GoString, read, read_bytes};

/// What is asked for a request's method and route.
pub(super) struct Subject {
    /// Address of an `http.Request` of it, 0 where all are gone; and [`HAS_LINE`].
    pub(super) tagged: u64,
    /// Its method, [`packed`], where the server itself holds it; otherwise 0.
    pub(super) method: u64,
    /// A copy of it that a mux was given with the path's end alone: its address, and [`cut_off`] how many bytes; 0: none.
    pub(super) inner: u64,
}

/// Beside the address in [`Subject::tagged`] where the request's strings are parts of an HTTP/1 request's first line; no address of a
/// program has it.
pub(super) const HAS_LINE: u64 = 1 << 63;

impl Subject {
    #[inline(always)]
    pub(super) const fn address(&self) -> u64 {
        self.tagged & !HAS_LINE
    }

    #[inline(always)]
    pub(super) const fn has_line(&self) -> bool {
        self.tagged & HAS_LINE != 0
    }

    /// Has another copy of the request asked.
    #[inline(always)]
    pub(super) const fn ask(&mut self, address: u64) {
        self.tagged = address & !HAS_LINE | self.tagged & HAS_LINE;
    }

    /// A request of which nothing else is known.
    #[inline(always)]
    pub(super) const fn of(address: u64) -> Self {
        Self { tagged: address & !HAS_LINE, method: 0, inner: 0 }
    }

    /// The same, of HTTP/1.
    #[inline(always)]
    pub(super) const fn with_line(address: u64) -> Self {
        Self { tagged: address | HAS_LINE, method: 0, inner: 0 }
    }
}

/// What a request says of its method and route.
#[derive(Clone, Copy)]
pub(super) struct Request {
    /// As it was on the wire where that can be told. A length of [`BEFORE`]: it stands before the address.
    pub(super) method: GoString,
    /// The same of `RequestURI`; empty where it was not read.
    pub(super) target: GoString,
    /// Address of `Proto`; 0 where it was not read.
    pub(super) version: u64,
    pub(super) pattern: GoString,
    pub(super) pat: u64,
}

const BEFORE: u64 = u64::MAX;

/// Reads a request: in one go where its layout is the usual one, since a call costs more than the bytes (100 ns each here).
#[inline(always)]
pub(super) fn request(target: &TargetConfig, address: u64) -> Option<Request> {
    let mut request = MaybeUninit::uninit();
    if usize::from(target.request_words) == request_words::ALL && whole_request(address, &mut request) {
        // SAFETY: it says that it was written.
        return Some(unsafe { request.assume_init() });
    }
    let mut request = if target.request_words != 0 && request_head(address, &mut request) {
        // SAFETY: as above.
        unsafe { request.assume_init() }
    } else {
        Request {
            method: read::<GoString>(address, target.request_method)?,
            target: GoString::EMPTY,
            version: 0,
            pattern: GoString::EMPTY,
            pat: 0,
        }
    };
    if target.request_pat != NONE {
        request.pat = read::<u64>(address, target.request_pat).unwrap_or(0);
    }
    if target.request_pattern != NONE {
        request.pattern = read::<GoString>(address, target.request_pattern).unwrap_or(GoString::EMPTY);
    } else if request.pat != 0 {
        // Go 1.22 has the pattern, but not its text in the request.
        request.pattern = read::<GoString>(request.pat, target.pattern_str).unwrap_or(GoString::EMPTY);
    }
    Some(request)
}

#[inline(always)]
const fn string(words: &[u64], at: usize) -> GoString {
    GoString { ptr: words[at], len: words[at + 1] }
}

/// By itself, so that the copy is on the stack only while it is read: a program and what it calls have 512 bytes of it on
/// kernels before 6.13.
#[inline(never)]
fn whole_request(address: u64, request: &mut MaybeUninit<Request>) -> bool {
    let Some(words) = read::<[u64; request_words::ALL]>(address, 0) else { return false };
    request.write(Request {
        method: string(&words, request_words::METHOD),
        target: string(&words, request_words::URI),
        version: words[request_words::PROTO],
        pattern: string(&words, request_words::PATTERN),
        pat: words[request_words::PAT],
    });
    true
}

/// As [`whole_request`], where what follows the head has another layout.
#[inline(never)]
fn request_head(address: u64, request: &mut MaybeUninit<Request>) -> bool {
    let Some(words) = read::<[u64; request_words::HEAD]>(address, 0) else { return false };
    request.write(Request {
        method: string(&words, request_words::METHOD),
        target: string(&words, request_words::URI),
        version: words[request_words::PROTO],
        pattern: GoString::EMPTY,
        pat: 0,
    });
    true
}

/// Sets the method and the target right by the first line: handlers put others in their place. By itself for the registers.
#[inline(never)]
pub(super) fn set_right(request: &mut Request) {
    let line = Line {
        method: request.method.ptr,
        method_len: request.method.len,
        target: request.target.ptr,
        target_len: request.target.len,
        version: request.version,
    };
    if line.method_was_replaced() {
        request.method = GoString { ptr: line.target, len: BEFORE };
    } else {
        (request.target.ptr, request.target.len) = line.target();
    }
}

/// The id of the method whose name is at `ptr`, or ends before the space before it. Global and with plain numbers, as [`text_route`]: the verifier would follow each
/// of the dozen constants through all that comes after.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn method_of(ptr: u64, len: u64) -> u64 {
    if len == BEFORE {
        // Where the page before is not there, the line begins on this one.
        let on_page = ptr & 0xfff;
        let bytes = match read::<u64>(ptr.wrapping_sub(8), 0) {
            None if on_page < 8 => read::<u64>(ptr - on_page, 0).map(|bytes| bytes << ((64 - 8 * on_page) & 63)),
            bytes => bytes,
        };
        return bytes.map_or(0, |bytes| u64::from(method::id_before(bytes)));
    }
    if len == 0 || len > method::LONGEST as u64 {
        return 0;
    }
    // Eight bytes at once: a heap or read-only string of up to seven is never at the last byte of the address space. Where the
    // next page is not there, byte by byte.
    let bytes = match read::<u64>(ptr, 0) {
        Some(bytes) => bytes,
        None => {
            let mut bytes = [0_u8; 8];
            read_bytes(ptr, len, &mut bytes);
            u64::from_le_bytes(bytes)
        }
    };
    u64::from(method::id(bytes, len))
}

/// 1 where the words at both addresses can be read, and are the same and not 0. By itself for its stack, see [`whole_request`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn same_word(one: u64, other: u64) -> u64 {
    let one = read::<u64>(one, 0);
    u64::from(one.is_some_and(|one| one != 0) && one == read::<u64>(other, 0))
}

/// The path as it was on the wire, which handlers do not rewrite as they do `URL.Path`; that where the target has escapes, or is
/// of another form than `/path?query`.
#[inline(always)]
pub(super) fn path(target: &TargetConfig, request: u64, of: GoString) -> GoString {
    let len = if of.len == 0 { 0 } else { plain_path(of.ptr, of.len) };
    if len != 0 {
        return GoString { ptr: of.ptr, len };
    }
    let url = read::<u64>(request, target.request_url).unwrap_or(0);
    read::<GoString>(url, target.url_path).unwrap_or(GoString::EMPTY)
}

/// The length of the path at the beginning of a request's target; 0 where it is none, or is not as it stands there. Global, as
/// [`text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn plain_path(ptr: u64, len: u64) -> u64 {
    let mut target = Buffer::cleared();
    let target = target.bytes();
    let Some(read) = read_bytes(ptr, len, target) else { return 0 };
    if target[0] != b'/' {
        return 0;
    }
    let mut i = 0;
    while i < MAX_PATH && i < read as usize {
        match target[i] {
            b'?' => return i as u64,
            b'%' => return 0,
            _ => i += 1,
        }
    }
    len
}

/// The path of a request as it was on the wire, [`packed`]: of [`Subject::tagged`], with `request_words`, `request_url` and `url_path`
/// of the target. Global, as [`text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn wire_path(of: u64, offsets: u64) -> u64 {
    let request = of & !HAS_LINE;
    let string = |word: usize| read::<GoString>(request, 8 * word as u16).unwrap_or(GoString::EMPTY);
    if offsets & 0xffff != 0 {
        let mut target = string(request_words::URI);
        if of & HAS_LINE != 0 {
            let (method, version) = (string(request_words::METHOD), string(request_words::PROTO).ptr);
            let line = Line {
                method: method.ptr,
                method_len: method.len,
                target: target.ptr,
                target_len: target.len,
                version,
            };
            (target.ptr, target.len) = line.target();
        }
        let len = plain_path(target.ptr, target.len);
        if len != 0 {
            return packed(GoString { ptr: target.ptr, len });
        }
    }
    let url = read::<u64>(request, (offsets >> 16) as u16).unwrap_or(0);
    packed(read::<GoString>(url, (offsets >> 32) as u16).unwrap_or(GoString::EMPTY))
}

/// A string in one word: a program's addresses have 48 bits, and of a path [`MAX_PATH`] bytes are looked at.
#[inline(always)]
pub(super) const fn packed(string: GoString) -> u64 {
    let len = if string.len > 0xffff { 0xffff } else { string.len };
    len << 48 | string.ptr & ADDRESS
}

#[inline(always)]
pub(super) const fn unpacked(word: u64) -> GoString {
    GoString { ptr: word & ADDRESS, len: word >> 48 }
}

/// How many bytes of the path a mux was not given, of what is [`packed`] with its request's address.
#[inline(always)]
pub(super) const fn cut_off(word: u64) -> u64 {
    word >> 48
}

const ADDRESS: u64 = 0xffff_ffff_ffff;

//! Folding a URL path into a route template: identifiers in segments become `{id}`, and the depth is bounded.
//! The kernel side computes only the template's hash, byte by byte, with no output buffer; user space applies the same
//! machine to one example path to get the text. So the two can never disagree on which paths are one route. Below a pattern that
//! takes a whole tree, the pattern stands for the path's first segments.

/// Bytes of a path that are looked at; a longer one ends in `/**`.
pub const MAX_PATH: usize = 127;
/// Segments that are kept; what is deeper becomes `/**`.
pub const MAX_SEGMENTS: u32 = 8;

/// For [`Folder::below`] where the path is all there is.
pub const WHOLE_PATH: u64 = FNV_OFFSET;

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
const ID: u64 = 0x9e37_79b9_7f4a_7c15;
const DEEP: u64 = 0xc2b2_ae3d_27d4_eb4f;

/// What each byte adds to a segment's counts, which are lanes of one word: length, digits, letters beyond `f` (a segment with
/// none of them may be hexadecimal), and marks (`-`, `_`, `.`, every byte that is not ASCII alphanumeric). The top bit is the
/// slash.
static CLASS: [u64; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = match byte as u8 {
            b'/' => 1 << 63,
            b'0'..=b'9' => LENGTH | DIGIT,
            b'a'..=b'f' | b'A'..=b'F' => LENGTH,
            b'g'..=b'z' | b'G'..=b'Z' => LENGTH | OTHER,
            _ => LENGTH | MARK,
        };
        byte += 1;
    }
    class
};
const LENGTH: u64 = 1;
const DIGIT: u64 = 1 << 16;
const OTHER: u64 = 1 << 32;
const MARK: u64 = 1 << 48;

/// The machine. Feed it a path's bytes, then ask for the hash.
///
/// It has no branches: what a slash does is done at every byte and kept or not by masks. The verifier follows both ways of a
/// branch, and a branch on each of 127 bytes is more than it takes (measured: 447,000 instructions with one branch a byte,
/// past the limit of a million with more; 20,000 with none).
#[derive(Clone, Copy, Debug)]
pub struct Folder {
    hash: u64,
    segment: u64,
    counts: u64,
    segments: i64,
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

/// Hides from the compiler what is known of a value: of a difference its range, of a mask that it is all ones or zero. With that
/// it would turn the arithmetic back into branches.
#[inline(always)]
fn opaque(value: i64) -> i64 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: a move of a register onto itself (an empty text would give two lines of debug information one address, which the
    // kernel refuses).
    unsafe {
        let mut value = value;
        core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack));
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    core::hint::black_box(value)
}

/// All ones where `a >= b`, else zero.
#[inline(always)]
fn at_least(a: i64, b: i64) -> i64 {
    !opaque(opaque(a.wrapping_sub(b)) >> 63)
}

/// `yes` where the mask is all ones, `no` where it is zero.
#[inline(always)]
fn choose(mask: i64, yes: u64, no: u64) -> u64 {
    no ^ ((yes ^ no) & mask as u64)
}

impl Folder {
    /// Before the first byte.
    #[inline(always)]
    pub const fn new() -> Self {
        Self::below(WHOLE_PATH, 0)
    }

    /// Before what follows so many slashes of a path, where `hash` stands for all up to there.
    #[inline(always)]
    pub const fn below(hash: u64, slashes: u32) -> Self {
        Self { hash, segment: FNV_OFFSET, counts: 0, segments: slashes as i64 }
    }

    /// Takes the next byte.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) {
        let class = CLASS[usize::from(byte)];
        let slash = opaque(opaque(class as i64) >> 63);
        let closed = self.closed();
        self.hash = choose(slash, closed, self.hash);
        let segment = (self.segment ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        self.segment = choose(slash, FNV_OFFSET, segment);
        self.counts = self.counts.wrapping_add(class) & !(slash as u64);
        self.segments -= slash;
    }

    /// The template's hash. `whole` says whether the path ended within [`MAX_PATH`].
    #[inline(always)]
    pub fn finish(self, whole: bool) -> u64 {
        let hash = if whole { self.closed() } else { self.cut() };
        // 0 means "no route".
        hash | 1
    }

    /// The hash with the current segment taken in: as it is, as an identifier, or not at all where it lies too deep.
    #[inline(always)]
    fn closed(&self) -> u64 {
        let token = choose(self.id(), ID, self.segment);
        choose(at_least(self.segments, i64::from(MAX_SEGMENTS)), self.cut(), mix(self.hash, token))
    }

    /// The hash with a mark that something was left out; one mark is enough.
    #[inline(always)]
    fn cut(&self) -> u64 {
        choose(at_least(self.segments, i64::from(MAX_SEGMENTS) + 1), self.hash, mix(self.hash, DEEP))
    }

    /// All ones where the segment so far reads as an identifier:
    /// - nothing but digits and marks (`42`, `2024-11-03`);
    /// - hexadecimal of 8 characters or more with a digit (UUIDs, hashes, object ids), 32 or more without;
    /// - 4 digits or more among letters (`user-10029`, `INV20240001`);
    /// - 20 characters or more with 2 digits (ULIDs, nanoids, base64 ids).
    #[inline(always)]
    fn id(&self) -> i64 {
        let lane = |unit: u64| ((self.counts / unit) & 0x7fff) as i64;
        let (length, digits, others, marks) = (lane(LENGTH), lane(DIGIT), lane(OTHER), lane(MARK));
        let digit = at_least(digits, 1);
        let no_other = at_least(0, others);
        let numeric = digit & at_least(digits + marks, length);
        let hex = digit & no_other & at_least(length, 8);
        let serial = at_least(digits, 4);
        let token = at_least(digits, 2) & at_least(length, 20);
        let hash = !digit & no_other & at_least(length, 32) & at_least(5, marks);
        numeric | hex | serial | token | hash
    }

    fn is_id(&self) -> bool {
        self.id() != 0
    }
}

#[inline(always)]
fn mix(hash: u64, token: u64) -> u64 {
    let mixed = (hash ^ token).wrapping_mul(ID);
    mixed ^ (mixed >> 29)
}

/// The hash of a whole path, as the kernel side computes it from its first [`MAX_PATH`] bytes.
pub fn hash(path: &[u8]) -> u64 {
    hash_below(WHOLE_PATH, 0, path)
}

/// The hash of what follows so many slashes of a path, see [`Folder::below`].
pub fn hash_below(hash: u64, slashes: u32, rest: &[u8]) -> u64 {
    let mut folder = Folder::below(hash, slashes);
    for &byte in &rest[..rest.len().min(MAX_PATH)] {
        folder.push(byte);
    }
    folder.finish(rest.len() <= MAX_PATH)
}

/// The template of a path, into `out`: as many bytes as fit (a folded segment may be longer than its id). Returns the length.
/// `whole` says whether that is all of it.
pub fn template<'out>(path: &[u8], whole: bool, out: &'out mut [u8]) -> &'out [u8] {
    template_below(0, path, whole, out)
}

/// The template of what follows so many slashes of a path, as [`template`].
pub fn template_below<'out>(slashes: u32, rest: &[u8], whole: bool, out: &'out mut [u8]) -> &'out [u8] {
    let mut length = 0;
    let mut put = |bytes: &[u8]| {
        for &byte in bytes {
            if let Some(slot) = out.get_mut(length) {
                *slot = byte;
                length += 1;
            }
        }
    };
    let looked_at = &rest[..rest.len().min(MAX_PATH)];
    let whole = whole && rest.len() <= MAX_PATH;
    let count = looked_at.split(|&byte| byte == b'/').count();
    for (i, segment) in looked_at.split(|&byte| byte == b'/').enumerate() {
        if i > 0 {
            put(b"/");
        }
        if i as u32 + slashes >= MAX_SEGMENTS || (!whole && i + 1 == count) {
            put(b"**");
            break;
        }
        let mut folder = Folder::new();
        segment.iter().for_each(|&byte| folder.push(byte));
        put(if folder.is_id() { b"{id}" } else { segment });
    }
    &out[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(path: &str) -> String {
        let mut out = [0; 256];
        String::from_utf8(template(path.as_bytes(), true, &mut out).to_vec()).unwrap()
    }

    #[test]
    fn identifiers_fold() {
        for (path, want) in [
            ("/", "/"),
            ("/orders", "/orders"),
            ("/orders/", "/orders/"),
            ("/orders/42", "/orders/{id}"),
            ("/orders/42/items/7", "/orders/{id}/items/{id}"),
            ("/reports/2024-11-03", "/reports/{id}"),
            ("/u/550e8400-e29b-41d4-a716-446655440000/x", "/u/{id}/x"),
            ("/commit/9fceb02d0ae598e95dc970b74767f19372d61af8", "/commit/{id}"),
            ("/o/507f1f77bcf86cd799439011", "/o/{id}"),
            ("/t/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/t/{id}"),
            ("/user-10029", "/{id}"),
            ("/x/deadbeefdeadbeefdeadbeefdeadbeef", "/x/{id}"),
        ] {
            assert_eq!(folded(path), want, "{path}");
        }
    }

    #[test]
    fn words_and_versions_stay() {
        for path in [
            "/api/v1/users",
            "/v2/oauth2/token",
            "/sha256",
            "/x509/ca",
            "/facade",
            "/accede",
            "/s3/bucket-a",
            "/hello/alice",
            "/.well-known/openid-configuration",
            "/healthz",
            "/a//b",
            "/index.html",
            "/static/app.min.js",
            "/beef",
        ] {
            assert_eq!(folded(path), path);
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        assert_eq!(folded("/a/b/c/d/e/f/g/h/i/j"), "/a/b/c/d/e/f/g/**");
        assert_eq!(hash(b"/a/b/c/d/e/f/g/h/i/j"), hash(b"/a/b/c/d/e/f/g/x/y/z/z"));
        let long = format!("/files/{}", "x".repeat(500));
        assert_eq!(folded(&long), "/files/**");
        assert_eq!(hash(long.as_bytes()), hash(format!("/files/{}", "y".repeat(300)).as_bytes()));
    }

    #[test]
    fn what_lies_below_a_pattern() {
        for (slashes, rest, want) in [
            (1, "query", "query"),
            (1, "query/", "query/"),
            (1, "/query", "/query"),
            (3, "users/7", "users/{id}"),
            (7, "g/h/i", "g/**"),
            (8, "h", "**"),
        ] {
            let mut out = [0; 256];
            assert_eq!(template_below(slashes, rest.as_bytes(), true, &mut out), want.as_bytes(), "{rest}");
        }
        assert_eq!(hash_below(77, 7, b"g/h/i"), hash_below(77, 7, b"g/j"));
        assert_ne!(hash_below(77, 2, b"alice"), hash_below(78, 2, b"alice"));
    }

    /// The property that lets the kernel send hashes alone: two paths have one hash exactly when they have one template.
    #[test]
    fn one_hash_is_one_template() {
        let mut seed = 0x1234_5678_9abc_def1_u64;
        let mut next = move |bound: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % bound
        };
        let words = [
            "a",
            "orders",
            "42",
            "9001",
            "deadbeef01",
            "v1",
            "",
            "x-1",
            "550e8400-e29b-41d4-a716-446655440000",
            "{id}",
        ];
        let (mut seen, mut seen_below) = (std::collections::HashMap::new(), std::collections::HashMap::new());
        for _ in 0..20_000 {
            let mut path = String::new();
            for _ in 0..next(11) {
                path.push('/');
                path.push_str(words[next(words.len() as u64) as usize]);
            }
            // A literal "{id}" in a path reads the same as a folded one; both spellings are one route to a person.
            if path.contains("{id}") {
                continue;
            }
            let text = folded(&path);
            let hash = hash(path.as_bytes());
            assert_eq!(*seen.entry(hash).or_insert_with(|| text.clone()), text, "{path}");
            let mut out = [0; 256];
            let rest = template_below(6, path.as_bytes(), true, &mut out).to_vec();
            let hash = hash_below(77, 6, path.as_bytes());
            assert_eq!(*seen_below.entry(hash).or_insert_with(|| rest.clone()), rest, "{path}");
        }
        let below: std::collections::HashSet<_> = seen_below.values().collect();
        assert_eq!(below.len(), seen_below.len(), "two hashes for one template below a pattern");
        let mut texts: Vec<_> = seen.values().collect();
        texts.sort();
        let before = texts.len();
        texts.dedup();
        assert_eq!(before, texts.len(), "two hashes for one template");
    }
}

//! What the kernel side is told of a program for its HTTP client requests, and how their series are known.

use crate::{facts::Moved, key::text_kind::OWN, span::Lane};

/// Offsets and addresses in a program.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpClient {
    /// Where its type descriptors and their names are: `runtime.moduledata.types` and `etypes`; 0 where that is not known.
    pub types: u64,
    /// See `types`.
    pub etypes: u64,
    /// `net/url.URL.Scheme`.
    pub url_scheme: u16,
    /// `net/url.URL.Host`.
    pub url_host: u16,
    /// `net/http.Response.StatusCode`.
    pub response_status_code: u16,
    /// Always zero.
    pub reserved: u16,
}

impl HttpClient {
    /// Of a program of which nothing is known.
    pub const NONE: Self = Self {
        types: 0,
        etypes: 0,
        url_scheme: crate::target::NONE,
        url_host: crate::target::NONE,
        response_status_code: crate::target::NONE,
        reserved: 0,
    };
}

impl Moved for HttpClient {
    fn moved(self, by: u64) -> Self {
        Self { types: self.types.moved(by), etypes: self.etypes.moved(by), ..self }
    }
}

/// The lanes of requests that are made within each other: by a `RoundTripper` that makes one of its own, as for a token.
pub const LANES: [Lane; 3] = [Lane::HttpClient, Lane::HttpClientWithin, Lane::HttpClientWithinBoth];

/// How the server's address is known: [`crate::key::SeriesKey::text_kind`]. The scheme tells the port where the address has none.
pub mod host_kind {
    use super::OWN;

    /// `URL.Host` of `http`; the text is a hash of it.
    pub const HTTP: u8 = OWN;
    /// The same of `https`.
    pub const HTTPS: u8 = OWN + 1;
    /// The same of any other scheme.
    pub const OTHER: u8 = OWN + 2;
    /// Added to either for what ended in an error: the text is a hash of the host and the error's type; its parent is the host's.
    pub const FAILED: u8 = 3;
}

/// A request that ended in an error of this type: the hash of its host, mixed with where its type is.
#[inline(always)]
pub const fn failed(host: u64, ty: u64) -> u64 {
    (host ^ ty).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// The kind of a URL's scheme, whose first eight bytes, little endian, are `bytes` and whose length is `len`. `url.Parse` makes it lower
/// case (net/url/url.go: parse).
#[inline(always)]
pub const fn kind_of_scheme(bytes: u64, len: u64) -> u8 {
    const HTTP: u64 = u32::from_le_bytes(*b"http") as u64;
    if len == 5 && bytes & 0xff_ffff_ffff == HTTP | (b's' as u64) << 32 {
        host_kind::HTTPS
    } else if len == 4 && bytes & 0xffff_ffff == HTTP {
        host_kind::HTTP
    } else {
        host_kind::OTHER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_are_told_apart() {
        let kind = |scheme: &str| {
            let mut bytes = *b"........";
            bytes[..scheme.len().min(8)].copy_from_slice(&scheme.as_bytes()[..scheme.len().min(8)]);
            kind_of_scheme(u64::from_le_bytes(bytes), scheme.len() as u64)
        };
        assert_eq!((kind("http"), kind("https")), (host_kind::HTTP, host_kind::HTTPS));
        for other in ["", "file", "httpx", "http3", "HTTP", "ftp"] {
            assert_eq!(kind(other), host_kind::OTHER, "{other}");
        }
    }

    #[test]
    fn errors_of_other_types_and_of_other_hosts_are_others() {
        let mut seen = std::collections::BTreeSet::new();
        // Hashes of hosts are odd, and of 63 bits.
        for host in 1..100_u64 {
            for ty in 0..100_u64 {
                seen.insert(failed(host.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, 0x7d_0000 + ty * 32));
            }
        }
        assert_eq!(seen.len(), 99 * 100);
    }
}

//! HTTP request methods as one byte: the set that OpenTelemetry's `http.request.method` knows; all others are `_OTHER`.

/// The label values, by id. Id 0 is every method outside the known set.
pub const NAMES: [&str; 11] =
    ["_OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];

/// The label value of an id: also of those that are no method of the known set.
pub fn label(id: u8) -> &'static str {
    NAMES.get(usize::from(id)).copied().unwrap_or(NAMES[0])
}

/// The id of `GET`.
pub const GET: u8 = 1;
/// The id of `CONNECT`, whose hijacked answer is 200 where an upgrade's is 101 (RFC 9110, 9.3.6 and 15.2.2).
pub const CONNECT: u8 = 6;

/// The id of `PRI`, which is no request: the first line of an HTTP/2 connection looks like one to an HTTP/1 server (RFC 9113,
/// 3.4), and golang.org/x/net/http2/h2c takes the connection over there.
pub const PREFACE: u8 = 11;

/// No known method is longer than this many bytes.
pub const LONGEST: usize = 7;

const fn word(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut word = 0;
    let mut i = 0;
    while i < bytes.len() {
        word |= (bytes[i] as u64) << (8 * i);
        i += 1;
    }
    word
}

/// The id of a method whose first eight bytes, little endian, are `bytes` and whose length is `len`. Methods are case
/// sensitive (RFC 9110, 9.1). Bytes past `len` are ignored.
#[inline(always)]
pub fn id(bytes: u64, len: u64) -> u8 {
    if len == 0 || len > LONGEST as u64 {
        return 0;
    }
    let bytes = bytes & (u64::MAX >> (64 - 8 * len));
    if bytes == const { word("GET") } {
        1
    } else if bytes == const { word("POST") } {
        3
    } else if bytes == const { word("HEAD") } {
        2
    } else if bytes == const { word("PUT") } {
        4
    } else if bytes == const { word("DELETE") } {
        5
    } else if bytes == const { word("CONNECT") } {
        CONNECT
    } else if bytes == const { word("OPTIONS") } {
        7
    } else if bytes == const { word("TRACE") } {
        8
    } else if bytes == const { word("PATCH") } {
        9
    } else if bytes == const { word("QUERY") } {
        10
    } else if bytes == const { word("PRI") } {
        PREFACE
    } else {
        0
    }
}

/// The id of the method that ends before the last of eight bytes, little endian, which is a space: what is on the wire before a
/// request's target. What stands before the method is not known.
#[inline(always)]
pub fn id_before(bytes: u64) -> u8 {
    if bytes >> 56 != b' ' as u64 {
        return 0;
    }
    // The method's last byte uppermost.
    let bytes = bytes << 8;
    let mut id = 1;
    while id < NAMES.len() {
        let name = NAMES[id];
        if bytes >> (64 - 8 * name.len()) == word(name) {
            return id as u8;
        }
        id += 1;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, garbage: u8) -> u8 {
        let mut bytes = [garbage; 8];
        let n = text.len().min(8);
        bytes[..n].copy_from_slice(&text.as_bytes()[..n]);
        id(u64::from_le_bytes(bytes), text.len() as u64)
    }

    #[test]
    fn every_name_has_its_id_whatever_follows_it_in_memory() {
        for (i, name) in NAMES.iter().enumerate().skip(1) {
            assert_eq!(usize::from(of(name, 0)), i);
            assert_eq!(usize::from(of(name, b'/')), i);
        }
        assert_eq!(NAMES[usize::from(CONNECT)], "CONNECT");
    }

    #[test]
    fn the_preface_is_no_method() {
        assert_eq!(of("PRI", b' '), PREFACE);
        assert_eq!(NAMES.get(usize::from(PREFACE)), None);
    }

    #[test]
    fn a_method_is_known_by_what_stands_before_the_target() {
        for (i, name) in NAMES.iter().enumerate().skip(1) {
            for before in [[0; 8], [b'x'; 8]] {
                let line = [&before[..], name.as_bytes(), b" "].concat();
                let last = line[line.len() - 8..].try_into().unwrap();
                assert_eq!(usize::from(id_before(u64::from_le_bytes(last))), i, "{name}");
            }
        }
        for none in ["POST/abc", "PROPFIN ", "        "] {
            assert_eq!(id_before(u64::from_le_bytes(none.as_bytes().try_into().unwrap())), 0, "{none}");
        }
    }

    #[test]
    fn others_are_other() {
        for name in ["", "G", "get", "PURGE", "PROPFIND", "GETT", "OPTIONSX", "a-very-long-method"] {
            assert_eq!(of(name, 0), 0, "{name}");
        }
    }
}

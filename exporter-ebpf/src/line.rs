//! The first line of an HTTP/1 request, `GET /a?b HTTP/1.1`: net/http cuts a request's method, target and version out of one
//! string (net/http/request.go: parseRequestLine), so that each shows where its neighbours were, whatever a handler put in their
//! place. Knows addresses and lengths alone.

/// The strings of a request that are parts of the line, as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Address of the method.
    pub method: u64,
    /// Its length.
    pub method_len: u64,
    /// Address of the target.
    pub target: u64,
    /// Its length.
    pub target_len: u64,
    /// Address of the version.
    pub version: u64,
}

impl Line {
    /// Where the target began if the method is its neighbour.
    #[inline(always)]
    const fn after_method(&self) -> u64 {
        self.method.wrapping_add(self.method_len).wrapping_add(1)
    }

    #[inline(always)]
    const fn target_is_original(&self) -> bool {
        self.target.wrapping_add(self.target_len).wrapping_add(1) == self.version
    }

    /// Whether the method is another than the line's: what was there stands before the target.
    #[inline(always)]
    pub const fn method_was_replaced(&self) -> bool {
        self.after_method() != self.target && self.target_is_original()
    }

    /// Address and length of the line's target; as it is now, where that can no longer be told.
    #[inline(always)]
    pub const fn target(&self) -> (u64, u64) {
        let between = self.version.wrapping_sub(1).wrapping_sub(self.after_method());
        if self.after_method() == self.target || self.target_is_original() || between > LONGEST {
            (self.target, self.target_len)
        } else {
            (self.after_method(), between)
        }
    }
}

/// Headers with the line are 1 MiB at most, unless a server says otherwise (net/http/server.go: DefaultMaxHeaderBytes).
const LONGEST: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// `POST /a?b HTTP/1.1` at 1000.
    const LINE: Line = Line { method: 1000, method_len: 4, target: 1005, target_len: 4, version: 1010 };

    #[test]
    fn what_nobody_touched_is_as_it_is() {
        assert!(!LINE.method_was_replaced());
        assert_eq!(LINE.target(), (1005, 4));
    }

    #[test]
    fn a_method_that_was_replaced() {
        let line = Line { method: 5000, method_len: 6, ..LINE };
        assert!(line.method_was_replaced());
        assert_eq!(line.target(), (1005, 4));
    }

    #[test]
    fn a_target_that_was_replaced_or_emptied() {
        for (target, target_len) in [(7000, 9), (0, 0), (1006, 2)] {
            let line = Line { target, target_len, ..LINE };
            assert!(!line.method_was_replaced());
            assert_eq!(line.target(), (1005, 4));
        }
    }

    #[test]
    fn all_replaced_is_as_it_is() {
        let line = Line { method: 5000, method_len: 6, target: 7000, target_len: 9, version: 1010 };
        assert!(!line.method_was_replaced());
        assert_eq!(line.target(), (7000, 9));
        let version = Line { version: 9_000_000, ..LINE };
        assert!(!version.method_was_replaced());
        assert_eq!(version.target(), (1005, 4));
    }
}

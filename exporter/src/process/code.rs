//! Code that was inspected, remembered as a sum of its bytes, so that a file can be held to it before anything is done to that
//! code. Knows nothing of Go, nor of what is done.

use std::{
    fs::File,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    os::unix::fs::FileExt as _,
    sync::OnceLock,
};

/// Most bytes of one span that are compared.
const MOST_OF_A_SPAN: u64 = 64 * 1024;
/// Compared at every span's end, whatever its length.
const TAIL: u64 = 64;
/// What is always compared: the file's header, its segments, and the build id, which Go puts behind them.
const HEAD: u64 = 4096;

/// Spans of a file and a sum of what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Code {
    /// Offset and length, by offset.
    spans: Vec<(u64, u64)>,
    sum: u64,
}

impl Code {
    /// Reads the spans, which are from the first byte of a function to beyond a site in it: where these bytes are the same, the
    /// site is the beginning of the same instruction.
    ///
    /// # Errors
    /// As reading the file gives them.
    pub(crate) fn read(file: &File, functions: impl IntoIterator<Item = (u64, u64)>) -> io::Result<Self> {
        let mut spans = vec![(0, HEAD)];
        spans.extend(functions.into_iter().flat_map(|(offset, length)| pieces(offset, length)));
        spans.sort_unstable();
        spans.dedup();
        let sum = sum(file, &spans)?;
        Ok(Self { spans, sum })
    }

    /// Code that differs from that of any other sum, for tests.
    #[cfg(test)]
    pub(crate) fn sample(sum: u64) -> Self {
        Self { spans: Vec::new(), sum }
    }

    /// Whether the file has the same bytes there.
    ///
    /// # Errors
    /// As reading the file gives them.
    pub(crate) fn is_in(&self, file: &File) -> io::Result<bool> {
        Ok(sum(file, &self.spans)? == self.sum)
    }
}

/// What is compared of a span: all of it, or of a long one the beginning and the end.
pub(super) fn pieces(offset: u64, length: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = (length > MOST_OF_A_SPAN).then(|| ((offset + length).saturating_sub(TAIL), TAIL));
    std::iter::once((offset, length.min(MOST_OF_A_SPAN))).chain(end)
}

/// By a key of this process's own, so that nobody can make two files of one sum.
fn sum(file: &File, spans: &[(u64, u64)]) -> io::Result<u64> {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    let mut hasher = KEY.get_or_init(RandomState::new).build_hasher();
    let mut buffer = vec![0; MOST_OF_A_SPAN as usize];
    for &(offset, length) in spans {
        let buffer = &mut buffer[..length as usize];
        let mut filled = 0;
        // A file may end before a span does.
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        hasher.write_u64(offset);
        hasher.write_usize(filled);
        hasher.write(&buffer[..filled]);
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    #[test]
    fn a_byte_within_a_span_tells_two_files_apart_and_one_beside_does_not() {
        let mut file = memfd();
        file.write_all(&vec![7; 300_000]).unwrap();
        let code = Code::read(&file, [(10_000, 20), (20_000, 100_000), (299_990, 100)]).unwrap();
        assert!(code.is_in(&file).unwrap());
        let differs = |at: u64| {
            file.write_all_at(&[8], at).unwrap();
            let differs = !code.is_in(&file).unwrap();
            file.write_all_at(&[7], at).unwrap();
            differs
        };
        for inside in [0, 4095, 10_000, 10_019, 20_000, 85_000, 119_936, 119_999, 299_990, 299_999] {
            assert!(differs(inside), "{inside}");
        }
        for beside in [4096, 9_999, 10_020, 90_000, 120_000, 299_989] {
            assert!(!differs(beside), "{beside}");
        }
        assert!(code.is_in(&file).unwrap());
        file.set_len(299_995).unwrap();
        assert!(!code.is_in(&file).unwrap(), "it is shorter");
        file.rewind().unwrap();
        file.set_len(0).unwrap();
        assert!(!code.is_in(&file).unwrap());
    }

    fn memfd() -> File {
        nix::sys::memfd::memfd_create("code", nix::sys::memfd::MFdFlags::empty()).unwrap().into()
    }
}

//! `.go.buildinfo`: the Go version, the modules and the build settings. Knows nothing of functions or layouts.
//!
//! Source: Go's debug/buildinfo/buildinfo.go and runtime/debug/mod.go (1.17 to 1.27).

use memchr::memmem;
use serde::Serialize;

use crate::elf::Elf;
use crate::error::Error;
use crate::source::{Flow, Le, Source, read_up_to, stream};
use crate::version::GoVersion;

/// The 14 bytes that the linker puts at the start of the build information, at 16-byte alignment.
pub(crate) const MARKER: &[u8] = b"\xff Go buildinf:";
const ALIGN: u64 = 16;
const HEADER: usize = 32;
const FLAG_BIG_ENDIAN: u8 = 1;
const FLAG_INLINE: u8 = 2;
/// Go itself never writes a version this long.
const MAX_VERSION: u64 = 4096;
/// The module text of the largest programs (Kubernetes) is under 100 KiB.
const MAX_MODINFO: u64 = 4 << 20;
const MAX_MODULES: usize = 20_000;
const MAX_SETTINGS: usize = 256;
/// How far a file without section headers is searched for the marker.
const MAX_SEARCH: u64 = 512 << 20;
/// How far [`quick`] looks into each segment.
const QUICK_SEARCH: u64 = 64 * 1024;

/// A Go module, as `go version -m` prints it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Module path.
    pub path: String,
    /// `v1.2.3`, a pseudo-version, or `(devel)`.
    pub version: String,
    /// The `h1:` hash; empty for the main module.
    pub sum: String,
    /// What a `replace` put in its place.
    pub replace: Option<Box<Module>>,
}

/// What the Go linker recorded about the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildInfo {
    /// The toolchain.
    pub go_version: GoVersion,
    /// Path of the main package.
    pub path: String,
    /// The module that holds the main package.
    pub main: Option<Module>,
    /// The modules it was built from.
    pub deps: Vec<Module>,
    /// `-ldflags`, `CGO_ENABLED`, `GOARCH`, `DefaultGODEBUG`, `vcs.revision`, ...
    pub settings: Vec<(String, String)>,
}

impl BuildInfo {
    pub(crate) fn unknown() -> Self {
        Self {
            go_version: GoVersion::parse(""),
            path: String::new(),
            main: None,
            deps: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// A build setting.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The module that provides `path`: a dependency or the main module, after `replace`.
    pub fn module(&self, path: &str) -> Option<&Module> {
        let module = self.deps.iter().chain(&self.main).find(|m| m.path == path)?;
        Some(module.replace.as_deref().unwrap_or(module))
    }

    /// Whether `GODEBUG` defaults, set by the main module's `go` line, choose `key=value`.
    pub fn godebug(&self, key: &str, value: &str) -> bool {
        self.setting("DefaultGODEBUG")
            .is_some_and(|all| all.split(',').any(|pair| pair.split_once('=') == Some((key, value))))
    }
}

/// A cheap yes or no: does the file look like Go? Reads the headers and the start of each writable segment.
pub(crate) fn quick<S: Source>(elf: &Elf<S>) -> Result<bool, Error> {
    let names = [".go.buildinfo", ".gopclntab", ".data.rel.ro.gopclntab", ".note.go.buildid"];
    if elf.sections.iter().any(|s| names.contains(&s.name.as_str())) {
        return Ok(true);
    }
    for segment in elf.loads().filter(|s| s.writable()) {
        if search(elf, segment.offset, segment.file_size.min(QUICK_SEARCH))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads the build information; `Ok(None)` when the file has none.
pub(crate) fn read<S: Source>(elf: &Elf<S>) -> Result<Option<BuildInfo>, Error> {
    if let Some(section) = elf.section(".go.buildinfo")
        && let Some(at) = search(elf, section.offset, section.size)?
    {
        return Ok(Some(parse_at(elf, at)?));
    }
    // Only writable segments (relocated read-only data counts as such): Go's linker puts it nowhere else, and programs
    // that read build information themselves, such as this one, have the marker among their constants.
    let mut budget = MAX_SEARCH;
    for segment in elf.loads().filter(|s| s.writable()) {
        let len = segment.file_size.min(budget);
        budget -= len;
        if let Some(at) = search(elf, segment.offset, len)? {
            return Ok(Some(parse_at(elf, at)?));
        }
    }
    Ok(None)
}

/// The file offset of the marker. Its alignment is that of its address, which the segment shares with the file
/// offset modulo the page size.
fn search<S: Source>(elf: &Elf<S>, offset: u64, len: u64) -> Result<Option<u64>, Error> {
    let finder = memmem::Finder::new(MARKER);
    let mut found = None;
    stream(&elf.src, offset, len, MARKER.len() - 1, |base, chunk| {
        for at in finder.find_iter(chunk) {
            let file = offset + base + at as u64;
            // The marker also occurs as a string constant in programs that read build information themselves.
            if elf.vaddr_of(file).unwrap_or(file).is_multiple_of(ALIGN) {
                found = Some(file);
                return Flow::Stop;
            }
        }
        Flow::Continue
    })?;
    Ok(found)
}

fn parse_at<S: Source>(elf: &Elf<S>, at: u64) -> Result<BuildInfo, Error> {
    let header = read_up_to(&elf.src, at, HEADER)?;
    let (Some(&pointer_size), Some(&flags)) = (header.get(14), header.get(15)) else {
        return Err(Error::Truncated { part: "build information", end: at + 32, len: elf.src.len() });
    };
    let (version, modinfo) = if flags & FLAG_INLINE != 0 {
        inline_strings(elf, at)?
    } else {
        if flags & FLAG_BIG_ENDIAN != 0 {
            return Err(Error::BigEndian);
        }
        if pointer_size != 8 {
            return Err(Error::ThirtyTwoBit);
        }
        pointed_strings(elf, &header)?
    };
    let mut info = parse_modinfo(strip_sentinels(&modinfo));
    info.go_version = GoVersion::parse(&String::from_utf8_lossy(&version));
    Ok(info)
}

/// Go 1.18 on: two strings, each with a uvarint length before it.
fn inline_strings<S: Source>(elf: &Elf<S>, at: u64) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let start = at + HEADER as u64;
    let Some((version, next)) = inline_string(elf, start, MAX_VERSION)? else { return Ok((Vec::new(), Vec::new())) };
    let modinfo = inline_string(elf, next, MAX_MODINFO)?.map_or(Vec::new(), |(text, _)| text);
    Ok((version, modinfo))
}

fn inline_string<S: Source>(elf: &Elf<S>, at: u64, limit: u64) -> Result<Option<(Vec<u8>, u64)>, Error> {
    let head = read_up_to(&elf.src, at, 10)?;
    let Some((len, used)) = uvarint(&head) else { return Ok(None) };
    let start = at.saturating_add(used as u64);
    if len > limit || start.checked_add(len).is_none_or(|end| end > elf.src.len()) {
        return Ok(None);
    }
    Ok(Some((read_up_to(&elf.src, start, usize::try_from(len).unwrap_or(0))?, start + len)))
}

/// Go 1.17: pointers to two Go string headers.
fn pointed_strings<S: Source>(elf: &Elf<S>, header: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let read = |at: usize, limit: u64| -> Result<Vec<u8>, Error> {
        let Some(string) = header.u64_at(at) else { return Ok(Vec::new()) };
        let Some(data) = elf.pointer(string)? else { return Ok(Vec::new()) };
        let Some(len) = string.checked_add(8).map(|at| elf.read(at, 8)).transpose()?.flatten() else {
            return Ok(Vec::new());
        };
        let len = len.u64_at(0).unwrap_or(0);
        if len > limit {
            return Ok(Vec::new());
        }
        Ok(elf.read(data, usize::try_from(len).unwrap_or(0))?.unwrap_or_default())
    };
    Ok((read(16, MAX_VERSION)?, read(24, MAX_MODINFO)?))
}

/// The module text stands between two 16-byte sentinels; the byte before the second is a newline.
fn strip_sentinels(text: &[u8]) -> &[u8] {
    let long_enough = text.len() >= 33;
    let newline = text.len().checked_sub(17).and_then(|at| text.get(at)) == Some(&b'\n');
    if long_enough && newline { text.get(16..text.len() - 16).unwrap_or(&[]) } else { &[] }
}

fn uvarint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(index).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

fn parse_modinfo(text: &[u8]) -> BuildInfo {
    let text = String::from_utf8_lossy(text);
    let mut info = BuildInfo::unknown();
    // `=>` lines belong to the `mod` or `dep` line before them.
    let mut last_is_main = false;
    for line in text.lines() {
        let mut fields = line.split('\t');
        match fields.next() {
            Some("path") => fields.next().unwrap_or_default().clone_into(&mut info.path),
            Some("mod") => {
                info.main = Some(module(fields));
                last_is_main = true;
            }
            Some("dep") if info.deps.len() < MAX_MODULES => {
                info.deps.push(module(fields));
                last_is_main = false;
            }
            Some("=>") => {
                let target = if last_is_main { info.main.as_mut() } else { info.deps.last_mut() };
                if let Some(target) = target {
                    target.replace = Some(Box::new(module(fields)));
                }
            }
            Some("build") if info.settings.len() < MAX_SETTINGS => {
                if let Some((key, value)) = line.get(6..).and_then(|l| l.split_once('=')) {
                    info.settings.push((unquote(key), unquote(value)));
                }
            }
            _ => {}
        }
    }
    info
}

fn module<'a>(mut fields: impl Iterator<Item = &'a str>) -> Module {
    let mut next = || fields.next().unwrap_or_default().to_owned();
    Module { path: next(), version: next(), sum: next(), replace: None }
}

/// Settings with blanks or quotes are written with Go's `strconv.Quote`; the simple escapes suffice for them.
fn unquote(text: &str) -> String {
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    let Some(inner) = inner else { return text.trim_matches('`').to_owned() };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;

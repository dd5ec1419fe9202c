//! What calls of google.golang.org/grpc have in common, whichever end of them is measured: names of labels and codes, and what is known of
//! the module that a program was built with.

use exporter_ebpf::grpc::{CODES, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNREADABLE_CODE};
use gobinary::LayoutsFrom;

use crate::{Value, planner::Planner};

/// The label of the status: OpenTelemetry's name in releases 1.39 to 1.44. The next calls it `rpc.status_code`
/// (semantic-conventions#3921).
pub(crate) const STATUS: &str = "rpc_response_status_code";
pub(crate) const METHOD: &str = "rpc_method";
pub(crate) const SYSTEM: &str = "rpc_system_name";
/// What a method that no server has is called, and a code without a name (OpenTelemetry's fallback).
pub(crate) const OTHER: &str = "_OTHER";

const MODULE: &str = "google.golang.org/grpc";
/// In every version; `Code` is inlined into it.
pub(crate) const STATUS_ERR: &str = "google.golang.org/grpc/internal/status.(*Status).Err";
/// The message of a status, of another module, which need not be as old as grpc is.
pub(crate) const MESSAGE: &str = "google.golang.org/genproto/googleapis/rpc/status.Status";
/// Functions that came with 1.84 and 1.78 (server.go, stream.go).
pub(crate) const SINCE_1_78: [&str; 2] =
    ["google.golang.org/grpc.(*Server).processRPC", "google.golang.org/grpc.endOfClientStream"];

/// google.golang.org/grpc/codes, by number, as OpenTelemetry writes them.
const NAMES: [&str; CODES as usize] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The value of [`STATUS`] for a code as it is kept; none where it could not be read.
pub(crate) fn code_label(code: u16) -> Option<Value> {
    match NAMES.get(usize::from(code)) {
        Some(name) => Some(Value::Word(name)),
        None if code == UNREADABLE_CODE => None,
        None => Some(Value::Word(OTHER)),
    }
}

/// The offset of `Code` in the message of a status, as the program's own code has it: that of another version of the message's module is
/// another. Debug information must agree.
pub(crate) fn code_offset(planner: &Planner<'_>) -> Result<u16, String> {
    let read = planner.function(STATUS_ERR).ok().and_then(|err| planner.binary.first_field_read(err));
    let said = planner.binary.layouts().offset(MESSAGE, "Code");
    choose_code(read, said)
}

fn choose_code(read: Option<u32>, said: Option<u32>) -> Result<u16, String> {
    let disagree = |a, b| format!("{STATUS_ERR} has a status's code at {a}, the debug information at {b}");
    match (read, said) {
        (Some(read), Some(said)) if read != said => Err(disagree(read, said)),
        (Some(at), _) | (None, Some(at)) if at <= 64 => Ok(at as u16),
        (Some(at), _) | (None, Some(at)) => {
            Err(format!("a status's code at {at} bytes into its message is none of gRPC's"))
        }
        (None, None) => {
            Err(format!("where a status has its code is not known: {STATUS_ERR} does not read it as expected"))
        }
    }
}

/// Of which version the module is, as far as the build information is to be trusted with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// A version of the module itself, with its minor number.
    Own(String, u32),
    /// Something else in its place, or no build information.
    Unknown(String),
}

impl Version {
    pub(crate) fn of(planner: &Planner<'_>) -> Self {
        let info = &planner.binary.build_info;
        let Some(module) = info.module(MODULE) else {
            return Self::Unknown(format!("the version of {MODULE} is not recorded in the program"));
        };
        Self::parse(&module.path, &module.version)
    }

    fn parse(path: &str, version: &str) -> Self {
        let numbers = version.strip_prefix("v1.").and_then(|rest| rest.split('.').next()?.parse().ok());
        match numbers {
            Some(minor) if path == MODULE => Self::Own(version.to_owned(), minor),
            _ => Self::Unknown(format!("{MODULE} is replaced by {}", format!("{path} {version}").trim())),
        }
    }

    /// Codes under which a method that the server does not have ends, as bits: client texts must not become labels. A malformed one was
    /// `RESOURCE_EXHAUSTED` in early versions (server.go: `handleStream`).
    pub(crate) fn unknown_codes(&self) -> u32 {
        let early = match self {
            Self::Own(_, minor) => *minor < 40,
            Self::Unknown(_) => true,
        };
        1 << UNIMPLEMENTED | if early { 1 << RESOURCE_EXHAUSTED } else { 0 }
    }

    /// Whether layouts are this version's: from the program's own debug information, or from the table by a version of the module itself.
    pub(crate) fn are_known(&self, planner: &Planner<'_>) -> bool {
        planner.binary.layouts().source() == LayoutsFrom::Dwarf || matches!(self, Self::Own(..))
    }

    /// Why something of it is not known.
    pub(crate) fn no_layouts(&self) -> String {
        match self {
            Self::Own(version, _) => format!("no struct layouts of {MODULE} for {version}"),
            Self::Unknown(why) => format!("no struct layouts of {MODULE}: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_the_conventions() {
        let label = |code| match code_label(code) {
            Some(Value::Word(word)) => word,
            Some(_) => "?",
            None => "-",
        };
        assert_eq!(
            (label(0), label(1), label(4), label(16)),
            ("OK", "CANCELLED", "DEADLINE_EXCEEDED", "UNAUTHENTICATED")
        );
        assert_eq!((label(exporter_ebpf::grpc::OTHER_CODE), label(UNREADABLE_CODE)), (OTHER, "-"));
    }

    #[test]
    fn a_code_that_is_elsewhere_than_said_is_not_read() {
        assert_eq!(choose_code(Some(40), None), Ok(40));
        assert_eq!(choose_code(Some(0), Some(0)), Ok(0));
        assert_eq!(choose_code(None, Some(8)), Ok(8), "not optimized");
        for (read, said) in [(Some(40), Some(0)), (None, None), (Some(400), None)] {
            assert!(choose_code(read, said).is_err(), "{read:?} {said:?}");
        }
    }

    #[test]
    fn a_version_is_that_of_the_module_itself() {
        assert_eq!(Version::parse(MODULE, "v1.60.1"), Version::Own("v1.60.1".into(), 60));
        for (path, version) in
            [("../grpc", ""), ("example.com/fork", "v1.60.1"), (MODULE, "(devel)"), (MODULE, "v2.0.0")]
        {
            assert!(matches!(Version::parse(path, version), Version::Unknown(_)), "{path} {version}");
        }
        let early = |version| Version::parse(MODULE, version).unknown_codes();
        assert_eq!((early("v1.39.1"), early("v1.40.0")), (1 << 8 | 1 << 12, 1 << 12));
        assert_eq!(Version::Unknown(String::new()).unknown_codes(), 1 << 8 | 1 << 12);
    }
}

//! The format of `go tool pprof`: the messages of github.com/google/pprof/proto/profile.proto, compressed.

use std::{
    collections::HashMap,
    io::{self, Write as _},
};

use flate2::{Compression, write::GzEncoder};
use gobinary::Frame;
use prost::Message;

use super::Profile;

#[derive(Clone, PartialEq, Message)]
struct Proto {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
}

#[expect(clippy::struct_excessive_bools, reason = "the published message has them")]
#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// A profile as pprof reads it, with the same values as Go's own block profile.
pub(crate) fn pprof(profile: &Profile) -> io::Result<Vec<u8>> {
    let mut out = Builder::default();
    // The first text must be empty.
    out.text("");
    let kinds = [("contentions", "count"), ("delay", "nanoseconds")];
    out.proto.sample_type = kinds.map(|(kind, unit)| ValueType { kind: out.text(kind), unit: out.text(unit) }).into();
    out.proto.period_type = out.proto.sample_type.first().cloned();
    out.proto.period = 1;
    out.proto.default_sample_type = out.text("delay");
    out.proto.time_nanos = profile.began_ns;
    out.proto.duration_nanos = i64::try_from(profile.took.as_nanos()).unwrap_or(i64::MAX);
    let filename = out.text(&profile.executable);
    out.proto.mapping.push(Mapping {
        id: 1,
        filename,
        has_functions: true,
        has_filenames: true,
        has_line_numbers: true,
        has_inline_frames: true,
    });
    for stack in &profile.stacks {
        let location_id = stack.places.iter().map(|(address, place)| out.location(*address, place)).collect();
        let label = Label { key: out.text("reason"), str: out.text(stack.reason) };
        let value = vec![stack.count.round() as i64, (stack.seconds * 1e9) as i64];
        out.proto.sample.push(Sample { location_id, value, label: vec![label] });
    }
    let mut zip = GzEncoder::new(Vec::new(), Compression::default());
    zip.write_all(&out.proto.encode_to_vec())?;
    zip.finish()
}

#[derive(Default)]
struct Builder {
    proto: Proto,
    texts: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<(u64, Vec<Line2>), u64>,
}

/// A line as a key.
type Line2 = (u64, i64);

impl Builder {
    fn text(&mut self, text: &str) -> i64 {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        let number = self.proto.string_table.len() as i64;
        self.proto.string_table.push(text.to_owned());
        self.texts.insert(text.to_owned(), number);
        number
    }

    fn function(&mut self, frame: &Frame) -> u64 {
        let (name, filename) = (self.text(&frame.function), self.text(&frame.file));
        if let Some(known) = self.functions.get(&(name, filename)) {
            return *known;
        }
        let id = self.proto.function.len() as u64 + 1;
        self.proto.function.push(Function { id, name, system_name: name, filename });
        self.functions.insert((name, filename), id);
        id
    }

    fn location(&mut self, address: u64, place: &[Frame]) -> u64 {
        let lines: Vec<Line2> = place.iter().map(|frame| (self.function(frame), i64::from(frame.line))).collect();
        let key = (address, lines);
        if let Some(known) = self.locations.get(&key) {
            return *known;
        }
        let id = self.proto.location.len() as u64 + 1;
        let line = key.1.iter().map(|&(function_id, line)| Line { function_id, line }).collect();
        self.proto.location.push(Location { id, mapping_id: 1, address, line });
        self.locations.insert(key, id);
        id
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, time::Duration};

    use super::*;
    use crate::profile::tests::stack;

    #[test]
    fn what_is_written_can_be_read_and_holds_each_thing_once() {
        let stacks = vec![stack(), stack().without_mechanism()];
        let profile = Profile { executable: "/bin/x".into(), began_ns: 5, took: Duration::from_secs(2), stacks };
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&*pprof(&profile).unwrap()).read_to_end(&mut bytes).unwrap();
        let read = Proto::decode(&*bytes).unwrap();
        assert_eq!((read.sample.len(), read.sample[0].value.clone()), (2, vec![2, 1_500_000_000]));
        assert_eq!(read.function.len(), 5);
        assert_eq!(read.location.len(), 4);
        assert_eq!(read.string_table[0], "");
        let unique: std::collections::HashSet<_> = read.string_table.iter().collect();
        assert_eq!(unique.len(), read.string_table.len());
    }
}

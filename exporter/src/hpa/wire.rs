//! What goes between a node agent and the metrics-api, and nothing else of either: a stream of frames, one a second, each a
//! Protobuf message after its length. Fields are only ever added, so that agents and metrics-api need not be of one version.

use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message;
use thiserror::Error;

/// Where an agent serves the stream.
pub(crate) const PATH: &str = "/hpa/v1/stream";
/// Its media type.
pub(crate) const CONTENT_TYPE: &str = "application/vnd.gopulse.hpa.v1+protobuf";
/// The longest frame that is read: 250 targets at their limits of series are below it.
pub(crate) const MAX_FRAME: usize = 16 << 20;

/// What has changed since the frame before. A stream's first frame has everything. Ids are the stream's own.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Frame {
    /// When the figures were read, milliseconds since 1970 by the agent's clock.
    #[prost(uint64, tag = "1")]
    pub(crate) unix_ms: u64,
    /// Whether it is the first.
    #[prost(bool, tag = "2")]
    pub(crate) first: bool,
    /// Families not named before.
    #[prost(message, repeated, tag = "3")]
    pub(crate) families: Vec<Family>,
    /// Containers not named before, or named anew with other families.
    #[prost(message, repeated, tag = "4")]
    pub(crate) containers: Vec<Container>,
    /// Series not named before.
    #[prost(message, repeated, tag = "5")]
    pub(crate) series: Vec<Series>,
    /// Values that are not what they were.
    #[prost(message, repeated, tag = "6")]
    pub(crate) samples: Vec<Sample>,
    /// Containers that are no longer measured; their series go with them.
    #[prost(uint32, repeated, tag = "7")]
    pub(crate) gone: Vec<u32>,
    /// Series that are no longer there, of containers that are. A gauge among them has a last sample of 0 in the same frame, for a
    /// reader that does not know of this field.
    #[prost(uint32, repeated, tag = "8")]
    pub(crate) gone_series: Vec<u32>,
    /// In a first frame: which run of the agent this is. Another run counts anew. 0: not told.
    #[prost(uint64, tag = "9")]
    pub(crate) run: u64,
    /// Pods of the agent's node that should have figures and have none, all of them anew; absent where nothing has changed, or the
    /// agent does not know yet.
    #[prost(message, optional, tag = "10")]
    pub(crate) unmeasured: Option<Unmeasured>,
}

/// Pods without figures.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Unmeasured {
    /// All of them.
    #[prost(message, repeated, tag = "1")]
    pub(crate) pods: Vec<UnmeasuredPod>,
}

/// A pod without figures.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct UnmeasuredPod {
    /// Namespace.
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    /// Name.
    #[prost(string, tag = "2")]
    pub(crate) pod: String,
    /// Whether that is as it should be: no Go process runs in it, or the configuration excludes it. Otherwise it may do what is not
    /// counted.
    #[prost(bool, tag = "3")]
    pub(crate) expected: bool,
    /// Why, for people.
    #[prost(string, tag = "4")]
    pub(crate) reason: String,
}

/// A kind of figure.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Family {
    /// Id.
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    /// Its name, as at `/metrics`.
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    /// What its values are.
    #[prost(enumeration = "Kind", tag = "3")]
    pub(crate) kind: i32,
    /// Upper bounds of a histogram's buckets, without `+Inf`, ascending.
    #[prost(double, repeated, tag = "4")]
    pub(crate) bounds: Vec<f64>,
}

/// What values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Kind {
    /// Goes both ways.
    Gauge = 0,
    /// Only grows.
    Counter = 1,
    /// Counts by bucket, which only grow.
    Histogram = 2,
}

/// A measured container.
#[derive(Clone, PartialEq, Eq, Message)]
#[expect(clippy::struct_field_names, reason = "a container's container name")]
pub(crate) struct Container {
    /// Id.
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    /// Namespace.
    #[prost(string, tag = "2")]
    pub(crate) namespace: String,
    /// Pod.
    #[prost(string, tag = "3")]
    pub(crate) pod: String,
    /// Container.
    #[prost(string, tag = "4")]
    pub(crate) container: String,
    /// Ids of families that are measured of it: where one has no series, nothing of it has happened.
    #[prost(uint32, repeated, tag = "5")]
    pub(crate) families: Vec<u32>,
    /// Since when all that it did has been counted, milliseconds since 1970 by the agent's clock. 0: not told.
    #[prost(uint64, tag = "6")]
    pub(crate) counted_since_ms: u64,
    /// Whether it began then: its counts were 0, and it had done nothing before.
    #[prost(bool, tag = "7")]
    pub(crate) from_start: bool,
}

/// A label set of a family of a container.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Series {
    /// Id.
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    /// Whose.
    #[prost(uint32, tag = "2")]
    pub(crate) container: u32,
    /// Of which family.
    #[prost(uint32, tag = "3")]
    pub(crate) family: u32,
    /// Names and values, in turn.
    #[prost(string, repeated, tag = "4")]
    pub(crate) labels: Vec<String>,
}

/// A value.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sample {
    /// Of which series.
    #[prost(uint32, tag = "1")]
    pub(crate) series: u32,
    /// A gauge's or a counter's value.
    #[prost(double, tag = "2")]
    pub(crate) value: f64,
    /// Buckets whose counts are not what they were.
    #[prost(uint32, repeated, tag = "3")]
    pub(crate) buckets: Vec<u32>,
    /// Their counts, not cumulative over buckets, since the series began.
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) counts: Vec<u64>,
}

/// Why a stream is given up.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum WireError {
    #[error("a frame of {0} bytes is longer than {MAX_FRAME}")]
    TooLong(u64),
    #[error("a frame that is no message: {0}")]
    Malformed(String),
}

impl Frame {
    /// With its length before it.
    pub(crate) fn to_bytes(&self) -> Bytes {
        self.encode_length_delimited_to_vec().into()
    }
}

/// Takes the next whole frame off the front, if there is one.
pub(crate) fn next_frame(pending: &mut BytesMut) -> Result<Option<Frame>, WireError> {
    let mut head = &pending[..];
    let length = match prost::encoding::decode_varint(&mut head) {
        Ok(length) => length,
        Err(_) if pending.len() < 10 => return Ok(None),
        Err(error) => return Err(WireError::Malformed(error.to_string())),
    };
    if length > MAX_FRAME as u64 {
        return Err(WireError::TooLong(length));
    }
    let prefix = pending.len() - head.len();
    let length = length as usize;
    if head.len() < length {
        pending.reserve(length - head.len());
        return Ok(None);
    }
    pending.advance(prefix);
    let body = pending.split_to(length);
    // From a slice: byte by byte out of a `BytesMut` takes twice as long.
    Frame::decode(&body[..]).map(Some).map_err(|error| WireError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let frame = |unix_ms| Frame {
            unix_ms,
            samples: vec![Sample { series: 3, buckets: vec![1, 20], counts: vec![5, u64::MAX], ..Sample::default() }],
            ..Frame::default()
        };
        let bytes = [frame(1).to_bytes(), frame(2).to_bytes(), Frame::default().to_bytes()].concat();
        for cut in 1..bytes.len() {
            let mut pending = BytesMut::new();
            let mut read = Vec::new();
            for part in bytes.chunks(cut) {
                pending.extend_from_slice(part);
                while let Some(frame) = next_frame(&mut pending).unwrap() {
                    read.push(frame);
                }
            }
            assert_eq!(read, [frame(1), frame(2), Frame::default()], "{cut}");
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error_and_a_long_one_is_not_waited_for() {
        let read = |bytes: &[u8]| next_frame(&mut BytesMut::from(bytes));
        assert_eq!(read(&[0xff; 12]).unwrap_err().to_string().split(':').next(), Some("a frame that is no message"));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(WireError::TooLong(u64::from(u32::MAX))));
        assert!(matches!(read(&[2, 0xff, 0xff]), Err(WireError::Malformed(_))));
        assert_eq!(read(&[0xff]), Ok(None));
    }

    /// As it was before series, runs and pods without figures were told of.
    #[derive(Clone, PartialEq, Message)]
    struct OldFrame {
        #[prost(uint64, tag = "1")]
        unix_ms: u64,
        #[prost(message, repeated, tag = "4")]
        containers: Vec<OldContainer>,
        #[prost(uint32, repeated, tag = "7")]
        gone: Vec<u32>,
    }

    #[derive(Clone, PartialEq, Eq, Message)]
    struct OldContainer {
        #[prost(uint32, tag = "1")]
        id: u32,
        #[prost(uint32, repeated, tag = "5")]
        families: Vec<u32>,
    }

    #[test]
    fn frames_of_other_versions_are_read() {
        let new = Frame {
            unix_ms: 7,
            containers: vec![Container {
                id: 1,
                families: vec![2],
                counted_since_ms: 5,
                from_start: true,
                ..Container::default()
            }],
            gone: vec![3],
            gone_series: vec![4],
            run: 6,
            unmeasured: Some(Unmeasured { pods: vec![UnmeasuredPod::default()] }),
            ..Frame::default()
        };
        let old = OldFrame { unix_ms: 7, containers: vec![OldContainer { id: 1, families: vec![2] }], gone: vec![3] };
        assert_eq!(OldFrame::decode(&new.encode_to_vec()[..]), Ok(old.clone()));
        let read = Frame::decode(&old.encode_to_vec()[..]).unwrap();
        assert_eq!((read.run, read.unmeasured, read.gone_series.len()), (0, None, 0));
        assert_eq!((read.containers[0].counted_since_ms, read.containers[0].from_start), (0, false));
    }
}

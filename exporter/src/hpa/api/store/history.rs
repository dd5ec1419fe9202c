//! What happened to a series lately, packed: millions of changes are kept, most of which need six bytes. Knows times and numbers, and
//! not what they mean.

/// A buffer of a list of changes, the oldest first, each with its time.
///
/// A change is how many milliseconds it is after the one before, as a varint, and then a number, or a list of buckets with counts.
#[derive(Debug, Default)]
pub(super) struct History {
    bytes: Box<[u8]>,
    /// What of the buffer is in use.
    start: u32,
    end: u32,
    /// When the oldest change was, milliseconds.
    first: u64,
    /// From there to the newest.
    span: u32,
}

/// A number as it is kept: exact, or to a billionth, as times are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Integer(u64),
    /// Millionths.
    Micro(u64),
    /// Billionths.
    Nano(u64),
    Float(f64),
}

/// The greatest number that is packed as an integer: a float has all of those below.
const MOST: f64 = (1_u64 << 52) as f64;

impl Number {
    /// A gauge's value, as it is.
    pub(super) fn exact(value: f64) -> Self {
        let integer =
            (0.0..MOST).contains(&value) && value.fract() == 0.0 && !(value == 0.0 && value.is_sign_negative());
        if integer { Self::Integer(value as u64) } else { Self::Float(value) }
    }

    /// A counter's growth: what is less than a billionth of it is an error of the subtraction.
    pub(super) fn growth(value: f64) -> Self {
        if let integer @ Self::Integer(_) = Self::exact(value) {
            return integer;
        }
        let nano = (value * 1e9).round();
        if !(0.0..MOST).contains(&nano) {
            return Self::Float(value);
        }
        match nano as u64 {
            nano if nano % 1000 == 0 => Self::Micro(nano / 1000),
            nano => Self::Nano(nano),
        }
    }

    pub(super) fn value(self) -> f64 {
        match self {
            Self::Integer(number) => number as f64,
            Self::Micro(number) => number as f64 / 1e6,
            Self::Nano(number) => number as f64 / 1e9,
            Self::Float(number) => number,
        }
    }

    fn put(self, into: &mut Vec<u8>) {
        match self {
            Self::Integer(number) => put(into, number << 2),
            Self::Micro(number) => put(into, (number << 2) | 1),
            Self::Nano(number) => put(into, (number << 2) | 2),
            Self::Float(number) => {
                into.push(3);
                into.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let packed = take(from)?;
        Some(match packed & 3 {
            0 => Self::Integer(packed >> 2),
            1 => Self::Micro(packed >> 2),
            2 => Self::Nano(packed >> 2),
            _ => {
                let (bytes, rest) = from.split_first_chunk::<8>()?;
                *from = rest;
                Self::Float(f64::from_le_bytes(*bytes))
            }
        })
    }
}

/// What the changes of a history are; one has but one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changes {
    Numbers,
    Buckets,
}

impl Changes {
    /// Takes a change without its time off the front.
    fn skip(self, from: &mut &[u8]) -> Option<()> {
        match self {
            Self::Numbers => Number::take(from).map(drop),
            Self::Buckets => {
                for _ in 0..take(from)? {
                    take(from)?;
                    take(from)?;
                }
                Some(())
            }
        }
    }
}

impl History {
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// A number from `at` on, or growth up to then. Times do not go back.
    pub(super) fn push_number(&mut self, at: u64, number: Number) {
        self.push(at, |into| number.put(into));
    }

    /// Growth of buckets up to `at`, by their numbers, ascending.
    pub(super) fn push_buckets(&mut self, at: u64, growth: &[(u16, u32)]) {
        self.push(at, |into| {
            put(into, growth.len() as u64);
            let mut before = 0;
            for (bucket, count) in growth {
                put(into, u64::from(bucket.wrapping_sub(before)));
                put(into, u64::from(*count));
                before = *bucket;
            }
        });
    }

    fn push(&mut self, at: u64, what: impl FnOnce(&mut Vec<u8>)) {
        let after = at.saturating_sub(self.first);
        // As long as this nothing is kept: the clock was set.
        if self.is_empty() || after > u64::from(u32::MAX) {
            (self.start, self.end, self.first, self.span) = (0, 0, at, 0);
        }
        let span = at.saturating_sub(self.first) as u32;
        let mut packed = Vec::with_capacity(32);
        put(&mut packed, u64::from(span.saturating_sub(self.span)));
        what(&mut packed);
        self.span = self.span.max(span);
        self.make_room(packed.len());
        let end = self.end as usize;
        self.bytes[end..end + packed.len()].copy_from_slice(&packed);
        self.end += packed.len() as u32;
    }

    fn make_room(&mut self, more: usize) {
        let (start, end) = (self.start as usize, self.end as usize);
        if end + more <= self.bytes.len() {
            return;
        }
        let held = end - start;
        if held + more > self.bytes.len() || start < held / 4 {
            // As the allocator has them: multiples of 16 but for its own 8.
            let length = (held + more + held / 8 + 8).next_multiple_of(16) + 8;
            let mut bytes = vec![0; length].into_boxed_slice();
            bytes[..held].copy_from_slice(&self.bytes[start..end]);
            self.bytes = bytes;
        } else {
            self.bytes.copy_within(start..end, 0);
        }
        (self.start, self.end) = (0, held as u32);
    }

    /// Drops changes before `cutoff`; if `last` is wanted the newest of them stays, which is what holds then, as if it were of then.
    pub(super) fn expire(&mut self, changes: Changes, cutoff: u64, last: bool) {
        while self.first < cutoff && !self.is_empty() {
            let mut rest = &self.bytes[self.start as usize..self.end as usize];
            let length = rest.len();
            let whole = take(&mut rest).and_then(|_| changes.skip(&mut rest));
            let used = (length - rest.len()) as u32;
            // The time of the next is counted from this one.
            let next = take(&mut rest).filter(|_| whole.is_some());
            match next {
                Some(after) if !last || self.first + after < cutoff => {
                    self.start += used;
                    self.first += after;
                    self.span = self.span.saturating_sub(after as u32);
                }
                None if !last => *self = Self::default(),
                next => {
                    if next.is_none() {
                        self.first = cutoff;
                    }
                    return;
                }
            }
        }
    }

    /// Numbers with their times, if it has numbers.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (u64, Number)> {
        let mut rest = self.in_use();
        let mut at = self.first;
        let mut oldest = true;
        std::iter::from_fn(move || {
            let after = take(&mut rest)?;
            at += if std::mem::take(&mut oldest) { 0 } else { after };
            Some((at, Number::take(&mut rest)?))
        })
    }

    /// Calls `each` with the growth of each bucket within a time, if it has buckets.
    pub(super) fn each_bucket(&self, mut within: impl FnMut(u64) -> bool, mut each: impl FnMut(u16, u32)) {
        let mut rest = self.in_use();
        let mut at = self.first;
        let mut oldest = true;
        while let Some(after) = take(&mut rest) {
            at += if std::mem::take(&mut oldest) { 0 } else { after };
            let meant = within(at);
            let mut bucket = 0_u64;
            for _ in 0..take(&mut rest).unwrap_or(0) {
                let (Some(next), Some(count)) = (take(&mut rest), take(&mut rest)) else { return };
                bucket += next;
                if meant {
                    each(bucket as u16, count as u32);
                }
            }
        }
    }

    fn in_use(&self) -> &[u8] {
        &self.bytes[self.start as usize..self.end as usize]
    }

    /// Bytes that it takes beside itself.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }
}

/// A varint, as Protobuf has it.
fn put(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn take(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    let mut shift = 0;
    loop {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests;

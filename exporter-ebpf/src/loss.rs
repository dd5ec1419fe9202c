//! What the kernel side could not count, by reason: each is a metric, so that nothing is lost in silence.

/// Why something was not counted as it should have been. The number is part of the map key.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A request ended whose start was not seen: it was in flight when the probes were attached. Not counted.
    NoStart = 0,
    /// The map of requests in flight was full. Not counted.
    InFlightFull = 1,
    /// The target's memory could not be read at the end of a request. Counted with what was known.
    Unreadable = 2,
    /// More requests had panicked at one time than can be kept. Not counted, unless they end normally after all.
    PanicsFull = 3,
    /// The target has more routes than its limit. Counted under the overflow route.
    RouteOverflow = 4,
    /// The target has more series than its share of the map, or the map was full. Counted under an overflow series of the target.
    SeriesOverflow = 5,
    /// The event ring was full; the periodic scan of /proc finds what it would have told.
    EventRing = 6,
    /// More goroutines have waited than can be kept. This wait is not counted.
    ParkedFull = 7,
    /// A stack could not be taken or kept. The wait is counted, but is in no profile.
    StackLost = 8,
    /// More threads than can be kept. Their waits for a CPU are not counted.
    TasksFull = 9,
    /// A request of a server whose struct layouts are not known. Not counted.
    LayoutUnknown = 10,
    /// A wait outlasted the time for which the probes were attached, and the process's memory could not be read in time to see it
    /// end. Not counted.
    WaitUnreadable = 11,
    /// A wait outlasted the time for which the probes were attached, and went on for so long that it is followed no more. Not
    /// counted.
    WaitTooLong = 12,
    /// A request's goroutine ended, or serves another request, and no probe has seen the request end. Not counted.
    EndNotSeen = 13,
    /// More of one kind were within each other on one goroutine than are told apart. Not counted.
    NestedTooDeep = 14,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::NoStart,
        Self::InFlightFull,
        Self::Unreadable,
        Self::PanicsFull,
        Self::RouteOverflow,
        Self::SeriesOverflow,
        Self::EventRing,
        Self::ParkedFull,
        Self::StackLost,
        Self::TasksFull,
        Self::LayoutUnknown,
        Self::WaitUnreadable,
        Self::WaitTooLong,
        Self::EndNotSeen,
        Self::NestedTooDeep,
    ];

    /// The `reason` label's value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoStart => "start_not_seen",
            Self::InFlightFull => "in_flight_map_full",
            Self::Unreadable => "memory_unreadable",
            Self::PanicsFull => "panics_map_full",
            Self::RouteOverflow => "route_limit",
            Self::SeriesOverflow => "series_limit",
            Self::EventRing => "event_ring_full",
            Self::ParkedFull => "parked_map_full",
            Self::StackLost => "stack_not_kept",
            Self::TasksFull => "tasks_map_full",
            Self::LayoutUnknown => "layout_unknown",
            Self::WaitUnreadable => "wait_unreadable",
            Self::WaitTooLong => "wait_too_long",
            Self::EndNotSeen => "end_not_seen",
            Self::NestedTooDeep => "nested_too_deep",
        }
    }
}

/// Key of the `LOST` map; its value is a `u64` count.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LostKey {
    /// The target's id; 0 where no target is known.
    pub target: u32,
    /// A [`Reason`] as its number.
    pub reason: u32,
}

/// Entries of the `LOST` map: every reason for a full set of targets.
pub const MAX_LOST: u32 = Reason::ALL.len() as u32 * crate::target::MAX_TARGETS;

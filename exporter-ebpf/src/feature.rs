//! What can be measured of a target, and the parts of it that can be off by themselves. Knows nothing of how either is measured.

/// One thing that can be measured, as a person asks for it. Its number is its bit in [`crate::wait::Watch::on`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feature {
    /// HTTP server requests, by probes.
    Http,
    /// The Go runtime's own figures, read from its memory, and `process_*`: no probe.
    Runtime,
    /// How long goroutines are blocked, by probes that the overhead budget limits.
    Blocking,
    /// Stops of the world, by probes that are hit a few times a cycle of the garbage collector.
    Stw,
    /// How long threads wait in the run queue for a CPU, by the scheduler's tracepoints.
    RunQueue,
}

impl Feature {
    /// All of them, in the order they are shown.
    pub const ALL: [Self; 5] = [Self::Http, Self::Runtime, Self::Blocking, Self::Stw, Self::RunQueue];

    /// Its name in configurations, annotations and figures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Runtime => "runtime",
            Self::Blocking => "blocking",
            Self::Stw => "gc",
            Self::RunQueue => "scheduler",
        }
    }

    /// Its bit in a set.
    #[inline(always)]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// What a part is to its feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// With it alone the feature measures something.
    Enough,
    /// It adds to what others measure.
    Besides,
}

/// Declares the parts: name in `/targets`, feature, and weight.
macro_rules! parts {
    ($($(#[$doc:meta])* $part:ident = $name:literal of $feature:ident, $weight:ident;)*) => {
        /// A part of a feature that can be off by itself, for a reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Part {
            $($(#[$doc])* $part,)*
        }

        impl Part {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$part),*];

            /// Its name at `/targets` and in `inspect --json`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$part => $name,)*
                }
            }

            /// What it is a part of.
            pub const fn feature(self) -> Feature {
                match self {
                    $(Self::$part => Feature::$feature,)*
                }
            }

            const fn weight(self) -> Weight {
                match self {
                    $(Self::$part => Weight::$weight,)*
                }
            }
        }
    };
}

parts! {
    /// HTTP/1 server requests.
    Http1Server = "http1_server" of Http, Enough;
    /// HTTP/2 server requests of net/http.
    Http2Server = "http2_server" of Http, Enough;
    /// HTTP/2 server requests of golang.org/x/net/http2.
    XnetHttp2Server = "xnet_http2_server" of Http, Enough;
    /// Routes as ServeMux patterns (Go 1.22 on); without it they are folded from paths.
    RoutePattern = "route_pattern" of Http, Besides;
    /// Hijacked connections.
    Hijack = "hijack" of Http, Besides;
    /// Requests that end in a panic.
    Panic = "panic" of Http, Besides;
    /// The Go runtime's own figures.
    Runtime = "runtime" of Runtime, Enough;
    /// How long goroutines are blocked.
    Blocking = "goroutine_blocking" of Blocking, Enough;
    /// Stops of the world.
    Stw = "stop_the_world" of Stw, Enough;
}

impl Part {
    /// Whether its feature measures something with this part alone.
    pub const fn is_enough(self) -> bool {
        matches!(self.weight(), Weight::Enough)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_and_part_has_a_name_of_its_own() {
        let features: std::collections::BTreeSet<_> = Feature::ALL.iter().map(|it| it.name()).collect();
        assert_eq!(features.len(), Feature::ALL.len());
        let parts: std::collections::BTreeSet<_> = Part::ALL.iter().map(|it| it.name()).collect();
        assert_eq!(parts.len(), Part::ALL.len());
    }

    #[test]
    fn all_features_are_in_the_order_of_their_bits() {
        assert!(Feature::ALL.iter().enumerate().all(|(i, feature)| feature.bit() == 1 << i));
    }

    #[test]
    fn whatever_has_parts_has_one_that_is_enough() {
        for part in Part::ALL {
            assert!(Part::ALL.iter().any(|it| it.feature() == part.feature() && it.is_enough()), "{part:?}");
        }
    }
}

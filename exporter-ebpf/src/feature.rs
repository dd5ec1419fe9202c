//! What can be measured of a target, and the parts of it that can be off by themselves. Knows nothing of how either is measured.

/// Declares the features, in the order they are shown: name in configurations, annotations and figures; where it is measured; and
/// whether it is unless something else is asked for.
macro_rules! features {
    ($($(#[$doc:meta])* $feature:ident = $name:literal, $place:ident, $usual:ident;)*) => {
        /// One thing that can be measured, as a person asks for it. Its number is its bit in [`crate::target::TargetConfig::on`].
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Feature {
            $($(#[$doc])* $feature,)*
        }

        impl Feature {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$feature),*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$feature => $name,)*
                }
            }

            /// Whether the kernel side measures it.
            pub const fn is_in_kernel(self) -> bool {
                matches!(match self { $(Self::$feature => Place::$place,)* }, Place::Kernel)
            }

            /// Whether it is measured where nothing else is asked for.
            pub const fn is_usual(self) -> bool {
                matches!(match self { $(Self::$feature => Asked::$usual,)* }, Asked::Usual)
            }
        }
    };
}

/// Where a feature is measured.
enum Place {
    /// By probes.
    Kernel,
    /// By reading the process's memory.
    User,
}

/// Whether a feature must be asked for.
enum Asked {
    Usual,
    Only,
}

features! {
    /// HTTP server requests, by probes.
    Http = "http", Kernel, Usual;
    /// HTTP client requests, by probes.
    HttpClient = "http-client", Kernel, Usual;
    /// gRPC server calls, by probes.
    GrpcServer = "grpc-server", Kernel, Usual;
    /// The Go runtime's own figures, read from its memory, and `process_*`: no probe.
    Runtime = "runtime", User, Usual;
    /// How long goroutines are blocked, by probes that the overhead budget limits.
    Blocking = "blocking", Kernel, Usual;
    /// Stops of the world, by probes that are hit a few times a cycle of the garbage collector.
    Stw = "gc", Kernel, Usual;
    /// How long threads wait in the run queue for a CPU, by the scheduler's tracepoints. They are hit at each switch of every thread on
    /// the node (three times a request on a saturated machine, 0.4 us each), which only who looks for them should pay.
    RunQueue = "scheduler", Kernel, Only;
}

impl Feature {
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
    /// Routes as the patterns of routers that are not `ServeMux`; without it they are folded from paths.
    RouterPattern = "router_pattern" of Http, Besides;
    /// Hijacked connections.
    Hijack = "hijack" of Http, Besides;
    /// Requests that end in a panic.
    Panic = "panic" of Http, Besides;
    /// HTTP client requests.
    HttpClient = "http_client" of HttpClient, Enough;
    /// gRPC server calls.
    GrpcServer = "grpc_server" of GrpcServer, Enough;
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

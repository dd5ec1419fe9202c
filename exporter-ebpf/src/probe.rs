//! The list of probes: programs that the kernel runs when a measured program comes to a place in its code. A probe is one line of
//! [`probes!`](crate::probes); both sides are made from it. Knows nothing of which functions the places are in.

use crate::feature::{Feature, Part};

/// When a probe is attached, within those of one target: the order of these is the order of attaching. A start whose end is not
/// attached would be in flight for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Sees something end.
    End,
    /// Sees something happen meanwhile, or nothing.
    Side,
    /// Sees something begin.
    Start,
    /// Attached only once it is known to be needed.
    OnDemand,
}

/// Where in its function a probe goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Behind the stack check.
    Entry,
    /// At the branch of the stack check, where there is one: the program looks at [`crate::target::TargetConfig::at_check`], and leaves a hit alone
    /// whose branch is taken. The stack grows, or the goroutine is preempted, and the function is begun anew.
    Check,
    /// At each RET.
    Returns,
    /// At a branch behind a call that the function makes through a pointer: the results are still in the first registers.
    Branch,
}

/// Calls a macro with the list of probes. Each line: the probe, its eBPF program for perf events, the same for a `uprobe_multi` link,
/// the module of the kernel side that has the function of the first name, the part of a feature that is off without it, its
/// [`Role`], and where it goes.
///
/// A line whose function, part or role does not exist does not compile.
#[macro_export]
macro_rules! probes {
    ($then:ident) => {
        $then! {
            /// A handler is called: `net/http.serverHandler.ServeHTTP`.
            HttpStart: http_start, http_start_multi, http, Http1Server, Start, Check;
            /// A handler of golang.org/x/net/http2 is called: `(*serverConn).runHandler`.
            XnetStart: xnet_start, xnet_start_multi, http, XnetHttp2Server, Start, Check;
            /// An HTTP/1 request ends: `net/http.(*response).finishRequest`.
            Http1End: http1_end, http1_end_multi, http, Http1Server, End, Check;
            /// An HTTP/2 request of net/http ends: `handlerDone` of its response writer.
            Http2End: http2_end, http2_end_multi, http, Http2Server, End, Check;
            /// An HTTP/2 request of golang.org/x/net/http2 ends: the same of its own.
            XnetEnd: xnet_end, xnet_end_multi, http, XnetHttp2Server, End, Check;
            /// The same three ends in programs whose routers have a [`Probe::RouteSeen`].
            Http1EndRouted: http1_end_routed, http1_end_routed_multi, http, Http1Server, End, Check;
            /// See [`Probe::Http1EndRouted`].
            Http2EndRouted: http2_end_routed, http2_end_routed_multi, http, Http2Server, End, Check;
            /// See [`Probe::Http1EndRouted`].
            XnetEndRouted: xnet_end_routed, xnet_end_routed_multi, http, XnetHttp2Server, End, Check;
            /// A router has matched a request, or is done with it: where the program's [`crate::router::Source`]s say.
            RouteSeen: route_seen, route_seen_multi, router, RouterPattern, Side, Entry;
            /// A connection is taken over: `net/http.(*response).Hijack`.
            HttpHijack: http_hijack, http_hijack_multi, hijack, Hijack, Side, Entry;
            /// A connection is about to be taken over, and its request goes on over HTTP/2:
            /// `golang.org/x/net/http2/h2c.h2cUpgrade`.
            H2cUpgrade: h2c_upgrade, h2c_upgrade_multi, hijack, Hijack, Side, Entry;
            /// A goroutine panics or exits early: `runtime.gopanic`, `runtime.Goexit`.
            HttpPanic: http_panic, http_panic_multi, panic, Panic, Side, Entry;
            /// A ServeMux is called: `net/http.(*ServeMux).ServeHTTP`.
            HttpMux: http_mux, http_mux_multi, mux, RoutePattern, OnDemand, Check;
            /// A request is given to a transport: `net/http.setRequestCancel`, just before.
            HttpClientStart: http_client_start, http_client_start_multi, http_client, HttpClient, Start, Check;
            /// The transport has returned: in `net/http.send`.
            HttpClientEnd: http_client_end, http_client_end_multi, http_client, HttpClient, End, Branch;
            /// A gRPC server has a stream: `google.golang.org/grpc.(*Server).handleStream`.
            GrpcServerStart: grpc_server_start, grpc_server_start_multi, grpc_server, GrpcServer, Start, Check;
            /// A stream's status is written: `writeStatus` of either of its transports.
            GrpcServerEnd: grpc_server_end, grpc_server_end_multi, grpc_server, GrpcServer, End, Check;
            /// A goroutine parks: `runtime.gopark`.
            GoPark: go_park, go_park_multi, blocking, Blocking, Start, Entry;
            /// A goroutine gets a thread to run on: `runtime.execute`.
            GoRun: go_run, go_run_multi, blocking, Blocking, End, Entry;
            /// The world is about to be stopped, for a reason: `runtime.stopTheWorldWithSema` (Go 1.21).
            StwStop: stw_stop, stw_stop_multi, stw, Stw, Start, Entry;
            /// The same without a reason (Go 1.17 to 1.20).
            StwStopBare: stw_stop_bare, stw_stop_bare_multi, stw, Stw, Start, Entry;
            /// The world is about to be started, with the record of its stop: `runtime.startTheWorldWithSema` (Go 1.22 on).
            StwStart: stw_start, stw_start_multi, stw, Stw, Start, Entry;
            /// The world was started: the same function's RETs.
            StwEnd: stw_end, stw_end_multi, stw, Stw, End, Returns;
            /// Nothing is to be done: what a hit costs before a program does anything.
            Nothing: nothing, nothing_multi, hit, Http1Server, Side, Check;
        }
    };
}

macro_rules! list {
    ($($(#[$doc:meta])* $probe:ident: $program:ident, $multi:ident, $module:ident, $part:ident, $role:ident, $at:ident;)*) => {
        /// What a probe is for. Each is one eBPF program in two flavours.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Probe {
            $($(#[$doc])* $probe,)*
        }

        impl Probe {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$probe),*];

            /// Its name, and that of its program for perf events.
            pub const fn program(self) -> &'static str {
                match self {
                    $(Self::$probe => stringify!($program),)*
                }
            }

            /// Its program for `uprobe_multi` links.
            pub const fn program_multi(self) -> &'static str {
                match self {
                    $(Self::$probe => stringify!($multi),)*
                }
            }

            /// What is off without it.
            pub const fn part(self) -> Part {
                match self {
                    $(Self::$probe => Part::$part,)*
                }
            }

            /// When it is attached.
            pub const fn role(self) -> Role {
                match self {
                    $(Self::$probe => Role::$role,)*
                }
            }

            /// Where it goes.
            pub const fn at(self) -> At {
                match self {
                    $(Self::$probe => At::$at,)*
                }
            }
        }
    };
}

probes!(list);

/// Bytes of a program's name that the kernel keeps (include/uapi/linux/bpf.h: `BPF_OBJ_NAME_LEN`, with its end).
const NAME_KEPT: usize = 15;

impl Probe {
    /// What it is for.
    pub const fn feature(self) -> Feature {
        self.part().feature()
    }

    /// Its bit in [`crate::target::TargetConfig::at_check`].
    #[inline(always)]
    pub const fn check_bit(self) -> u64 {
        1 << self as u32
    }

    /// Whether most programs of which its feature is measured have it. The program of one that is rare is loaded when something is first
    /// attached by it.
    pub const fn is_usual(self) -> bool {
        !matches!(self, Self::Http1EndRouted | Self::Http2EndRouted | Self::XnetEndRouted | Self::RouteSeen)
    }

    /// The probe whose program the kernel calls so.
    pub fn of_kernel_name(name: &str) -> Option<Self> {
        let is = |of: &str| of.get(..NAME_KEPT).unwrap_or(of) == name;
        Self::ALL.iter().copied().find(|it| is(it.program()) || is(it.program_multi()))
    }
}

const _: () = assert!(Probe::ALL.len() <= 64, "at_check has a bit for each");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_short_names_tell_probes_apart() {
        for probe in Probe::ALL {
            for name in [probe.program(), probe.program_multi()] {
                assert_eq!(Probe::of_kernel_name(&name[..name.len().min(NAME_KEPT)]), Some(*probe), "{name}");
            }
        }
        assert_eq!(Probe::of_kernel_name("process_exec"), None);
    }

    #[test]
    fn each_flavour_is_named_after_its_probe() {
        for probe in Probe::ALL {
            assert_eq!(probe.program_multi(), format!("{}_multi", probe.program()));
            let variant: String = format!("{probe:?}").to_lowercase();
            assert_eq!(probe.program().replace('_', ""), variant);
        }
    }

    #[test]
    fn what_begins_is_attached_after_what_ends() {
        let order = |wanted| Probe::ALL.iter().filter(move |it| it.role() == wanted);
        for feature in Feature::ALL {
            let has = |role| order(role).any(|it| it.feature() == *feature);
            assert_eq!(has(Role::Start), has(Role::End), "{feature:?}");
        }
        assert!(Role::End < Role::Side && Role::Side < Role::Start && Role::Start < Role::OnDemand);
    }
}

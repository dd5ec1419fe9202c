//! What the kernel side is told of a target for one instrument each, beside what [`crate::target::TargetConfig`] has for all of them.

use crate::{grpc_server::GrpcServer, http_client::HttpClient, router::Routers};

/// Declares the parts of [`Facts`]: one line for an instrument that has any.
macro_rules! facts {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $none:expr;)*) => {
        /// Element of the `FACTS` array, by target id. Written before the target is, and not changed while it is measured.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Facts {
            $($(#[$doc])* pub $name: $type,)*
        }

        impl Facts {
            /// Of a target of which nothing is known.
            pub const NONE: Self = Self { $($name: $none,)* };

            /// The same of a process that has all addresses so far from the executable's.
            #[must_use]
            pub fn moved(self, by: u64) -> Self {
                Self { $($name: Moved::moved(self.$name, by),)* }
            }
        }
    };
}

/// What has addresses of an executable.
pub trait Moved {
    /// The same of a process that has them so far from the executable's; 0 stays 0.
    #[must_use]
    fn moved(self, by: u64) -> Self;
}

impl Moved for u64 {
    fn moved(self, by: u64) -> Self {
        if self == 0 { 0 } else { self.wrapping_add(by) }
    }
}

facts! {
    /// Address in the process of `runtime.memstats.last_gc_nanotime`, where the runtime ends its account of a garbage collection's
    /// second pause before it starts the world (Go until 1.21: runtime/mgc.go, `gcMarkTermination`); 0 elsewhere.
    last_gc: u64 = 0;
    /// For HTTP client requests.
    http_client: HttpClient = HttpClient::NONE;
    /// For the routers that HTTP server requests are given to.
    routers: Routers = Routers::NONE;
    /// For gRPC server calls.
    grpc_server: GrpcServer = GrpcServer::NONE;
}

//! The routers: what is passed with the pattern in hand, and where the pattern is. A row is all that a router takes.

use exporter_ebpf::router::{CLOSURE, flags};

/// Where a router comes by.
#[derive(Clone, Copy)]
pub(super) enum Passes {
    /// At the one call of `sync.(*Pool).Put` in it: the handler has returned, and what the pattern is in, the call's last argument, is not
    /// in the pool yet, from which it would be another request's at once.
    Puts,
    /// At its beginning, the branch of its stack check: it is called once a route has matched.
    Begins,
}

/// Where a word is.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// So many bytes into it: a closure's layout.
    Bytes(u16),
    /// A field of a struct, by its version.
    Field(&'static str, &'static str),
}

/// How a router's request is found.
#[derive(Clone, Copy)]
pub(super) enum Request {
    /// This argument word is a `*http.Request`.
    Word(u8),
    /// A field of the holder is.
    Field(&'static str, &'static str),
    /// A field of the holder is its context: an interface.
    Context(&'static str, &'static str),
}

pub(super) struct Router {
    /// As people call it.
    pub(super) name: &'static str,
    pub(super) module: &'static str,
    /// Tells that the program serves by it.
    pub(super) serves: &'static str,
    /// Passed once a request, or once more for each router within another.
    pub(super) function: &'static str,
    pub(super) passes: Passes,
    /// The argument word that has the holder of the pattern, or [`CLOSURE`].
    pub(super) holder: u8,
    /// In the holder: a pointer to what has the pattern, where the holder has not.
    pub(super) pointer: Option<Place>,
    pub(super) pattern: Place,
    pub(super) request: Request,
    /// [`flags::PARTS`], [`flags::OR_PATH`].
    pub(super) flags: u64,
}

/// In the order of how often they are met. By the sources of the versions in gobinary's layout table: each site is passed once a request.
pub(super) const ROUTERS: [Router; 7] = [
    // gin.go: ServeHTTP. `fullPath` is empty where nothing matched.
    Router {
        name: "gin",
        module: "github.com/gin-gonic/gin",
        serves: "github.com/gin-gonic/gin.(*Engine).ServeHTTP",
        function: "github.com/gin-gonic/gin.(*Engine).ServeHTTP",
        passes: Passes::Puts,
        holder: 2,
        pointer: None,
        pattern: Place::Field("github.com/gin-gonic/gin.Context", "fullPath"),
        request: Request::Field("github.com/gin-gonic/gin.Context", "Request"),
        flags: 0,
    },
    // echo.go: ServeHTTP. Until 4.10.0 the path is in `path` where nothing matched.
    Router {
        name: "echo",
        module: "github.com/labstack/echo/v4",
        serves: "github.com/labstack/echo/v4.(*Echo).ServeHTTP",
        function: "github.com/labstack/echo/v4.(*Echo).ServeHTTP",
        passes: Passes::Puts,
        holder: 2,
        pointer: None,
        pattern: Place::Field("github.com/labstack/echo/v4.context", "path"),
        request: Request::Field("github.com/labstack/echo/v4.context", "request"),
        flags: flags::OR_PATH,
    },
    // mux.go: ServeHTTP; context.go: RoutePattern.
    Router {
        name: "chi",
        module: "github.com/go-chi/chi/v5",
        serves: "github.com/go-chi/chi/v5.(*Mux).ServeHTTP",
        function: "github.com/go-chi/chi/v5.(*Mux).ServeHTTP",
        passes: Passes::Puts,
        holder: 2,
        pointer: None,
        pattern: Place::Field("github.com/go-chi/chi/v5.Context", "RoutePatterns"),
        request: Request::Context("github.com/go-chi/chi/v5.Context", "parentCtx"),
        flags: flags::PARTS,
    },
    // mux.go: requestWithRoute(r, route) (1.7.4 on); regexp.go: routeRegexp.template.
    Router {
        name: "gorilla/mux",
        module: "github.com/gorilla/mux",
        serves: "github.com/gorilla/mux.(*Router).ServeHTTP",
        function: "github.com/gorilla/mux.requestWithRoute",
        passes: Passes::Begins,
        holder: 1,
        pointer: Some(Place::Field("github.com/gorilla/mux.Route", "routeConf.regexp.path")),
        pattern: Place::Field("github.com/gorilla/mux.routeRegexp", "template"),
        request: Request::Word(0),
        flags: 0,
    },
    // route.go: (r *Route) wrapRequestResponse(httpWriter, httpRequest, pathParams).
    Router {
        name: "go-restful",
        module: "github.com/emicklei/go-restful/v3",
        serves: "github.com/emicklei/go-restful/v3.(*Container).dispatch",
        function: "github.com/emicklei/go-restful/v3.(*Route).wrapRequestResponse",
        passes: Passes::Begins,
        holder: 0,
        pointer: None,
        pattern: Place::Field("github.com/emicklei/go-restful/v3.Route", "Path"),
        request: Request::Word(3),
        flags: 0,
    },
    // runtime/context.go: annotateContext(ctx, mux, req, rpcMethodName, options...): the first option is the closure of
    // WithHTTPPathPattern.
    Router {
        name: "grpc-gateway",
        module: "github.com/grpc-ecosystem/grpc-gateway/v2",
        serves: "github.com/grpc-ecosystem/grpc-gateway/v2/runtime.(*ServeMux).ServeHTTP",
        function: "github.com/grpc-ecosystem/grpc-gateway/v2/runtime.annotateContext",
        passes: Passes::Begins,
        holder: 6,
        pointer: Some(Place::Bytes(0)),
        pattern: Place::Bytes(8),
        request: Request::Word(3),
        flags: 0,
    },
    // rest/handler/tracehandler.go: the closure of one route, which has its path first.
    Router {
        name: "go-zero",
        module: "github.com/zeromicro/go-zero",
        serves: "github.com/zeromicro/go-zero/rest/router.(*patRouter).ServeHTTP",
        function: "github.com/zeromicro/go-zero/rest/handler.TraceHandler.func1.1",
        passes: Passes::Begins,
        holder: CLOSURE,
        pointer: None,
        pattern: Place::Bytes(8),
        request: Request::Word(2),
        flags: 0,
    },
];

/// Routers of which nothing is probed: name, module, function that tells of it, and where its routes come from.
pub(super) const OTHERS: [(&str, &str, &str, &str); 2] = [
    (
        "echo",
        "github.com/labstack/echo/v5",
        "github.com/labstack/echo/v5.(*Echo).ServeHTTP",
        "Request.Pattern, which it writes",
    ),
    (
        "httprouter",
        "github.com/julienschmidt/httprouter",
        "github.com/julienschmidt/httprouter.(*Router).ServeHTTP",
        "paths, folded: it keeps no pattern",
    ),
];

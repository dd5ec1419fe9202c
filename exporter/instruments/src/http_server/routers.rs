//! Routers that are not `http.ServeMux`: where each comes by with the pattern that it has matched, one entry each. Knows nothing of how the
//! kernel side reads it.

use exporter_ebpf::{
    facts::Facts,
    feature::Part,
    probe::Probe,
    router::{CLOSURE, MAX_ROUTERS, NOWHERE, Routers, Source, flags},
    target::NONE,
};
use gobinary::Site;

use crate::{
    planned::RouteSource,
    planner::{Planner, Sites},
};

/// Where a router comes by.
#[derive(Clone, Copy)]
enum Passes {
    /// At the one call of `sync.(*Pool).Put` in it: the handler has returned, and what the pattern is in, the call's last argument, is not
    /// in the pool yet, from which it would be another request's at once.
    Puts,
    /// At its beginning, the branch of its stack check: it is called once a route has matched.
    Begins,
}

/// Where a word is.
#[derive(Clone, Copy)]
enum Place {
    /// So many bytes into it: a closure's layout.
    Bytes(u16),
    /// A field of a struct, by its version.
    Field(&'static str, &'static str),
}

/// How a router's request is found.
#[derive(Clone, Copy)]
enum Request {
    /// This argument word is a `*http.Request`.
    Word(u8),
    /// A field of the holder is.
    Field(&'static str, &'static str),
    /// A field of the holder is its context: an interface.
    Context(&'static str, &'static str),
}

struct Router {
    /// As people call it.
    name: &'static str,
    module: &'static str,
    /// Tells that the program serves by it.
    serves: &'static str,
    /// Passed once a request, or once more for each router within another.
    function: &'static str,
    passes: Passes,
    /// The argument word that has the holder of the pattern, or [`CLOSURE`].
    holder: u8,
    /// In the holder: a pointer to what has the pattern, where the holder has not.
    pointer: Option<Place>,
    pattern: Place,
    request: Request,
    /// [`flags::PARTS`], [`flags::OR_PATH`].
    flags: u64,
}

/// In the order of how often they are met. By the sources of the versions in gobinary's layout table: each site is passed once a request.
const ROUTERS: [Router; 7] = [
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
const OTHERS: [(&str, &str, &str, &str); 2] = [
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

/// Takes a part of the path off.
const STRIP_PREFIX: &str = "net/http.StripPrefix";
const PUT: &str = "sync.(*Pool).Put";

/// Functions to look for.
pub(super) const FUNCTIONS: [&str; 2 * ROUTERS.len() + OTHERS.len() + 1] = {
    let mut all = [PUT; _];
    let mut i = 0;
    while i < ROUTERS.len() {
        all[2 * i] = ROUTERS[i].serves;
        all[2 * i + 1] = ROUTERS[i].function;
        i += 1;
    }
    let mut i = 0;
    while i < OTHERS.len() {
        all[2 * ROUTERS.len() + i] = OTHERS[i].2;
        i += 1;
    }
    all
};

/// Structs to look for.
pub(super) const LAYOUTS: [(&str, &[&str]); 6] = [
    ("github.com/gin-gonic/gin.Context", &["fullPath", "Request"]),
    ("github.com/labstack/echo/v4.context", &["path", "request"]),
    ("github.com/go-chi/chi/v5.Context", &["RoutePatterns", "parentCtx"]),
    ("github.com/gorilla/mux.Route", &["routeConf.regexp.path"]),
    ("github.com/gorilla/mux.routeRegexp", &["template"]),
    ("github.com/emicklei/go-restful/v3.Route", &["Path"]),
];

/// Finds the routers of a program: what the kernel side is told, and where probes go. What was recognised is said in any case.
pub(super) fn find(planner: &mut Planner<'_>) -> Vec<(&'static str, Site)> {
    let mut found = Vec::new();
    if planner.sites != Sites::Chosen {
        return found;
    }
    let mut routers = Routers::NONE;
    for router in &ROUTERS {
        if planner.binary.function(router.serves).is_none() {
            continue;
        }
        let planned = if found.len() < MAX_ROUTERS {
            source(planner, router)
        } else {
            Err("the program has more routers than are probed".to_owned())
        };
        let from = match planned {
            Ok((source, site)) => {
                routers.sources[found.len()] = source;
                found.push((router.function, site));
                "its patterns, by a probe".to_owned()
            }
            Err(reason) => {
                planner.off(Part::RouterPattern, format!("{}: {reason}: routes are folded from paths", router.name));
                format!("paths, folded: {reason}")
            }
        };
        recognised(planner, router.name, router.module, from);
    }
    for (name, module, function, from) in OTHERS {
        if planner.binary.function(function).is_some() {
            recognised(planner, name, module, from.to_owned());
        }
    }
    if routers.sources.iter().any(|it| it.flags & flags::CONTEXT != 0) {
        routers.request_context = data_word(planner.offset("net/http.Request", "ctx"));
    }
    planner.facts = Facts { routers, ..planner.facts };
    found
}

/// Plans the probes on those that were found.
pub(super) fn plan(planner: &mut Planner<'_>, found: Vec<(&'static str, Site)>) {
    let serves: Vec<&str> = ROUTERS.iter().map(|it| it.serves).collect();
    planner.uses(Part::RouterPattern, &serves);
    for (function, site) in found {
        planner.probe_at(Probe::RouteSeen, function, vec![site]);
    }
}

fn recognised(planner: &mut Planner<'_>, router: &'static str, module: &str, from: String) {
    let version = planner.binary.build_info.module(module).map_or_else(String::new, |it| it.version.clone());
    planner.routes_from.push(RouteSource { router, version, from });
}

fn source(planner: &Planner<'_>, router: &Router) -> Result<(Source, Site), String> {
    let function = planner.function(router.function)?;
    let site = match router.passes {
        Passes::Puts => planner.binary.call_site(function, planner.function(PUT)?),
        Passes::Begins => match planner.binary.check_site(function) {
            Some(site) => Ok(site),
            None => planner.binary.entry_site(function),
        },
    };
    let site = site.map_err(|error| format!("{}: {error}", router.function))?;
    let pointer = router.pointer.map(|place| offset(planner, router, place)).transpose()?;
    let mut source = Source {
        at: site.vaddr,
        holder: router.holder,
        pointer: pointer.unwrap_or(NONE),
        text: offset(planner, router, router.pattern)?,
        flags: router.flags,
        ..Source::NONE
    };
    match router.request {
        Request::Word(word) => source.request = word,
        Request::Field(ty, field) => {
            source.request = NOWHERE;
            source.request_at = offset(planner, router, Place::Field(ty, field))?;
        }
        Request::Context(ty, field) => {
            source.request = NOWHERE;
            source.request_at = data_word(offset(planner, router, Place::Field(ty, field))?);
            source.flags |= flags::CONTEXT;
            if planner.binary.build_info.go_version.minor == 20 {
                source.flags |= flags::BY_POINTER;
            }
            if planner.binary.uses(STRIP_PREFIX) {
                source.flags |= flags::CUT;
            }
        }
    }
    if matches!(router.passes, Passes::Puts) {
        source.flags |= flags::DONE;
    }
    Ok((source, site))
}

fn offset(planner: &Planner<'_>, router: &Router, place: Place) -> Result<u16, String> {
    match place {
        Place::Bytes(bytes) => Ok(bytes),
        Place::Field(ty, field) => match planner.offset(ty, field) {
            NONE => Err(format!("the layout of {ty} is not known for this version of {}", router.module)),
            offset => Ok(offset),
        },
    }
}

/// Of an interface: its second word.
const fn data_word(interface: u16) -> u16 {
    if interface == NONE { NONE } else { interface + 8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_a_router_needs_is_looked_for() {
        let is_there = |ty: &str, field: &str| LAYOUTS.iter().any(|(of, fields)| *of == ty && fields.contains(&field));
        for router in &ROUTERS {
            for place in router.pointer.into_iter().chain([router.pattern]) {
                if let Place::Field(ty, field) = place {
                    assert!(is_there(ty, field), "{} {field}", router.name);
                }
            }
            if let Request::Field(ty, field) | Request::Context(ty, field) = router.request {
                assert!(is_there(ty, field), "{} {field}", router.name);
            }
            assert!(router.function.starts_with(router.module) && router.serves.starts_with(router.module));
        }
    }
}

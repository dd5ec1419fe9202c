//! Routers that are not `http.ServeMux`: where each comes by with the pattern that it has matched, one entry each. Knows nothing of how the
//! kernel side reads it.

mod table;

use exporter_ebpf::{
    facts::Facts,
    feature::Part,
    probe::Probe,
    router::{MAX_ROUTERS, NOWHERE, Routers, Source, flags},
    target::NONE,
};
use gobinary::Site;

use self::table::{OTHERS, Passes, Place, ROUTERS, Request, Router};
use crate::{
    planned::RouteSource,
    planner::{Planner, Sites},
};

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

//! Inspects a Go binary: what can be measured, by which probes, and what is off and why. Knows no instrument.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use clap::ValueEnum;
use exporter_ebpf::target::NONE;
use gobinary::{Global, GoBinary, Source};
use instruments::{Disabled, Planned};

use super::{
    Part,
    inspection::{Inspection, Module, Placed},
};
use crate::{process::Code, runtime};

/// Where probes go in a function: see [`instruments::Sites`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sites {
    /// At the cheapest site that means the same.
    #[default]
    Chosen,
    /// As tracers commonly place them, for comparison.
    EntryRet,
    /// Programs that do nothing, for comparison.
    Empty,
}

impl From<Sites> for instruments::Sites {
    fn from(sites: Sites) -> Self {
        match sites {
            Sites::Chosen => Self::Chosen,
            Sites::EntryRet => Self::EntryRet,
            Sites::Empty => Self::Empty,
        }
    }
}

/// Inspects an executable.
pub(crate) fn inspect<S: Source>(source: S, sites: Sites) -> Result<Inspection, gobinary::Error> {
    let started = Instant::now();
    let layouts = instruments::layouts(&runtime::LAYOUTS);
    let layouts: Vec<(&str, &[&str])> = layouts.iter().map(|(ty, fields)| (*ty, fields.as_slice())).collect();
    let binary = GoBinary::parse(source, &instruments::functions(), &layouts)?;
    let Planned { probes, mut disabled, not_used, config, facts, nests_muxes, routes_from } =
        instruments::plan(&binary, sites.into());
    let runtime = runtime::Plan::of(&binary).map(Arc::new);
    if let Err(reason) = &runtime {
        disabled.push(Disabled { part: Part::Runtime, reason: reason.clone() });
    }
    let (mut variables, mut variables_from) = (BTreeMap::new(), BTreeMap::new());
    for &global in Global::ALL {
        if let Some(found) = binary.global(global) {
            variables.insert(global.name(), found.address);
            *variables_from.entry(found.from.as_str()).or_default() += 1;
        }
    }
    let offset = |field| {
        let found = binary.layouts().offset("runtime.g", field);
        found.and_then(|offset| u16::try_from(offset).ok()).unwrap_or(NONE)
    };
    let info = &binary.build_info;
    let (main_module, main_version) =
        info.main.as_ref().map_or((info.path.clone(), String::new()), |main| (main.path.clone(), main.version.clone()));
    Ok(Inspection {
        go_version: info.go_version.to_string(),
        main_module,
        main_version,
        functions_from: binary.functions_from.as_str().to_owned(),
        layouts_from: binary.layouts().source().as_str().to_owned(),
        variables_from,
        variables,
        build_id: binary.build_id.clone(),
        notes: binary.notes.iter().chain(&binary.contradictions).cloned().collect(),
        bytes_read: binary.bytes_read,
        modules: info.main.iter().chain(&info.deps).map(Module::of).collect(),
        settings: info.settings.clone(),
        probes,
        disabled,
        not_used,
        not_measured: instruments::unmeasured(|name| binary.function(name).is_some()),
        code: Code::default(),
        placed: Placed::of(&binary),
        seconds: started.elapsed().as_secs_f64(),
        config,
        facts,
        runtime,
        g_status: offset("atomicstatus"),
        g_tracking_seq: offset("trackingSeq"),
        go_minor: info.go_version.minor,
        nests_muxes,
        routes_from,
    })
}

//! The check of processes that a person names by id, before anything starts.

use std::path::Path;

use crate::{
    config::Selection,
    process::Process,
    target::{Features, Sites, inspect},
};

/// Checks processes that were named by id, before anything starts: each must be there, and where nothing else is selected, one
/// of them at least must be measurable.
pub(crate) fn check_pids(select: &Selection, features: Features) -> Result<(), String> {
    let mut first_refusal = None;
    let mut measurable = 0;
    for &pid in &select.pids {
        if !Path::new(&format!("/proc/{pid}")).exists() {
            return Err(format!("there is no process {pid}: it has ended, or the number is wrong (see `ps -ef`)"));
        }
        match measurable_process(pid, features) {
            Ok(()) => measurable += 1,
            Err(reason) => {
                first_refusal = first_refusal.or(Some(format!("process {pid} cannot be measured: {reason}")));
            }
        }
    }
    let only_pids = select.executables.is_empty() && select.listen_ports.is_empty() && !select.all;
    match first_refusal {
        Some(refusal) if only_pids && measurable == 0 => Err(refusal),
        _ => Ok(()),
    }
}

fn measurable_process(pid: u32, features: Features) -> Result<(), String> {
    let process = Process::find(pid).map_err(|error| format!("its executable cannot be found: {error}"))?;
    let file = process.open().map_err(|error| format!("its executable cannot be read: {error}"))?;
    let inspection = inspect(file, Sites::Chosen).map_err(|error| {
        let hint = if process.is_linker() {
            ". That is the dynamic linker: start the program itself and not through it"
        } else {
            ""
        };
        format!("{}: {error}{hint}", crate::visible::lines(&process.executable.display().to_string()))
    })?;
    if inspection.measures_something(features) { Ok(()) } else { Err(inspection.why_nothing()) }
}

//! The labels that every series of a target carries.

use std::sync::Arc;

use crate::{kubernetes::Placement, process::Process};

/// Label names and values, in the order they are written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Labels(Arc<[(&'static str, String)]>);

impl Labels {
    /// Standalone mode: process id and executable's file name.
    pub(crate) fn of_process(process: &Process) -> Self {
        let name = process.executable.file_name().unwrap_or(process.executable.as_os_str());
        Self(Arc::new([
            ("instance_pid", process.id.pid.to_string()),
            ("executable", name.to_string_lossy().into_owned()),
        ]))
    }

    /// In a pod: where it is.
    pub(crate) fn of_placement(placement: &Placement) -> Self {
        Self(Arc::new([
            ("namespace", placement.namespace.to_string()),
            ("pod", placement.pod.to_string()),
            ("container", placement.container.to_string()),
        ]))
    }

    /// The pairs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

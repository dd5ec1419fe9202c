//! The metric contract as one table, and what turns figures into metric families and those into text. Knows nothing of the
//! kernel's maps or of how figures come about: a [`Snapshot`] is all it is given.

pub(crate) mod contract;
mod exposition;
mod families;
mod figures;
mod float;
mod reference;
mod runtime;
mod snapshot;

pub(crate) use self::{
    families::bounds,
    figures::{Figure, summed, visit},
    reference::reference,
    snapshot::{
        AgentFigures, Lost, MapFigures, ProbeFigures, RunQueueFigures, RuntimeFigures, Series, Snapshot, TargetFigures,
    },
};

use std::{
    io::{self, Write},
    sync::Arc,
};

/// The formats that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0 text.
    OpenMetrics,
}

impl Format {
    /// The `Content-Type` it is sent with.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes a snapshot, a bounded piece at a time.
pub(crate) fn write(snapshot: &Arc<Snapshot>, format: Format, out: &mut dyn Write) -> io::Result<()> {
    exposition::write(snapshot, format, out)
}

#[cfg(test)]
mod tests;

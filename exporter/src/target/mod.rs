//! Process + Go binary (+ pod) = target: what of it can be measured, and by which labels it is known. Knows nothing of how
//! probes are attached or metrics written.

mod features;
mod labels;
mod plan;

pub(crate) use self::{
    features::{Features, Measure},
    labels::Labels,
    plan::{Disabled, Inspection, PlannedProbe, Sites, inspect},
};

//! Process + Go binary (+ pod) = target: what of it can be measured, and by which labels it is known. Knows nothing of how
//! probes are attached or metrics written.

mod features;
mod labels;
mod plan;
mod reasons;

pub(crate) use self::{
    features::{Features, Measure},
    labels::Labels,
    plan::{Disabled, Feature, Inspection, PlannedProbe, Sites, inspect},
    reasons::{UNKNOWN, stw_reason},
};

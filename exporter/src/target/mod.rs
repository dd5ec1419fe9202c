//! Process + Go binary (+ pod) = target: what of it can be measured, and by which labels it is known. Knows nothing of how
//! probes are attached or metrics written.

mod features;
mod inlined;
mod inspection;
mod labels;
mod patched;
mod patchers;
mod plan;
mod reasons;
mod unmeasured;

pub(crate) use self::{
    features::{Features, Measure},
    inspection::{Disabled, Feature, Inspection, PlannedProbe},
    labels::Labels,
    patched::Change,
    plan::{Sites, inspect},
    reasons::{UNKNOWN, stw_reason},
    unmeasured::Unmeasured,
};

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
    features::Features,
    inspection::{Disabled, Inspection, PlannedProbe, part_names},
    labels::Labels,
    patched::Change,
    plan::{Sites, inspect},
    reasons::{UNKNOWN, stw_reason},
    unmeasured::Unmeasured,
};
pub(crate) use exporter_ebpf::feature::{Feature, Part};

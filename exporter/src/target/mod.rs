//! Process + Go binary (+ pod) = target: what of it can be measured, and by which labels it is known. Knows nothing of how
//! probes are attached or metrics written.

mod features;
mod inspect;
mod inspection;
mod labels;
mod patched;

pub(crate) use self::{
    features::Features,
    inspect::{Sites, inspect},
    inspection::Inspection,
    labels::Labels,
};
pub(crate) use instruments::{Change, Disabled, Feature, Part, PlannedProbe, RouteSource, Unmeasured, part_names};

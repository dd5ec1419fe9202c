//! Keeps what probes cost the measured programs under a limit: what a hit costs on this machine, and when probes that can be
//! done without are attached. Knows costs and times; whom it concerns and how anything is attached is the agent's.

mod calibrate;
mod sampler;

pub(crate) use self::{
    calibrate::{Costs, calibrate},
    sampler::{QUIET, Sampler, Turn},
};

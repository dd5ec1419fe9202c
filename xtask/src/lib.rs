//! Every habit of the project as a command. The commands are modules of this library, so that the end-to-end tests of
//! `exporter` can build and start the same sample services that the commands use.

pub mod bench;
pub mod build;
pub mod check;
pub mod cluster;
pub mod demo;
pub mod deny;
pub mod exposition;
pub mod foreign;
pub mod fuzz;
pub mod go;
pub mod image;
pub mod manifests;
pub mod objects;
pub mod offsets;
pub mod service;
pub mod setup;
pub mod test;
pub mod util;
pub mod vm;
pub mod walls;

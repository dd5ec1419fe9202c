//! Go executables in, facts out: version, modules, functions, struct layouts and probe sites.
//!
//! Pure: needs no process and no privilege, and treats its input as hostile. It reads only what it needs, in chunks;
//! every count and length is limited, so that no input makes it panic, hang or take more than a few tens of MiB.
//!
//! ```no_run
//! let wanted = ["net/http.serverHandler.ServeHTTP"];
//! let layouts: [(&str, &[&str]); 1] = [("net/http.response", &["status", "req"])];
//! let go = gobinary::GoBinary::open("/usr/bin/prometheus".as_ref(), &wanted, &layouts)?;
//! let serve = go.function(wanted[0]).expect("it serves HTTP");
//! println!("{} probes {} at {:#x}", go.build_info.go_version, serve.name, go.entry_site(serve)?.file_offset);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod binary;
mod buildinfo;
mod elf;
mod error;
mod function;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod globals;
mod layouts;
mod loads;
mod names;
mod note;
mod pclntab;
mod sites;
mod source;
mod symtab;
mod verify;
mod version;

pub use binary::{GoBinary, build_id, dwarf_layouts, functions_with_prefix, is_go, variable_uses};
pub use buildinfo::{BuildInfo, Module};
pub use elf::Arch;
pub use error::Error;
pub use function::{Function, FunctionsFrom};
pub use globals::{FoundGlobal, Global, GlobalSource};
pub use layouts::{Layouts, LayoutsFrom, SIZE};
pub use pclntab::{Frame, frames_at};
pub use sites::cost::{Cost, Instruction, KernelFeatures};
pub use sites::{Site, SiteError};
pub use source::Source;
pub use version::GoVersion;

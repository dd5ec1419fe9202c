//! Where the fields of wanted structs are: from the program's own DWARF, else from the generated table, else nowhere.
//! Knows nothing of functions or probes.

mod abbrev;
pub(crate) mod dwarf;
pub(crate) mod experiments;
mod section;
pub(crate) mod steps;
pub(crate) mod table;

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

/// Where layouts came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LayoutsFrom {
    /// The program's own debug information.
    Dwarf,
    /// The table that `cargo xtask offsets` made out of real Go toolchains.
    Table,
    /// Nowhere: nothing that needs a layout may be attached.
    None,
}

impl LayoutsFrom {
    /// As reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dwarf => "dwarf",
            Self::Table => "table",
            Self::None => "none",
        }
    }
}

/// The pseudo-field under which a struct's size stands.
pub const SIZE: &str = "(size)";

pub(crate) type Fields = BTreeMap<String, u32>;

/// Field offsets of the wanted structs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layouts {
    source: LayoutsFrom,
    reason: Option<String>,
    types: HashMap<String, Fields>,
    withheld: Option<String>,
}

impl Layouts {
    pub(crate) fn new(source: LayoutsFrom, reason: Option<String>, types: HashMap<String, Fields>) -> Self {
        Self { source, reason, types, withheld: None }
    }

    pub(crate) fn none(reason: String) -> Self {
        Self { source: LayoutsFrom::None, reason: Some(reason), types: HashMap::new(), withheld: None }
    }

    /// With why the table has none of the runtime's structs for this program.
    #[must_use]
    pub(crate) fn withholding(self, withheld: Option<String>) -> Self {
        Self { withheld, ..self }
    }

    /// The offset of `field` in `ty`, in bytes; nested fields as `sched.sp`. `None` when this build has no such field,
    /// or when it is not known.
    pub fn offset(&self, ty: &str, field: &str) -> Option<u32> {
        self.types.get(ty)?.get(field).copied()
    }

    /// The size of `ty` in bytes.
    pub fn size(&self, ty: &str) -> Option<u32> {
        self.offset(ty, SIZE)
    }

    /// Whether anything is known of `ty`.
    pub fn has(&self, ty: &str) -> bool {
        self.types.get(ty).is_some_and(|fields| !fields.is_empty())
    }

    /// Where the offsets came from.
    pub fn source(&self) -> LayoutsFrom {
        self.source
    }

    /// Why it is not DWARF, or why it is nothing.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Why the table's layouts of the runtime's structs were not used: it was built with an experiment that may move them.
    /// None where the program's own DWARF was used.
    pub fn withheld(&self) -> Option<&str> {
        self.withheld.as_deref()
    }

    /// Everything known: type, field, offset, in order.
    pub fn all(&self) -> Vec<(&str, &str, u32)> {
        let mut all: Vec<_> = self
            .types
            .iter()
            .flat_map(|(ty, fields)| fields.iter().map(move |(field, &at)| (ty.as_str(), field.as_str(), at)))
            .collect();
        all.sort_unstable();
        all
    }
}

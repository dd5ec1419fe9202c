//! A function, and which of several of one name is meant. Knows nothing of where functions come from.

use std::collections::HashMap;

use serde::Serialize;

/// A function at its link-time address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Function {
    /// As Go spells it: `net/http.(*conn).serve`.
    pub name: String,
    /// Link-time virtual address.
    pub addr: u64,
    /// Bytes, with the padding behind it where the size comes from the function table.
    pub size: u64,
}

/// Where function addresses came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum FunctionsFrom {
    /// `.symtab`.
    #[serde(rename = "symtab")]
    SymbolTable,
    /// `.gopclntab`.
    #[serde(rename = "gopclntab")]
    Gopclntab,
}

impl FunctionsFrom {
    /// As reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SymbolTable => "symtab",
            Self::Gopclntab => "gopclntab",
        }
    }
}

/// By name. Of several of one name the largest is meant: the others are the wrappers between ABI0 and ABIInternal that
/// Go's linker adds (cmd/link, "ABI wrappers"), which only call it.
pub(crate) fn by_name(all: Vec<Function>) -> HashMap<String, Function> {
    let mut map: HashMap<String, Function> = HashMap::with_capacity(all.len());
    for function in all {
        match map.get_mut(&function.name) {
            Some(old) if (old.size, function.addr) >= (function.size, old.addr) => {}
            Some(old) => *old = function,
            None => {
                map.insert(function.name.clone(), function);
            }
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrapper_loses() {
        let f = |addr, size| Function { name: "runtime.mcall".into(), addr, size };
        for order in [vec![f(1, 32), f(2, 200)], vec![f(2, 200), f(1, 32)]] {
            assert_eq!(by_name(order)["runtime.mcall"].addr, 2);
        }
    }
}

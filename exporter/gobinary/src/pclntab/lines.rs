//! From places in the code to functions, files and lines, inlined calls included: what a stack is shown by. Knows nothing of
//! processes; a place is given as an offset in the file.
//!
//! Sources: Go's runtime/symtab.go (funcline, pcvalue), runtime/symtabinl.go, cmd/internal/objabi/funcdata.go, 1.17 to 1.27.

use std::collections::HashMap;

use super::{Located, Magic, find::moduledata, locate, text_start};
use crate::{
    buildinfo,
    elf::{Arch, Elf},
    error::Error,
    source::{Le, Source, read_up_to},
};

/// The longest name or path that is read; Go's own limit is none, but people's screens are.
const MAX_NAME: usize = 1024;
/// Bytes of one line table that are read at a time, and at most: 1 MiB is a function of some 300,000 instructions.
const TABLE_PIECE: usize = 4096;
const MAX_TABLE: usize = 1 << 20;
/// Calls inlined into each other.
const MAX_INLINED: usize = 64;
/// `PCDATA_InlTreeIndex` and `FUNCDATA_InlTree`.
const INLINE_INDEX: u64 = 2;
const INLINE_TREE: u64 = 3;

/// A call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The function's full name.
    pub function: String,
    /// The source file, as the compiler recorded it; empty where it is not known.
    pub file: String,
    /// The line in it, from 1; 0 where it is not known.
    pub line: u32,
}

/// For each offset in the file the calls that its instruction belongs to, the innermost first: more than one where the compiler
/// has inlined. Nothing for an offset that is in no Go function.
///
/// # Errors
/// The file is no Go executable, or could not be read.
pub fn frames_at<S: Source>(src: S, file_offsets: &[u64]) -> Result<Vec<Vec<Frame>>, Error> {
    let elf = Elf::parse(src)?;
    let lines = match locate(&elf)? {
        Some(table) => Lines::of(&elf, table)?,
        None => None,
    };
    let Some(mut lines) = lines else { return Ok(vec![Vec::new(); file_offsets.len()]) };
    file_offsets
        .iter()
        .map(|offset| match elf.vaddr_of(*offset) {
            Some(address) => lines.at(address),
            None => Ok(Vec::new()),
        })
        .collect()
}

/// The tables of one file.
struct Lines<'e, S: Source> {
    elf: &'e Elf<S>,
    table: Located,
    text: u64,
    files: u64,
    pcs: u64,
    /// Address that the offsets of function data count from, where they are offsets.
    function_data: Option<u64>,
    names: HashMap<u64, String>,
}

/// One `_func`.
#[derive(Clone, Copy)]
struct Func {
    entry: u64,
    /// Where it is in the file.
    at: u64,
    name: u32,
    /// Offsets in the pc tables.
    file: u32,
    line: u32,
    tables: u32,
    unit: u32,
    data: u32,
    header: u64,
}

impl<'e, S: Source> Lines<'e, S> {
    fn of(elf: &'e Elf<S>, table: Located) -> Result<Option<Self>, Error> {
        let Some(text) = text_start(elf, &table)? else { return Ok(None) };
        let shift = usize::from(table.header.magic != Magic::Go116);
        let head = read_up_to(&elf.src, table.offset, super::HEADER_SIZE)?;
        let word = |index: usize| head.u64_at(8 + 8 * (index + shift));
        let (Some(files), Some(pcs)) = (word(4), word(5)) else { return Ok(None) };
        let minor = buildinfo::read(elf)?.map_or(0, |info| info.go_version.minor);
        // runtime.moduledata.gofunc. Up to Go 1.19 the inline tree is another, and lines are those of the innermost call.
        let offset = match minor {
            20..=26 => Some(320),
            27 => Some(344),
            _ => None,
        };
        let function_data = match (offset, moduledata(elf, &table)?) {
            (Some(offset), Some(module)) => elf.pointer(module.saturating_add(offset))?.filter(|&at| at != 0),
            _ => None,
        };
        Ok(Some(Self { elf, table, text, files, pcs, function_data, names: HashMap::new() }))
    }

    fn at(&mut self, address: u64) -> Result<Vec<Frame>, Error> {
        let Some(func) = self.function(address)? else { return Ok(Vec::new()) };
        let mut frames = Vec::new();
        let mut pc = address;
        let tree = self.inline_tree(&func)?;
        while let Some(tree) = tree
            && frames.len() < MAX_INLINED
        {
            let Some(index) = self.table_value(self.pc_table(&func, INLINE_INDEX)?, &func, pc)? else { break };
            let Ok(index) = u64::try_from(index) else { break };
            let Some(call) = self.elf.read(tree.saturating_add(index.saturating_mul(16)), 16)? else { break };
            let (Some(name), Some(parent)) = (call.u32_at(4), call.u32_at(8)) else { break };
            let (file, line) = self.place(&func, pc)?;
            frames.push(Frame { function: self.name(name)?, file, line });
            let outer = func.entry.saturating_add(u64::from(parent));
            if outer == pc {
                break;
            }
            pc = outer;
        }
        let (file, line) = self.place(&func, pc)?;
        frames.push(Frame { function: self.name(func.name)?, file, line });
        Ok(frames)
    }

    /// The function that an address is in, by halving.
    fn function(&self, address: u64) -> Result<Option<Func>, Error> {
        let header = &self.table.header;
        let width: u64 = if header.magic == Magic::Go116 { 8 } else { 4 };
        let start = self.table.offset.saturating_add(header.functab);
        let entry_at = |index: u64| -> Result<Option<(u64, u64)>, Error> {
            let bytes = read_up_to(&self.elf.src, start.saturating_add(index * 2 * width), 2 * width as usize)?;
            let word = |at: usize| if width == 8 { bytes.u64_at(at) } else { bytes.u32_at(at).map(u64::from) };
            // The last entry has an address alone.
            Ok(word(0).map(|entry| (self.text.saturating_add(entry), word(width as usize).unwrap_or(0))))
        };
        let (mut low, mut high) = (0, header.nfunc);
        while low < high {
            let middle = low + (high - low) / 2;
            match entry_at(middle)? {
                Some((entry, _)) if entry <= address => low = middle + 1,
                Some(_) => high = middle,
                None => return Ok(None),
            }
        }
        let Some(index) = low.checked_sub(1) else { return Ok(None) };
        let (Some((entry, offset)), Some((end, _))) = (entry_at(index)?, entry_at(index + 1)?) else { return Ok(None) };
        if address >= end {
            return Ok(None);
        }
        let at = start.saturating_add(offset);
        let bytes = read_up_to(&self.elf.src, at, 48)?;
        let base = width as usize;
        let word = |index: usize| bytes.u32_at(base + 4 * index).unwrap_or(0);
        // name, args, deferreturn, pcsp, pcfile, pcln, npcdata, cuOffset; Go 1.20 added the function's first line.
        let (rest, header) = match self.table.header.magic {
            Magic::Go118 => (36, 40),
            _ => (40, 44),
        };
        let data = bytes.get(rest + 3).copied().unwrap_or(0);
        Ok(Some(Func {
            entry,
            at,
            name: word(0),
            file: word(4),
            line: word(5),
            tables: word(6),
            unit: word(7),
            data: u32::from(data),
            header,
        }))
    }

    /// The offset of one of a function's further pc tables.
    fn pc_table(&self, func: &Func, index: u64) -> Result<u32, Error> {
        if index >= u64::from(func.tables) {
            return Ok(0);
        }
        let at = func.at.saturating_add(func.header + 4 * index);
        Ok(read_up_to(&self.elf.src, at, 4)?.u32_at(0).unwrap_or(0))
    }

    /// The address of a function's inline tree.
    fn inline_tree(&self, func: &Func) -> Result<Option<u64>, Error> {
        let Some(base) = self.function_data.filter(|_| INLINE_TREE < u64::from(func.data)) else { return Ok(None) };
        let at = func.at.saturating_add(func.header + 4 * u64::from(func.tables) + 4 * INLINE_TREE);
        let offset = read_up_to(&self.elf.src, at, 4)?.u32_at(0).unwrap_or(u32::MAX);
        Ok((offset != u32::MAX).then(|| base.saturating_add(u64::from(offset))))
    }

    fn place(&mut self, func: &Func, pc: u64) -> Result<(String, u32), Error> {
        let line = self.table_value(func.line, func, pc)?.and_then(|line| u32::try_from(line).ok()).unwrap_or(0);
        let number = self.table_value(func.file, func, pc)?.and_then(|number| u64::try_from(number).ok());
        let Some(number) = number else { return Ok((String::new(), line)) };
        let entry = self.table.header.cu.saturating_add(4 * (u64::from(func.unit) + number));
        let offset = read_up_to(&self.elf.src, self.table.offset.saturating_add(entry), 4)?.u32_at(0);
        let Some(offset) = offset.filter(|&offset| offset != u32::MAX) else { return Ok((String::new(), line)) };
        let at = self.table.offset.saturating_add(self.files).saturating_add(u64::from(offset));
        Ok((self.text_at(at)?, line))
    }

    fn name(&mut self, offset: u32) -> Result<String, Error> {
        self.text_at(self.table.offset.saturating_add(self.table.header.funcname).saturating_add(u64::from(offset)))
    }

    /// A text that ends with a NUL.
    fn text_at(&mut self, at: u64) -> Result<String, Error> {
        if let Some(known) = self.names.get(&at) {
            return Ok(known.clone());
        }
        let bytes = read_up_to(&self.elf.src, at, MAX_NAME)?;
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        self.names.insert(at, text.clone());
        Ok(text)
    }

    /// The value of a pc table at an address: differences of the value and of the address in turns, as variable-length numbers.
    fn table_value(&self, offset: u32, func: &Func, pc: u64) -> Result<Option<i64>, Error> {
        if offset == 0 {
            return Ok(None);
        }
        let quantum = match self.elf.arch {
            Arch::Amd64 => 1,
            Arch::Arm64 => 4,
        };
        let start = self.table.offset.saturating_add(self.pcs).saturating_add(u64::from(offset));
        let mut bytes = read_up_to(&self.elf.src, start, TABLE_PIECE)?;
        let (mut at, mut value, mut address) = (0, -1_i64, func.entry);
        loop {
            if bytes.len() - at < 20 && bytes.len() < MAX_TABLE && bytes.len() >= TABLE_PIECE {
                let more = read_up_to(&self.elf.src, start, bytes.len() * 2)?;
                if more.len() > bytes.len() {
                    bytes = more;
                }
            }
            let Some(step) = varint(&bytes, &mut at) else { return Ok(None) };
            if step == 0 && address != func.entry {
                return Ok(None);
            }
            value = value.wrapping_add((step >> 1) as i64 ^ -((step & 1) as i64));
            let Some(distance) = varint(&bytes, &mut at) else { return Ok(None) };
            address = address.saturating_add(distance.saturating_mul(quantum));
            if pc < address {
                return Ok(Some(value));
            }
        }
    }
}

/// A number of up to 32 bits, seven bits a byte.
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_variable_length() {
        let mut at = 0;
        assert_eq!(varint(&[0x05, 0xac, 0x02], &mut at), Some(5));
        assert_eq!(varint(&[0x05, 0xac, 0x02], &mut at), Some(300));
        assert_eq!((varint(&[0x80; 9], &mut 0), varint(&[0x80], &mut 0)), (None, None));
    }
}

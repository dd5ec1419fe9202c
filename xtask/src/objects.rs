//! Checks the built eBPF objects for state that threads could share when one preempts the other on a CPU. Reads the
//! instructions themselves: the compiler does not know the rule, and a kernel that does not preempt never shows a breach.
//! Knows nothing of what the programs do.

mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result, bail};
use exporter_ebpf::probe::Probe;
use object::read::elf::ElfFile64;
use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SectionKind,
    SymbolKind,
};

type File<'o> = ElfFile64<'o, LittleEndian>;

/// `bpf_tail_call` (include/uapi/linux/bpf.h: `___BPF_FUNC_MAPPER`).
const TAIL_CALL: u32 = 12;

/// The helpers that programs may call. The source of each was read for state per CPU (kernel/bpf, kernel/trace/bpf_trace.c of
/// Linux 7.2): it has none, or no other thread runs on the CPU while it is in use.
const HELPERS: [(u32, &str); 10] = [
    (1, "map_lookup_elem"),
    // A hash map's spare elements are per CPU; they are taken and given back with interrupts off.
    (2, "map_update_elem"),
    (3, "map_delete_elem"),
    (5, "ktime_get_ns"),
    (14, "get_current_pid_tgid"),
    (112, "probe_read_user"),
    // A ring buffer has a lock, and each record a place of its own.
    (130, "ringbuf_output"),
    (131, "ringbuf_reserve"),
    (132, "ringbuf_submit"),
    (133, "ringbuf_discard"),
];

/// The types of maps that programs may use (include/uapi/linux/bpf.h: `enum bpf_map_type`): none has values per CPU.
const MAPS: [(u32, &str); 4] = [(1, "hash"), (2, "array"), (9, "LRU hash"), (27, "ringbuf")];

/// Where maps are defined, each by a `struct bpf_map_def` that begins with the type.
const MAP_SECTION: &str = "maps";

/// One instruction (Documentation/bpf/standardization/instruction-set.rst).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Instruction([u8; 8]);

impl Instruction {
    const MOVE: u8 = 0xb7;
    const JUMP_IF_EQUAL: u8 = 0x15;
    const CALL: u8 = 0x85;

    fn destination(self) -> u8 {
        self.0[1] & 0xf
    }

    fn source(self) -> u8 {
        self.0[1] >> 4
    }

    fn offset(self) -> i16 {
        i16::from_le_bytes([self.0[2], self.0[3]])
    }

    fn immediate(self) -> u32 {
        u32::from_le_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// Whether it calls one of the object's own functions (`BPF_PSEUDO_CALL`).
    fn calls_own(self) -> bool {
        self.0[0] == Self::CALL && self.source() == 1
    }

    /// The helper that it calls; none where it calls one of the object's own functions, or a kernel's.
    fn helper(self) -> Option<u32> {
        (self.0[0] == Self::CALL && self.0[1] >> 4 == 0).then(|| self.immediate())
    }
}

/// A program or function of an object.
#[derive(Clone)]
struct Function {
    name: String,
    section: String,
    place: stack::Place,
    /// Functions of the object that it calls.
    calls: Vec<stack::Place>,
    instructions: Vec<Instruction>,
}

impl fmt::Display for Function {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} in {}", self.name, self.section)
    }
}

/// What a program is attached to, by its section.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A function of a measured program; a thread can be preempted in it.
    Probe,
    /// A tracepoint: the kernel lets no second thread of a CPU into it (kernel/trace/bpf_trace.c: `__bpf_trace_run`).
    Tracepoint,
    /// What programs call.
    Called,
    /// Anything else.
    Unknown,
}

impl Function {
    fn kind(&self) -> Kind {
        match self.section.as_str() {
            "uprobe" | "uprobe.multi" => Kind::Probe,
            ".text" => Kind::Called,
            section if section.starts_with("raw_tp/") => Kind::Tracepoint,
            _ => Kind::Unknown,
        }
    }

    /// Whether it has a tail call that is jumped over: what keeps a kernel from giving the program a stack per CPU.
    fn is_guarded(&self) -> bool {
        self.instructions.windows(3).any(|window| {
            let [set, jump, call] = window else { return false };
            set.0[0] == Instruction::MOVE
                && set.immediate() == 0
                && jump.0[0] == Instruction::JUMP_IF_EQUAL
                && jump.destination() == set.destination()
                && (jump.offset(), jump.immediate()) == (1, 0)
                && call.helper() == Some(TAIL_CALL)
        })
    }

    /// What it does that it must not.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let tail_calls = self.instructions.iter().filter(|it| it.helper() == Some(TAIL_CALL)).count();
        match self.kind() {
            Kind::Probe if !self.is_guarded() => faults.push(format!(
                "{self}: no tail call that is jumped over, so that from Linux 6.13 on threads that preempt each other share its \
                 stack: make it by `programs!` (exporter-ebpf/src/kernel/mod.rs)"
            )),
            Kind::Probe if tail_calls == 1 => {}
            Kind::Unknown => faults.push(format!("{self}: an unknown kind of program: say in xtask/src/objects.rs whether a thread can be preempted in it")),
            _ if tail_calls == 0 => {}
            _ => faults.push(format!("{self}: it makes tail calls")),
        }
        let helpers: BTreeSet<u32> = self.instructions.iter().filter_map(|it| it.helper()).collect();
        let unread = helpers.into_iter().filter(|it| *it != TAIL_CALL && HELPERS.iter().all(|(known, _)| known != it));
        faults.extend(unread.map(|helper| {
            format!("{self}: it calls helper {helper}, which is not in the list of those without state per CPU (xtask/src/objects.rs)")
        }));
        faults
    }
}

/// Checks an object; returns how many programs on functions it has, and the most stack that one takes with what it calls.
///
/// # Errors
/// The object cannot be read, or breaks a rule; the error names each place.
pub fn check(object: &[u8]) -> Result<(usize, u32)> {
    let file = File::parse(object).context("it is no ELF file")?;
    let functions = functions(&file)?;
    let mut faults = faults(&functions);
    faults.extend(unlisted(&functions));
    faults.extend(stack::faults(&functions));
    faults.extend(shared_memory(&file)?);
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    let programs = functions.iter().filter(|function| function.kind() == Kind::Probe).count();
    Ok((programs, stack::deepest(&functions)))
}

fn functions(file: &File<'_>) -> Result<Vec<Function>> {
    let mut functions = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let name = symbol.name()?.to_owned();
        let index = symbol.section_index().context("a function without a section")?;
        let section = file.section_by_index(index)?;
        let bytes = section.data_range(symbol.address(), symbol.size())?;
        let bytes = bytes.with_context(|| format!("{name} lies outside of its section"))?;
        let (instructions, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            bail!("{name} is no whole number of instructions");
        }
        let instructions: Vec<_> = instructions.iter().map(|bytes| Instruction(*bytes)).collect();
        let relocated = relocated_calls(file, index)?;
        let at = |i: usize| symbol.address() + 8 * i as u64;
        let calls = instructions.iter().enumerate().filter(|(_, it)| it.calls_own());
        // A call within a section is relative to the instruction behind it.
        let calls = calls.map(|(i, it)| {
            let beside = || (index.0, at(i + 1).wrapping_add_signed(8 * i64::from(it.immediate().cast_signed())));
            relocated.get(&at(i)).map_or_else(beside, |(place, by_section)| {
                let from_start = 8 * u64::from(it.immediate().wrapping_add(1));
                (place.0, if *by_section { from_start } else { place.1 })
            })
        });
        let calls = calls.collect();
        let (section, place) = (section.name()?.to_owned(), (index.0, symbol.address()));
        functions.push(Function { name, section, place, calls, instructions });
    }
    Ok(functions)
}

/// Where instructions of a section refer to, by their offset: to a symbol, or to a section with the place in the instruction.
fn relocated_calls(file: &File<'_>, section: SectionIndex) -> Result<BTreeMap<u64, (stack::Place, bool)>> {
    let mut relocated = BTreeMap::new();
    for (offset, relocation) in file.section_by_index(section)?.relocations() {
        let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
        let symbol = file.symbol_by_index(symbol)?;
        if let Some(to) = symbol.section_index() {
            relocated.insert(offset, ((to.0, symbol.address()), symbol.kind() == SymbolKind::Section));
        }
    }
    Ok(relocated)
}

fn faults(functions: &[Function]) -> Vec<String> {
    let mut faults: Vec<String> = functions.iter().flat_map(Function::faults).collect();
    if !functions.iter().any(|function| function.kind() == Kind::Probe) {
        faults.push("there are no programs on functions".to_owned());
    }
    faults
}

/// Section and name of each program that the list of probes asks for.
fn listed() -> impl Iterator<Item = (&'static str, &'static str)> {
    Probe::ALL.iter().flat_map(|it| [("uprobe", it.program()), ("uprobe.multi", it.program_multi())])
}

/// Programs on functions that are not in the list of probes, and probes that lack a program for one of the ways to attach.
fn unlisted(functions: &[Function]) -> Vec<String> {
    let listed: BTreeSet<(&str, &str)> = listed().collect();
    let there = functions.iter().filter(|function| function.kind() == Kind::Probe);
    let there: BTreeSet<(&str, &str)> = there.map(|it| (it.section.as_str(), it.name.as_str())).collect();
    let differ = listed.symmetric_difference(&there);
    differ
        .map(|(section, name)| {
            format!(
                "{name} in {section}: of the object and the list of probes only one has it (exporter-ebpf/src/probe.rs)"
            )
        })
        .collect()
}

/// Maps with values per CPU, and variables, which are the same for all threads.
fn shared_memory(file: &File<'_>) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for section in file.sections() {
        let writable = matches!(section.kind(), SectionKind::Data | SectionKind::UninitializedData);
        if writable && section.name()? != MAP_SECTION && section.size() > 0 {
            faults.push(format!("{}: variables that all threads share", section.name()?));
        }
    }
    let maps = file.section_by_name(MAP_SECTION).context("it defines no maps")?;
    for symbol in file.symbols().filter(|symbol| symbol.section_index() == Some(maps.index()) && symbol.size() > 0) {
        let name = symbol.name()?;
        let head = maps.data_range(symbol.address(), 4)?.and_then(|bytes| bytes.first_chunk::<4>());
        let map = u32::from_le_bytes(*head.with_context(|| format!("map {name} lies outside of its section"))?);
        if MAPS.iter().all(|(known, _)| *known != map) {
            faults
                .push(format!("map {name} has type {map}, which is not in the list of types without values per CPU (xtask/src/objects.rs)"));
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: [u8; 8] = [0xb7, 0, 0, 0, 0, 0, 0, 0];
    const JUMP: [u8; 8] = [0x15, 0, 1, 0, 0, 0, 0, 0];
    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
    /// A call of one of the object's own functions, whose number is no helper's.
    const OWN: [u8; 8] = [0x85, 0x10, 0, 0, 12, 0, 0, 0];

    fn call(helper: u8) -> [u8; 8] {
        [0x85, 0, 0, 0, helper, 0, 0, 0]
    }

    fn function(name: &str, section: &str, instructions: &[[u8; 8]]) -> Function {
        let instructions = instructions.iter().map(|bytes| Instruction(*bytes)).collect();
        Function { name: name.to_owned(), section: section.to_owned(), place: (0, 0), calls: Vec::new(), instructions }
    }

    fn guarded(name: &str, section: &str, more: &[[u8; 8]]) -> Function {
        function(name, section, &[&[ZERO, JUMP, call(12)], more, &[EXIT]].concat())
    }

    fn faults_of(functions: &[Function]) -> String {
        faults(functions).join("\n")
    }

    #[test]
    fn programs_that_hold_to_it() {
        let sound = [
            guarded("a", "uprobe", &[call(1), OWN]),
            guarded("a_multi", "uprobe.multi", &[call(112)]),
            function("b", "raw_tp/sched_switch", &[call(2), EXIT]),
            function("f", ".text", &[call(5), EXIT]),
        ];
        assert_eq!(faults_of(&sound), "");
    }

    #[test]
    fn a_program_that_lost_its_guard_is_named() {
        for without in [
            &[ZERO, JUMP, EXIT][..],
            &[EXIT],
            // A call of an own function is none of a helper.
            &[ZERO, JUMP, OWN, EXIT],
            // It would be reached.
            &[JUMP, ZERO, call(12), EXIT],
            &[ZERO, [0x15, 1, 1, 0, 0, 0, 0, 0], call(12), EXIT],
            &[ZERO, [0x15, 0, 0, 0, 0, 0, 0, 0], call(12), EXIT],
            &[[0xb7, 0, 0, 0, 1, 0, 0, 0], JUMP, call(12), EXIT],
        ] {
            let functions = [guarded("a", "uprobe", &[]), function("a_multi", "uprobe.multi", without)];
            let said = faults_of(&functions);
            assert!(said.starts_with("a_multi in uprobe.multi: no tail call"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }

    #[test]
    fn what_else_threads_would_share_is_named() {
        let pair = |more: &[[u8; 8]]| [guarded("a", "uprobe", more), guarded("a_multi", "uprobe.multi", &[])];
        assert!(faults_of(&pair(&[call(27)])).contains("helper 27"));
        assert!(faults_of(&pair(&[ZERO, JUMP, call(12)])).contains("makes tail calls"));
        assert!(faults_of(&[&pair(&[])[..], &[function("f", ".text", &[call(12)])]].concat()).contains("f in .text"));
        assert!(
            faults_of(&[&pair(&[])[..], &[function("r", "uretprobe", &[EXIT])]].concat()).contains("r in uretprobe")
        );
        assert!(faults_of(&[]).contains("no programs"));
    }

    #[test]
    fn the_object_and_the_list_of_probes_have_the_same_programs() {
        let mut all: Vec<_> = listed().map(|(section, name)| guarded(name, section, &[])).collect();
        assert!(unlisted(&all).is_empty());
        let last = all.pop().expect("there are probes").name;
        all.push(guarded("http_other", "uprobe", &[]));
        let said = unlisted(&all).join("\n");
        assert!(said.lines().count() == 2 && said.contains("http_other in uprobe:") && said.contains(&last), "{said}");
    }
}

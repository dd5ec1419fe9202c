//! The site chooser over real function bytes of every release and architecture, without Go: `tests/data/functions`,
//! made by `cargo xtask offsets --functions`. Each function is put into a minimal executable of its own.

use std::path::Path;
use std::{fmt::Write as _, fs};

use gobinary::{Arch, Cost, GoBinary, Instruction, KernelFeatures, SiteError};

/// A function of a sample file.
struct Sample {
    file: String,
    minor: u16,
    arch: Arch,
    name: String,
    whole: bool,
    code: Vec<u8>,
}

fn samples() -> Vec<Sample> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/functions");
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let minor = file.split('.').nth(1).unwrap().parse().unwrap();
        let arch = if file.ends_with("arm64") { Arch::Arm64 } else { Arch::Amd64 };
        for line in fs::read_to_string(&path).unwrap().lines().filter(|l| !l.starts_with('#')) {
            let fields: Vec<_> = line.split(' ').collect();
            let code = fields[2].as_bytes().chunks(2);
            let code = code.map(|hex| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap()).collect();
            let (name, whole) = (fields[0].to_owned(), fields[1] == "whole");
            all.push(Sample { file: file.clone(), minor, arch, name, whole, code });
        }
    }
    assert!(all.len() > 150, "{} samples", all.len());
    all
}

const TEXT: u64 = 0x40_1000;

/// A minimal executable: one segment that is code and data, build information, a function table of one function.
fn executable(sample: &Sample) -> Vec<u8> {
    let mut file = vec![0u8; 0x1000];
    let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &2u16.to_le_bytes());
    put(&mut file, 18, &(if sample.arch == Arch::Amd64 { 62u16 } else { 183 }).to_le_bytes());
    put(&mut file, 32, &64u64.to_le_bytes());
    put(&mut file, 54, &56u16.to_le_bytes());
    put(&mut file, 56, &1u16.to_le_bytes());
    // Build information at 0x200, the function table at 0x400, code at 0x1000.
    put(&mut file, 0x200, b"\xff Go buildinf:\x08\x02");
    let version = format!("go1.{}", sample.minor);
    file[0x220] = version.len() as u8;
    put(&mut file, 0x221, version.as_bytes());
    let (magic, min_lc) = (0xffff_fff1u32, if sample.arch == Arch::Amd64 { 1 } else { 4 });
    put(&mut file, 0x400, &magic.to_le_bytes());
    put(&mut file, 0x404, &[0, 0, min_lc, 8]);
    let names = 0x60u64;
    let functab = 0x100u64;
    for (index, word) in [1, 1, TEXT, names, 0xf0, 0xf0, 0xf0, functab].into_iter().enumerate() {
        put(&mut file, 0x408 + 8 * index, &word.to_le_bytes());
    }
    put(&mut file, 0x400 + names as usize, sample.name.as_bytes());
    for (index, word) in [0u32, 16, sample.code.len() as u32, 0, 0, 0].into_iter().enumerate() {
        put(&mut file, 0x500 + 4 * index, &word.to_le_bytes());
    }
    file.extend(&sample.code);
    let len = file.len() as u64;
    put(&mut file, 64, &1u32.to_le_bytes());
    put(&mut file, 68, &7u32.to_le_bytes());
    for (index, word) in [0, 0x40_0000, 0x40_0000, len, len, 0x1000].into_iter().enumerate() {
        put(&mut file, 72 + 8 * index, &word.to_le_bytes());
    }
    file
}

fn open(sample: &Sample) -> GoBinary {
    GoBinary::parse(executable(sample), &[&sample.name], &[]).unwrap_or_else(|e| panic!("{}: {e}", sample.file))
}

#[test]
fn entries_are_past_the_stack_check() {
    let mut report = String::new();
    let mut wrong = 0;
    for sample in samples() {
        let go = open(&sample);
        let function = go.function(&sample.name).unwrap();
        assert_eq!(function.addr, TEXT);
        let site = go.entry_site(function).unwrap();
        assert_eq!(site.vaddr, TEXT + u64::from(site.function_offset));
        assert_eq!(site.file_offset, site.vaddr - 0x40_0000);
        let first = &sample.code[..4];
        let checked = match sample.arch {
            // cmp 0x10(%r14),%rsp; lea -n(%rsp),%r12
            Arch::Amd64 => {
                first == [0x49, 0x3b, 0x66, 0x10]
                    || first.starts_with(&[0x4c, 0x8d, 0x64])
                    || first == [0x4c, 0x8d, 0xa4, 0x24]
            }
            // ldr x16, [x28, #16]
            Arch::Arm64 => first == [0x90, 0x0b, 0x40, 0xf9],
        };
        let leaf = ["net/http.StatusText", "runtime.mcall"].contains(&sample.name.as_str());
        let good = match sample.arch {
            _ if leaf => true,
            Arch::Amd64 if sample.minor >= 21 => site.instruction == "push %rbp" && site.cost == Cost::Emulated,
            Arch::Amd64 => site.instruction.ends_with(",%rsp") && site.cost == Cost::SingleStepped,
            Arch::Arm64 => ["str x30, [sp, #-", "sub x2"].iter().any(|start| site.instruction.starts_with(start)),
        };
        if !good || (checked && site.function_offset < 6) {
            wrong += 1;
            let _ =
                writeln!(report, "{} {} +{:#x} {}", sample.file, sample.name, site.function_offset, site.instruction);
        }
    }
    assert_eq!(wrong, 0, "\n{report}");
}

/// `jbe` with 8 or 32 bits of distance; `b.ls`: all kernels emulate them, and what follows is the start.
#[test]
fn every_stack_check_has_its_branch() {
    let mut checks = 0;
    for sample in samples() {
        let go = open(&sample);
        let function = go.function(&sample.name).unwrap();
        let start = go.entry_site(function).unwrap();
        let here = format!("{} {}", sample.file, sample.name);
        let Some(check) = go.check_site(function) else {
            let unchecked = ["net/http.StatusText", "runtime.casgstatus", "runtime.chanrecv1", "runtime.mcall"];
            assert!(unchecked.contains(&sample.name.as_str()), "{here}: no branch before {}", start.instruction);
            continue;
        };
        let at = check.function_offset as usize;
        let length = match (sample.arch, &sample.code[at..]) {
            (Arch::Amd64, [0x76, ..]) => 2,
            (Arch::Amd64, [0x0f, 0x86, ..]) => 6,
            (Arch::Arm64, [byte, _, _, 0x54, ..]) if byte & 0x1f == 9 => 4,
            (_, code) => panic!("{here}: {:x?}", &code[..6]),
        };
        assert_eq!(start.function_offset as usize, at + length, "{here}");
        assert_eq!((check.kind, check.cost), (Instruction::Branch, Cost::Emulated), "{here}");
        assert!(
            check.instruction.starts_with(if length == 4 { "b.ls " } else { "jbe " }),
            "{here}: {}",
            check.instruction
        );
        checks += 1;
    }
    assert!(checks > 100, "{checks}");
}

#[test]
fn returns_are_all_found() {
    for sample in samples().iter().filter(|s| s.whole) {
        let go = open(sample);
        let found = go.return_sites(go.function(&sample.name).unwrap());
        let here = format!("{} {}", sample.file, sample.name);
        if sample.name == "runtime.mcall" {
            // Its error path is a jump into badmcall: not every way out is a RET.
            assert!(matches!(found, Err(SiteError::TailJump(_) | SiteError::IndirectJump(_))), "{here}: {found:?}");
            continue;
        }
        let found = found.unwrap_or_else(|e| panic!("{here}: {e}"));
        assert!(found.iter().all(|s| s.instruction == "ret"), "{here}");
        let expected = match sample.name.as_str() {
            "runtime.gopark" | "net/http.(*response).finishRequest" | "runtime.chanrecv1" => 1,
            "runtime.casgstatus" if sample.minor >= 21 => 2,
            _ => continue,
        };
        assert_eq!(found.len(), expected, "{here}");
    }
}

#[test]
fn a_ret_is_cheap_on_arm64_alone() {
    for sample in samples().iter().filter(|s| s.name == "runtime.gopark") {
        let go = open(sample);
        let ret = go.return_sites(go.function(&sample.name).unwrap()).unwrap().remove(0);
        let cost = ret.cost_on(&KernelFeatures::oldest(sample.arch));
        assert_eq!(cost == Cost::Emulated, sample.arch == Arch::Arm64, "{}", sample.file);
    }
}

/// Made-up code where no sample has the case.
#[test]
fn odd_code() {
    let open = |code: &[u8]| {
        let sample = Sample {
            file: "made up".into(),
            minor: 22,
            arch: Arch::Amd64,
            name: "main.odd".into(),
            whole: true,
            code: code.to_vec(),
        };
        let go = open(&sample);
        let function = go.function("main.odd").unwrap().clone();
        (go, function)
    };
    // push %rbp; mov %rsp,%rbp; ret: no check
    let (go, f) = open(&[0x55, 0x48, 0x89, 0xe5, 0xc3]);
    assert_eq!((go.entry_site(&f).unwrap().function_offset, go.check_site(&f)), (0, None));
    // cmp 0x10(%r14),%rsp; jbe +0; push %rbp
    let (go, f) = open(&[0x49, 0x3b, 0x66, 0x10, 0x76, 0, 0x55, 0xc3]);
    assert_eq!(go.check_site(&f).map(|site| site.function_offset), Some(4));
    // The same with jb, which says less than jbe; and with a nop between the branch and the push.
    let (go, f) = open(&[0x49, 0x3b, 0x66, 0x10, 0x72, 0, 0x55, 0xc3]);
    assert_eq!((go.entry_site(&f).unwrap().function_offset, go.check_site(&f)), (6, None));
    let (go, f) = open(&[0x49, 0x3b, 0x66, 0x10, 0x76, 0, 0x90, 0x55, 0xc3]);
    assert_eq!((go.entry_site(&f).unwrap().function_offset, go.check_site(&f)), (7, None));
    // jmp *%rax; ret
    let (go, f) = open(&[0xff, 0xe0, 0xc3]);
    assert_eq!(go.return_sites(&f), Err(SiteError::IndirectJump(0)));
    // jmp out
    let (go, f) = open(&[0xe9, 0, 0x10, 0, 0, 0xc3]);
    assert_eq!(go.return_sites(&f), Err(SiteError::TailJump(0)));
    // int3 alone
    let (go, f) = open(&[0xcc]);
    assert_eq!(go.return_sites(&f), Err(SiteError::NoReturn));
    // cmp 0x10(%r14),%rsp; jbe +0; ret: a check with no frame behind it
    let (go, f) = open(&[0x49, 0x3b, 0x66, 0x10, 0x76, 0, 0xc3]);
    assert_eq!((go.entry_site(&f), go.check_site(&f)), (Err(SiteError::NoFrame), None));
    // An undecodable byte.
    let (go, f) = open(&[0x06]);
    assert_eq!(go.entry_site(&f), Err(SiteError::Undecodable(0)));
}

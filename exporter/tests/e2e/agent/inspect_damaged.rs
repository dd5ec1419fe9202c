//! `gopulse inspect` itself over damaged copies of real programs: ours, and those that nobody here wrote. Whatever it is
//! given, it prints what it found or one line that says what was wrong, and ends.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use crate::support::{agent::binary, scratch, service, service_of};
use xtask::{foreign, go::Variant};

/// Of each program; the last tenth is cut short instead.
const COPIES: usize = 40;
/// A hang, on a machine that is busy with other tests. gobinary's own limit of a second is fuzzing's to hold.
const LIMIT: Duration = Duration::from_secs(10);

struct XorShift(u64);

impl XorShift {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// Where a byte decides something: headers, section headers, build information, the function table.
fn spots(bytes: &[u8]) -> Vec<(usize, usize)> {
    let at = |needle: &[u8]| bytes.windows(needle.len()).position(|window| window == needle);
    let sections = u64::from_le_bytes(bytes[40..48].try_into().expect("an ELF header")) as usize;
    let mut spots = vec![(0, 64), (64, 600), (sections, 2048)];
    spots.extend(at(b"\xff Go buildinf:").map(|start| (start, 400)));
    for magic in [0xf1, 0xf0, 0xfa] {
        spots.extend(at(&[magic, 0xff, 0xff, 0xff, 0, 0, 1, 8]).map(|start| (start, 4096)));
    }
    spots.retain(|(start, _)| *start < bytes.len());
    spots
}

fn inspect(file: &Path) -> (Output, Duration) {
    let start = Instant::now();
    let output = Command::new(binary()).args(["inspect", "--json"]).arg(file).output().expect("it starts");
    (output, start.elapsed())
}

#[test]
fn damaged_programs_are_inspected_or_refused() {
    let mut programs: Vec<(String, PathBuf)> = vec![
        ("hello".into(), service("hello")),
        ("hello of Go 1.17, stripped".into(), service_of("hello", "1.17", Variant::Strip)),
    ];
    for program in foreign::PROGRAMS {
        programs.push((program.name.into(), foreign::program(program.name).expect("it can be fetched")));
    }
    let copy = scratch("damaged").join("program");
    let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
    let (mut read, mut refused, mut slowest) = (0, 0, Duration::ZERO);
    for (name, path) in &programs {
        let original = fs::read(path).expect("it is there");
        let spots = spots(&original);
        fs::write(&copy, &original).expect("it is copied");
        let file = File::options().write(true).open(&copy).expect("the copy can be written");
        let (output, _) = inspect(&copy);
        assert!(output.status.success(), "{name} as it is: {}", String::from_utf8_lossy(&output.stderr));
        let mut damaged = original.clone();
        for round in 0..COPIES {
            let mut changed = Vec::new();
            if round >= COPIES - COPIES / 10 {
                file.set_len(random.below(original.len()) as u64).expect("it is cut");
            } else {
                for _ in 0..=random.below(8) {
                    let whole = (0, original.len());
                    let (start, len) = if round % 4 == 0 { whole } else { spots[random.below(spots.len())] };
                    let spot = (start + random.below(len)).min(original.len() - 1);
                    damaged[spot] = [0, 0xff, random.below(256) as u8][random.below(3)];
                    file.write_all_at(&damaged[spot..=spot], spot as u64).expect("it is damaged");
                    changed.push(spot);
                }
            }
            let (output, took) = inspect(&copy);
            let said = String::from_utf8_lossy(&output.stderr);
            // A panic ends with 101, a signal with no code.
            match output.status.code() {
                Some(0) => read += 1,
                Some(1) if said.trim().lines().count() == 1 => refused += 1,
                code => panic!("{name}, copy {round}, {changed:x?}: {code:?}: {said}"),
            }
            assert!(!said.contains("panicked"), "{name}, copy {round}, {changed:x?}: {said}");
            assert!(took < LIMIT, "{name}, copy {round}, {changed:x?}: {took:?}");
            slowest = slowest.max(took);
            for spot in changed {
                damaged[spot] = original[spot];
                file.write_all_at(&damaged[spot..=spot], spot as u64).expect("it is mended");
            }
        }
    }
    println!(
        "{} damaged copies of {} programs: {read} read, {refused} refused, slowest {slowest:?}",
        read + refused,
        programs.len()
    );
    // Else the damage is nowhere that matters, or everywhere.
    assert!(read + refused >= 200 && read >= 20 && refused >= 20);
}

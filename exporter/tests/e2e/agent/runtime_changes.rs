//! Targets that end, run themselves anew by `execve`, and are replaced, while they are read without pause: no figure that is not
//! the process's own, and nothing in the log louder than a debug line. `GOPULSE_CHANGES_SECONDS` sets another length than 15.

use std::{
    collections::BTreeMap,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::support::{Agent, glob, must_be_root, scratch, service};
use xtask::service::Running;

/// Processes that run themselves anew, each after so many milliseconds. Those that do so thrice a second and more are read only at
/// first: the agent waits until they rest.
const ANEW: [u64; 4] = [23, 150, 520, 610];
/// Processes that end and are replaced, each after so many milliseconds.
const REPLACED: [u64; 4] = [40, 70, 110, 400];
const QUIET: [&str; 10] = ["-https", "-", "-h2c", "-", "-admin", "-", "-work=false", "-waiting", "50", "-http"];

/// The service marks its runtime (xtask/go/truth/mark.go): with its process id in the memory limit, with which of its images
/// this is in GOGC. As client_golang shows it, a limit is a float, whose next neighbours here are 1,024 apart.
fn marked(pid: u32) -> f64 {
    9_223_372_036_854_775_808.0 - (1u64 << 40) as f64 + f64::from(pid) * 4096.0
}

fn seconds() -> Duration {
    let set = std::env::var("GOPULSE_CHANGES_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(set.unwrap_or(15))
}

#[test]
fn no_figure_of_another_process_or_image() {
    must_be_root();
    let directory = scratch("runtime-changes");
    let binary = directory.join("runtime-changes-truth");
    std::fs::copy(service("truth"), &binary).expect("cargo's directory is writable");
    let start = |again: &str| {
        let mut command = Command::new(&binary);
        command.args(QUIET).arg("127.0.0.1:0").args(["-again", again]).env("TRUTH_GENERATION", "1");
        Running::spawn(&mut command).expect("the service starts")
    };
    let agent = Agent::start(&["--executable", &glob(&binary), "--features", "runtime"]);
    // What an image says goes to the same pipe: nobody reads on, and it is short.
    let anew: Vec<Running> = ANEW.iter().map(|after| start(&format!("{after}ms"))).collect();
    let mut replaced: Vec<(Running, Instant)> = REPLACED.iter().map(|_| (start("0"), Instant::now())).collect();
    let end = Instant::now() + seconds();
    let (mut scrapes, mut marked_readings, mut anew_seen) = (0u32, 0u32, 0u32);
    let mut images = BTreeMap::<u32, f64>::new();
    while Instant::now() < end {
        for (slot, after) in replaced.iter_mut().zip(REPLACED) {
            if slot.1.elapsed() >= Duration::from_millis(after) {
                *slot = (start("0"), Instant::now());
            }
        }
        scrapes += 1;
        let scrape = agent.scrape();
        let mut of: BTreeMap<u32, BTreeMap<&str, f64>> = BTreeMap::new();
        for sample in scrape.samples.iter().filter(|sample| sample.labels.len() == 2) {
            if let Ok(pid) = sample.label("instance_pid").parse() {
                of.entry(pid).or_default().insert(&sample.name, sample.value);
            }
        }
        for (pid, figures) in of {
            let Some(limit) = figures.get("go_gc_gomemlimit_bytes") else { continue };
            // Until it is marked, an image has neither.
            if *limit > 9.223_372_036_854_775e18 {
                continue;
            }
            assert!((limit - marked(pid)).abs() < 1.0, "process {pid} has the mark {limit} of another");
            marked_readings += 1;
            let waiting = figures["go_goroutines"];
            assert!((70.0..90.0).contains(&waiting), "process {pid} started 71 goroutines and has {waiting}");
            let (made, freed) = (figures["go_memstats_mallocs_total"], figures["go_memstats_frees_total"]);
            assert!(made >= freed && made > 0.0 && made < 1e6, "process {pid} made {made} objects and freed {freed}");
            let percent = figures["go_gc_gogc_percent"];
            if percent > 1000.0
                && percent < 1e6
                && let Some(last) = images.insert(pid, percent)
            {
                assert!(percent >= last, "process {pid}: image {last}, then {percent}");
                anew_seen += u32::from(percent > last);
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    let log = agent.log();
    let loud: Vec<&String> = log.iter().filter(|line| line.contains(" WARN") || line.contains("ERROR")).collect();
    assert!(loud.is_empty(), "{loud:#?}");
    let last_images: Vec<Option<f64>> = anew.iter().map(|it| images.get(&it.pid()).map(|mark| mark - 1000.0)).collect();
    println!(
        "{scrapes} scrapes, {marked_readings} readings of marked images, of {} processes; images run anew were seen \
         {anew_seen} times, the last of each: {last_images:?}",
        images.len()
    );
    assert!(marked_readings > 5, "only {marked_readings} readings of marked images");
    assert!(images.len() > REPLACED.len(), "only the processes {images:?} were seen with a mark");
    // The slowest live long enough to be read on any machine, if the agent sees that it is another image.
    assert!(anew_seen >= 5, "what replaced an image in its process was seen {anew_seen} times: {last_images:?}");
    agent.stop();
}

//! `gopulse hpa simulate` against the HPA controller itself: Kubernetes' own code, on a clock that the test turns, shown the same
//! at every sync. `GOPULSE_HPA_SERIES` sets how many series of random specs and loads are held against it (60).

use std::{fmt::Write as _, fs, process::Command};

use crate::support::scratch;
use xtask::{cluster, util};

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        // Knuth's MMIX.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.roll(choices.len() as u64) as usize]
    }
}

fn rules(dice: &mut Dice) -> String {
    let mut parts = Vec::new();
    if dice.roll(2) == 0 {
        parts.push(format!("stabilizationWindowSeconds: {}", [0, 15, 30, 60, 300][dice.roll(5) as usize]));
    }
    if dice.roll(2) == 0 {
        parts.push(format!("selectPolicy: {}", dice.of(&["Max", "Min", "Max", "Disabled"])));
    }
    if dice.roll(2) == 0 {
        parts.push(format!("tolerance: {}", dice.of(&["0", "0.01", "50m", "0.2"])));
    }
    if dice.roll(2) == 0 {
        let mut policy = |kind: &str, most: u64| {
            let (value, period) = (1 + dice.roll(most), [15, 30, 45, 60, 120][dice.roll(5) as usize]);
            format!("{{type: {kind}, value: {value}, periodSeconds: {period}}}")
        };
        let (pods, percent) = (policy("Pods", 6), policy("Percent", 150));
        parts.push(format!(
            "policies: [{}]",
            [pods.clone(), percent.clone(), format!("{pods}, {percent}")][dice.roll(3) as usize]
        ));
    }
    format!("{{{}}}", parts.join(", "))
}

/// An HPA, and a load for each of its metrics.
fn scene(dice: &mut Dice) -> (String, String) {
    let (least, span) = (1 + dice.roll(4), 1 + dice.roll(30));
    let mut spec = format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: shop}}\nspec:\n  scaleTargetRef: \
         {{apiVersion: apps/v1, kind: Deployment, name: shop}}\n  minReplicas: {least}\n  maxReplicas: {}\n  metrics:\n",
        least + span
    );
    let all = [
        ("a", "{type: Pods, pods: {metric: {name: a}, target: {type: AverageValue, averageValue: \"50\"}}}"),
        (
            "b",
            "{type: Object, object: {describedObject: {apiVersion: apps/v1, kind: Deployment, name: shop}, metric: {name: b}, target: {type: Value, value: \"250\"}}}",
        ),
        (
            "c",
            "{type: Object, object: {describedObject: {apiVersion: apps/v1, kind: Deployment, name: shop}, metric: {name: c}, target: {type: AverageValue, averageValue: \"30\"}}}",
        ),
        ("d", "{type: External, external: {metric: {name: d}, target: {type: Value, value: \"1500m\"}}}"),
        ("e", "{type: External, external: {metric: {name: e}, target: {type: AverageValue, averageValue: \"7\"}}}"),
        ("cpu", "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}"),
    ];
    let first = dice.roll(all.len() as u64) as usize;
    let chosen: Vec<_> = (0..=dice.roll(3) as usize).map(|it| &all[(first + it) % all.len()]).collect();
    for (_, metric) in &chosen {
        let _ = writeln!(spec, "  - {metric}");
    }
    if dice.roll(4) > 0 {
        let (up, down) = (rules(dice), rules(dice));
        let _ = writeln!(spec, "  behavior: {{scaleUp: {up}, scaleDown: {down}}}");
    }
    let names: Vec<&str> = chosen.iter().map(|(name, _)| *name).collect();
    let mut csv = format!("seconds,{}\n", names.join(","));
    let mut levels: Vec<f64> = names.iter().map(|_| dice.roll(900) as f64).collect();
    for step in 0..120 {
        let _ = write!(csv, "{}", step * 15);
        for (name, level) in names.iter().zip(&mut levels) {
            if dice.roll(6) == 0 {
                *level = dice.roll(1500) as f64;
            }
            let noise = (dice.roll(200) as f64 - 100.0) / 1000.0;
            let scale = match *name {
                "cpu" => 0.01,
                "d" => 0.003,
                _ => 1.0,
            };
            let value = (*level * (1.0 + noise) * scale).max(0.0);
            let _ = if dice.roll(25) == 0 { write!(csv, ",") } else { write!(csv, ",{value:.4}") };
        }
        csv.push('\n');
    }
    (spec, csv)
}

#[test]
fn the_same_replica_count_as_the_controller_at_every_sync() {
    let count: u64 = std::env::var("GOPULSE_HPA_SERIES").ok().and_then(|it| it.parse().ok()).unwrap_or(60);
    let directory = scratch("hpa-simulate");
    let [specs, traces, loads] = ["specs", "traces", "loads"].map(|name| directory.join(name));
    for directory in [&specs, &traces, &loads] {
        fs::create_dir_all(directory).unwrap();
    }
    let mut dice = Dice(7);
    for number in 0..count {
        let name = format!("{number:04}.yaml");
        let (spec, load) = scene(&mut dice);
        let (spec_file, load_file) = (specs.join(&name), loads.join(&name));
        fs::write(&spec_file, spec).unwrap();
        fs::write(&load_file, load).unwrap();
        let mut command = Command::new(crate::support::agent::binary());
        command.args(["hpa", "simulate", "--trace", "--request", "500m", "--for", "1785"]);
        command.args(["--start-after", dice.of(&["0", "2", "20"]), "--ready-after", dice.of(&["5", "25", "40"])]);
        command
            .args(["--metrics-after", dice.of(&["0", "1", "17"])])
            .arg("--hpa")
            .arg(&spec_file)
            .arg("--load")
            .arg(&load_file);
        fs::write(traces.join(&name), util::output(&mut command).unwrap()).unwrap();
    }
    let said = cluster::replay_autoscaler(&specs, &traces).unwrap_or_else(|error| panic!("{error:#}"));
    let line = said.lines().find(|line| line.starts_with("replayed:")).unwrap_or_else(|| panic!("{said}"));
    println!("{line}");
    assert!(line.contains(&format!("{count} series")), "{said}");
}

use std::io::Write as _;

use clap::Parser as _;

use super::*;

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: SimulateArgs,
}

const HPA: &str = "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  minReplicas: 2
  maxReplicas: 20
  metrics:
  - type: Pods
    pods: {metric: {name: rps}, target: {type: AverageValue, averageValue: 50}}
  behavior: {scaleDown: {stabilizationWindowSeconds: 60}}
";

fn simulate(flags: &[&str]) -> Result<String, String> {
    let unique = std::thread::current().name().unwrap_or("test").replace("::", "-");
    let path = std::env::temp_dir().join(format!("gopulse-{}-{unique}.yaml", std::process::id()));
    fs::File::create(&path).unwrap().write_all(HPA.as_bytes()).unwrap();
    let mut command = vec!["simulate", "--hpa", path.to_str().unwrap()];
    command.extend(flags);
    let output = Cli::try_parse_from(command).map_err(|error| error.to_string()).and_then(|cli| run(&cli.args));
    fs::remove_file(&path).unwrap();
    output
}

#[test]
fn a_step_of_load_scales_up_at_the_next_sync_and_down_after_the_window() {
    let csv = simulate(&["--shape", "rps=steps:0=80,60=800,300=80", "--csv"]).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let desired = |seconds: &str| rows.iter().find(|row| row[0] == seconds).unwrap()[5];
    assert_eq!(csv.lines().next(), Some("seconds,rps,replicas,ready,proposed,desired,reason"));
    // 800 at 50 each asks for 16, also from 12 pods, whose share is cut to thousandths; the default policy lets it have 4 more
    // or twice as many in 15 s.
    assert_eq!(["45", "60", "75", "90", "300", "330", "345"].map(desired), ["2", "6", "12", "16", "16", "16", "2"]);
}

#[test]
fn the_plot_shows_the_load_the_replicas_and_each_decision() {
    let plot = simulate(&["--shape", "rps=steps:0=80,60=800", "--for", "120"]).unwrap();
    assert!(
        plot.contains("rps\n800 ┤")
            && plot.contains("replicas of Deployment shop by shop (from 2 to 20)\n")
            && plot.contains("120 s"),
        "{plot}"
    );
    assert!(plot.contains("60 s     2 -> 6    metrics ask for 16, ScaleUpLimit"), "{plot}");
}

#[test]
fn a_metric_that_the_load_lacks_is_named() {
    let error = simulate(&["--shape", "qps=steps:0=1"]).unwrap_err();
    assert!(error.contains("scales on rps") && error.contains("qps"), "{error}");
    assert!(simulate(&[]).unwrap_err().contains("--load"));
}

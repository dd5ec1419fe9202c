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
    simulate_hpa(HPA, flags)
}

/// A file of this test's own.
fn file(name: &str, text: &str) -> PathBuf {
    let unique = std::thread::current().name().unwrap_or("test").replace("::", "-");
    let path = std::env::temp_dir().join(format!("gopulse-{}-{unique}-{name}", std::process::id()));
    fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path
}

fn simulate_hpa(hpa: &str, flags: &[&str]) -> Result<String, String> {
    let path = file("hpa.yaml", hpa);
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
    assert_eq!(
        csv.lines().next(),
        Some("seconds,rps,replicas,ready,proposed,desired,reason,stabilized,failed,rps_against_target")
    );
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

/// An HPA like the other, on these metrics.
fn on(metrics: &str) -> String {
    let (head, rest) = HPA.split_once("  - type").unwrap();
    let (_, behavior) = rest.split_once("  behavior").unwrap();
    format!("{head}{metrics}\n  behavior{behavior}")
}

const TWO: &str = "  - type: Pods
    pods: {metric: {name: rps}, target: {type: AverageValue, averageValue: 50}}
  - type: External
    external: {metric: {name: queue}, target: {type: Value, value: 250}}";

#[test]
fn the_picture_holds_a_pods_share_against_the_target_and_sums_up() {
    let picture = simulate(&["--shape", "rps=steps:0=80,60=800,300=80", "--for", "600"]).unwrap();
    assert!(
        picture.contains("rps of each ready pod against its target of 50\n400 ┤") && picture.contains('╌'),
        "{picture}"
    );
    // 800 over 2 pods from 60 s to 70 s, over 6 to 85 s, over 12 to 100 s, and then over 16: 40 s above 50.
    assert!(
        picture.contains("summary: rps of each ready pod above its target of 50 for 40 s, at most 400\n"),
        "{picture}"
    );
    // 2 for 60 s, 6 and 12 for 15 s each, 16 to 345 s, 2 to 600 s.
    let hours = (2.0 * 60.0 + 6.0 * 15.0 + 12.0 * 15.0 + 16.0 * 255.0 + 2.0 * 255.0) / 3600.0;
    assert!(picture.contains(&format!("summary: 2 to 16 replicas, {hours:.2} pod-hours\n")), "{picture}");
    // Changes of the reason alone are no decisions.
    let decisions: Vec<&str> = picture.lines().filter(|line| line.contains(" -> ")).collect();
    assert_eq!(decisions.len(), 4, "{picture}");
}

#[test]
fn a_metric_that_fails_is_marked() {
    let load = file(
        "load.csv",
        "time,rps,queue\n2026-01-01T00:00:00Z,500,\n2026-01-01T00:01:00Z,80,\n2026-01-01T00:05:00Z,80,10\n",
    );
    let load = load.to_str().unwrap();
    let picture = simulate_hpa(&on(TWO), &["--load", load]).unwrap();
    assert!(picture.contains("× it was not to be had"), "{picture}");
    assert!(
        picture.contains("0 s  queue: not to be had: no scaling down")
            && picture.contains("300 s  queue: to be had again")
    );
    assert!(picture.contains("summary: queue was not to be had at 20 of 61 syncs"), "{picture}");
    let csv = simulate_hpa(&on(TWO), &["--load", load, "--csv"]).unwrap();
    let failed: Vec<&str> = csv.lines().skip(1).filter(|line| line.split(',').nth(9) == Some("queue")).collect();
    assert_eq!(failed.len(), 20, "{csv}");
    fs::remove_file(load).unwrap();
}

#[test]
fn metrics_of_one_name_have_a_load_each() {
    let of = |code: u16| {
        format!(
            "  - type: External\n    external: {{metric: {{name: rps, selector: {{matchLabels: {{code: '{code}'}}}}}}, target: \
             {{type: AverageValue, averageValue: 10}}}}"
        )
    };
    let hpa = on(&format!("{}\n{}", of(500), of(503)));
    let error = simulate_hpa(&hpa, &["--shape", "rps=steps:0=1"]).unwrap_err();
    assert!(error.contains("scales on rps{code=500}"), "{error}");
    // As Prometheus writes it, too.
    let query = ["--shape", "rps{code=\"500\"}=steps:0=30", "--shape", "rps{code=\"503\"}=steps:0=50"];
    assert!(simulate_hpa(&hpa, &query).unwrap().contains("summary: 2 to 5 replicas"));
    let flags = ["--shape", "rps{code=500}=steps:0=30", "--shape", "rps{code=503}=steps:0=50", "--csv"];
    let csv = simulate_hpa(&hpa, &flags).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!((rows[0][1], rows[0][2]), ("rps{code=500}", "rps{code=503}"));
    assert_eq!((rows[1][1], rows[1][2], rows[1][5]), ("30", "50", "5"), "the greater of 3 and 5 counts");
    // Prometheus' answer has them by their labels; of one that is called otherwise it is said which it is.
    let series = r#"{"status": "success", "data": {"resultType": "matrix", "result": [
        {"metric": {"__name__": "rps", "code": "503"}, "values": [[0, "50"], [15, "50"]]},
        {"metric": {"__name__": "rps", "code": "500"}, "values": [[0, "30"], [15, "30"]]}]}}"#;
    let range = file("range.json", series);
    assert_eq!(
        simulate_hpa(&hpa, &["--load", range.to_str().unwrap(), "--for", "600", "--csv"]).unwrap().lines().nth(1),
        csv.lines().nth(1)
    );
    let one = file(
        "one.json",
        &series.replace("\"__name__\": \"rps\", ", "").lines().filter(|it| !it.contains("503")).collect::<String>(),
    );
    let said = format!("rps={}", one.display());
    assert!(simulate(&["--load", &said]).unwrap().contains("summary: 2 to 2 replicas"));
    assert!(simulate(&["--load", &format!("q={}", one.display())]).unwrap_err().contains("q is no metric of the HPA"));
    fs::remove_file(range).unwrap();
    fs::remove_file(one).unwrap();
}

/// Of the metrics-api's own metrics, whose windows are known; a shape is the load itself, a recorded series what was measured.
#[test]
fn a_metric_lags_behind_the_load_by_its_window() {
    let hpa = HPA.replace("name: rps", "name: http_server_requests_per_second");
    let at = |flags: &[&str], seconds: &str| {
        let csv = simulate_hpa(&hpa, &[flags, &["--csv"]].concat()).unwrap();
        csv.lines()
            .find_map(|line| {
                line.split(',').next().filter(|it| *it == seconds).map(|_| line.split(',').nth(5).unwrap().to_owned())
            })
            .unwrap()
    };
    let shape = ["--shape", "http_server_requests_per_second=steps:0=80,60=800"];
    assert_eq!([at(&shape, "60"), at(&shape, "75")], ["2", "6"]);
    let without = [&shape[..], &["--window", "http_server_requests_per_second=0"]].concat();
    assert_eq!(at(&without, "60"), "6");
    let load = file("load.csv", "seconds,http_server_requests_per_second\n0,80\n60,800\n");
    assert_eq!(at(&["--load", load.to_str().unwrap()], "60"), "6");
    fs::remove_file(load).unwrap();
    assert!(simulate(&["--shape", "rps=steps:0=1", "--window", "qps=3"]).unwrap_err().contains("qps is no metric"));
    assert!(simulate(&["--shape", "rps=steps:0=1", "--window", "rps"]).unwrap_err().contains("METRIC=SECONDS"));
}

#[test]
fn it_wakes_from_zero_what_it_has_put_there_itself() {
    let hpa = on(
        "  - type: External\n    external: {metric: {name: queue}, target: {type: AverageValue, averageValue: 100}}",
    )
    .replace("minReplicas: 2", "minReplicas: 0");
    let most = |flags: &[&str]| {
        let picture = simulate_hpa(&hpa, &[&["--shape", "queue=steps:0=0,60=250"], flags].concat()).unwrap();
        picture.lines().find_map(|line| line.strip_prefix("summary: 0 to ")).unwrap()[..1].to_owned()
    };
    assert_eq!(most(&[]), "3");
    assert_eq!(most(&["--replicas", "0"]), "0");
    assert_eq!(most(&["--replicas", "0", "--ignore-scaled-to-zero"]), "3");
}

/// 500 over 12 pods against 50 is 10: a share that is rounded up to thousandths would ask for 11.
#[test]
fn values_are_cut_to_thousandths() {
    let csv = simulate(&["--shape", "rps=steps:0=600,60=500", "--replicas", "12", "--csv"]).unwrap();
    let at = |seconds: &str| {
        csv.lines().find(|line| line.starts_with(&format!("{seconds},"))).unwrap().split(',').nth(4).unwrap()
    };
    assert_eq!((at("0"), at("60")), ("12", "10"));
}

#[test]
fn what_would_never_end_is_refused_with_what_to_change() {
    let shape = ["--shape", "rps=steps:0=100"];
    let error = |flags: &[&str]| simulate(&[&shape[..], flags].concat()).unwrap_err();
    assert!(error(&["--for", "4000000000"]).contains("--for SECONDS"));
    assert!(simulate(&["--shape", "rps=steps:0=1,1e11=2"]).unwrap_err().contains("syncs"));
    assert!(error(&["--replicas", "2000000000"]).contains("150000 at most"));
    let most = HPA.replace("maxReplicas: 20", "maxReplicas: 2000000000");
    assert!(simulate_hpa(&most, &["--shape", "rps=steps:0=1e9"]).unwrap_err().contains("replicas, of 150000 at most"));
}

#[test]
fn a_load_is_of_a_metric_of_the_hpa_and_given_once() {
    let shape = ["--shape", "rps=steps:0=100"];
    let error = |flags: &[&str]| simulate(&[&shape[..], flags].concat()).unwrap_err();
    assert!(error(&["--shape", "rps=steps:0=900"]).contains("give it once"));
    assert!(error(&["--shape", "qps=steps:0=900"]).contains("\"qps\" is no metric of the HPA, which has: rps"));
    let load = file("twice.csv", "seconds,rps\n0,80\n");
    assert!(error(&["--load", load.to_str().unwrap()]).contains("give it once"));
    fs::remove_file(load).unwrap();
}

#[test]
fn a_percentage_needs_what_pods_request() {
    let hpa = on(
        "  - type: ContainerResource\n    containerResource: {name: cpu, container: app, target: {type: Utilization, averageUtilization: 60}}",
    );
    let shape = ["--shape", "cpu=steps:0=1", "--csv"];
    assert!(simulate_hpa(&hpa, &shape).unwrap_err().contains("give --request QUANTITY"));
    // 500m at each of two pods, of which each requests 250m.
    let csv = simulate_hpa(&hpa, &[&shape[..], &["--request", "250m"]].concat()).unwrap();
    assert!(csv.lines().nth(1).unwrap().ends_with(",200.000"), "{csv}");
}

#[test]
fn a_byte_order_mark_is_no_part_of_an_hpa() {
    let hpa = format!("\u{feff}{}", HPA.replace('\n', "\r\n"));
    assert!(simulate_hpa(&hpa, &["--shape", "rps=steps:0=100"]).is_ok());
}

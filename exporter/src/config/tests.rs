use clap::Parser as _;

use super::*;

fn load(flags: &[&str], yaml: Option<&str>) -> Result<Config, ConfigError> {
    let mut command = vec!["gopulse", "run"];
    let file = yaml.map(|text| {
        let unique = std::thread::current().name().unwrap_or("test").replace("::", "-");
        let path = std::env::temp_dir().join(format!("gopulse-{}-{unique}.yaml", std::process::id()));
        fs::write(&path, text).unwrap();
        path
    });
    if let Some(path) = &file {
        command.extend(["--config", path.to_str().unwrap()]);
    }
    command.extend(flags);
    let Command::Run(args) = Cli::try_parse_from(command).unwrap().command else { unreachable!() };
    let config = Config::load(&args);
    if let Some(path) = file {
        fs::remove_file(path).unwrap();
    }
    config
}

#[test]
fn flags_override_the_file_and_the_file_the_defaults() {
    let config = load(
        &["--metrics-address", "127.0.0.1:1234", "--pid", "7"],
        Some("max_routes: 5\nmetrics_address: 127.0.0.1:9\nselect:\n  all: true\n"),
    )
    .unwrap();
    assert_eq!(config.metrics_address.port(), 1234);
    assert_eq!(config.max_routes, 5);
    assert_eq!(config.max_series, Config::default().max_series);
    assert_eq!(config.select, Selection { pids: vec![7], ..Selection::default() });
}

#[test]
fn unknown_keys_are_errors_that_name_them() {
    for yaml in ["max_rouets: 5\nselect: {all: true}", "select: {al: true}"] {
        let error = load(&[], Some(yaml)).unwrap_err().to_string();
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn an_empty_selection_is_refused_with_what_to_do() {
    let error = load(&[], None).unwrap_err().to_string();
    assert!(error.contains("--executable") && error.contains("--all"), "{error}");
}

#[test]
fn values_out_of_range_name_the_key_and_the_range() {
    let error = load(&["--all", "--max-routes", "0"], None).unwrap_err().to_string();
    assert!(error.contains("max_routes is 0") && error.contains("1 to 10000"), "{error}");
    let error = load(&["--executable", "a[", "--all"], None).unwrap_err().to_string();
    assert!(error.contains("a["), "{error}");
}

#[test]
fn what_check_prints_is_a_valid_file() {
    let config = load(&["--executable", "/srv/*", "--listen-port", "80"], None).unwrap();
    let text = serde_norway::to_string(&config).unwrap();
    assert_eq!(load(&[], Some(&text)).unwrap(), config);
}

#[test]
fn a_glob_that_is_a_symbolic_link_is_found_and_led_to_its_end() {
    let directory = std::env::temp_dir().join(format!("gopulse-links-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("releases/5")).unwrap();
    std::os::unix::fs::symlink("releases/5", directory.join("current")).unwrap();
    std::fs::write(directory.join("releases/5/api"), "").unwrap();
    let end = directory.join("releases/5/api").canonicalize().unwrap();
    let given = |more: &[String]| {
        let link = directory.join("current/api").display().to_string();
        let selection = Selection {
            executables: [&[link, end.display().to_string(), "/none/api".into()], more].concat(),
            ..Selection::default()
        };
        selection.links().into_iter().map(|(_, is)| is).collect::<Vec<_>>()
    };
    assert_eq!(given(&[]), [] as [std::path::PathBuf; 0], "its end is named too");
    let selection =
        Selection { executables: vec![directory.join("current/api").display().to_string()], ..Selection::default() };
    assert_eq!(selection.links(), [(selection.executables[0].as_str(), end.clone())]);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn globs_match_paths_or_names() {
    let globs = Selection { executables: vec!["shop*".into(), "/opt/**/api".into()], ..Selection::default() }
        .matcher()
        .unwrap();
    assert!(globs.matches(Path::new("/srv/shop-v2")));
    assert!(globs.matches(Path::new("/opt/a/b/api")));
    assert!(!globs.matches(Path::new("/srv/api")));
    assert!(!globs.matches(Path::new("/shop/api")));
}

#[test]
fn pods_are_measured_instead_of_a_selection() {
    let config = load(&["--kubernetes", "--node-name", "n1"], Some("kubernetes: {deny_namespaces: [kube-*]}")).unwrap();
    assert!(config.in_pods());
    assert_eq!(config.kubernetes.node_name.as_deref(), Some("n1"));
    assert_eq!(config.kubernetes.deny_namespaces, ["kube-*"]);
    let error = load(&["--kubernetes", "--node-name", "n1", "--all"], None).unwrap_err().to_string();
    assert!(error.contains("--all"), "{error}");
    let error = load(&["--kubernetes", "--node-name", ""], None).unwrap_err().to_string();
    assert!(error.contains("NODE_NAME"), "{error}");
    let error = load(&["--kubernetes", "--node-name", "n"], Some("kubernetes: {allow_namespaces: ['a[']}"));
    assert!(error.unwrap_err().to_string().contains("allow_namespaces: a["));
}

#[test]
fn tls_needs_both_halves() {
    let error = load(&["--all", "--tls-key", "/k"], None).unwrap_err().to_string();
    assert!(error.contains("--tls-certificate"), "{error}");
}

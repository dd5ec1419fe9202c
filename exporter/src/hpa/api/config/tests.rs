use super::*;

#[test]
fn what_is_registered_is_yes_no_or_by_force() {
    let read = |text: &str| serde_norway::from_str::<Register>(text);
    let register = read("{custom: force, external: false}").unwrap();
    assert_eq!((register.custom, register.external), (Keep::Force, Keep::No));
    assert_eq!(read(&serde_norway::to_string(&register).unwrap()).unwrap(), register);
    assert_eq!(read("{}").unwrap(), Register::default());
    assert!(read("{custom: always}").unwrap_err().to_string().contains("true, false or force"));
}

#[test]
fn a_file_may_begin_with_a_byte_order_mark_and_have_other_ends_of_lines() {
    let path = std::env::temp_dir().join(format!("gopulse-{}-metrics-api.yaml", std::process::id()));
    fs::write(&path, "\u{feff}namespace: shop\r\nlist_values: true\r\n").unwrap();
    let config = Config::load(&MetricsApiArgs { config: Some(path.clone()), ..MetricsApiArgs::default() });
    fs::remove_file(path).unwrap();
    let config = config.unwrap();
    assert_eq!((config.namespace.as_str(), config.list_values), ("shop", true));
}

#[test]
fn a_metric_is_there_once_and_none_may_be_there() {
    let read = |text: &str| serde_norway::from_str::<Config>(text).map_err(|error| error.to_string());
    let twice = "metrics:\n  a: {expression: pods()}\n  b: {expression: pods()}\n  a: {expression: 2 * pods()}\n";
    assert!(read(twice).unwrap_err().contains("metric \"a\" is there twice"), "{:?}", read(twice));
    assert_eq!(read("metrics:\nnamespace: x\n").unwrap().metrics, BTreeMap::new(), "all of them commented out");
    let none = Config { namespace: "x".into(), exclude_routes: vec![String::new()], ..Config::default() };
    assert!(none.check().unwrap_err().to_string().contains("exclude_routes"));
}

#[test]
fn it_listens_at_all_addresses_of_both_families() {
    assert_eq!(Config::default().address.to_string(), "[::]:6443");
}

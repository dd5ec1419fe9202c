use super::*;

#[test]
fn times_may_be_dates_and_a_file_of_one_metric_be_named() {
    let mut load = Load::default();
    let text = "time,value\n2026-01-01T00:00:00Z,10\n2026-01-01T01:00:30+01:00,20\n";
    load.record(text.as_bytes(), &[], Some("rps")).unwrap();
    assert_eq!([0, 29_999, 30_000].map(|at| load.at("rps", at)), [Some(10.0), Some(10.0), Some(20.0)]);
    assert!(load.record("seconds,a,b\n0,1,2\n".as_bytes(), &[], Some("rps")).is_err());
}

#[test]
fn a_window_shows_a_step_little_by_little() {
    let mut load = Load::default();
    load.shape("rps{code=500}=steps:0=100,60=400").unwrap();
    let mean = |seconds: i64| load.mean("rps{code=500}", seconds * 1000, 15_000).unwrap();
    assert_eq!((mean(60), mean(65), mean(75)), (100.0, 200.0, 400.0));
    assert_eq!(load.mean("rps{code=500}", 60_000, 0), Some(400.0));
    assert!(load.is_made("rps{code=500}"));
}

#[test]
fn a_recorded_value_holds_until_the_next_and_an_empty_cell_is_none() {
    let mut load = Load::default();
    load.record("seconds,rps\n1000,10\n1010,\n1020,30\n".as_bytes(), &[], None).unwrap();
    assert_eq!(
        [0, 9_999, 10_000, 19_999, 20_000, 90_000].map(|at| load.at("rps", at)),
        [Some(10.0), Some(10.0), None, None, Some(30.0), Some(30.0)]
    );
    assert_eq!(load.end(), 20_000);
}

#[test]
fn errors_name_the_row_and_the_column() {
    let error = |text: &str| Load::default().record(text.as_bytes(), &[], None).unwrap_err().to_string();
    assert!(error("seconds,rps\n0,10\n1,x\n").contains("line 3") && error("seconds,rps\n0,x\n").contains("rps"));
    assert!(error("# of Monday\n\nseconds,rps\n1,1\n\n1,2\n").contains("line 6"));
    assert!(error("seconds,rps\n5,1\n2026-01-01T00:00:00Z,2\n").contains("a date among seconds"));
    assert!(error("seconds,rps\n0,1\n1e300,2\n").contains("line 3"));
    assert!(error("seconds,rps,rps\n0,1,2\n").contains("rps has a load already"));
    assert!(error("when,rps\n").contains("seconds"));
    assert!(error("seconds,rps\n").contains("no rows"));
    assert!(Load::default().shape("rps=steep:1").unwrap_err().to_string().contains("steps:"));
    for wrong in
        ["rps=steps:5=1,5=2", "rps=sine:1,2,0.0001", "rps=sine:1,2,-5", "rps=ramp:0=0,1e300=1", "rps=steps:0=500m"]
    {
        assert!(Load::default().shape(wrong).is_err(), "{wrong}");
    }
    let mut load = Load::default();
    load.shape("rps=steps:0=1").unwrap();
    assert!(load.shape("rps=steps:0=2").unwrap_err().to_string().contains("give it once"));
}

#[test]
fn a_byte_order_mark_and_other_ends_of_lines_are_no_part_of_a_load() {
    let mut load = Load::default();
    load.record("\u{feff}seconds,rps\r\n0,10\r\n".as_bytes(), &[], None).unwrap();
    assert_eq!(load.at("rps", 0), Some(10.0));
    let answer = "\u{feff}{\"status\": \"error\", \"error\": \"no series\"}";
    assert!(
        Load::default()
            .record(answer.as_bytes(), &[], None)
            .unwrap_err()
            .to_string()
            .contains("query_range): no series")
    );
}

#[test]
fn shapes() {
    let mut load = Load::default();
    load.shape("a=steps:0=1,60=5").unwrap();
    load.shape("b=ramp:0=0,100=10").unwrap();
    load.shape("c=sine:10,20,60").unwrap();
    let at = |metric: &str, seconds: i64| load.at(metric, seconds * 1000).unwrap();
    assert_eq!((at("a", 59), at("a", 60)), (1.0, 5.0));
    assert_eq!((at("b", 50), at("b", 500)), (5.0, 10.0));
    assert!((at("c", 0) - 10.0).abs() < 1e-9 && (at("c", 30) - 20.0).abs() < 1e-9);
}

//! Prometheus' answer to a range query, as `curl .../api/v1/query_range` prints it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Load, LoadError, Names, Series, Time, time_of};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

impl Load {
    /// Takes the series for the HPA's metrics that have their name and labels; a series without a name, as a function's, only if
    /// it is clear which metric it is. Times count from the first value of all. Where a step has no value, or one that is no
    /// number, the metric was not to be had.
    pub(super) fn range(&mut self, text: &str, of: &[Names], metric: Option<&str>) -> Result<(), LoadError> {
        let wrong = |text: String| LoadError::Range(text);
        let answer: Answer = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let Some(data) = answer.data.filter(|_| answer.status == "success") else { return Err(wrong(answer.error)) };
        if data.result_type != "matrix" {
            return Err(wrong(format!("its result is a {}, not a matrix", data.result_type)));
        }
        for row in &data.result {
            let grows = row.values.is_sorted_by(|a, b| a.0 < b.0);
            if !grows || row.values.iter().any(|it| time_of(it.0).is_none()) {
                return Err(wrong("times that are none, or do not grow".to_owned()));
            }
        }
        let times = data.result.iter().flat_map(|it| &it.values).map(|it| milliseconds(it.0));
        let first = times.min().ok_or(LoadError::Empty)?;
        let only = data.result.len() == 1;
        let mut taken = BTreeMap::new();
        for row in &data.result {
            let name = match metric {
                Some(metric) if only => metric.to_owned(),
                Some(metric) => {
                    return Err(wrong(format!(
                        "{} series, of which one can be {metric}: add them up, as sum(...)",
                        data.result.len()
                    )));
                }
                None => match of.iter().find(|it| row.is(it)) {
                    Some(names) => names.all.first().unwrap_or(&names.metric).clone(),
                    None if only && of.len() == 1 && !row.metric.contains_key("__name__") => of[0].all[0].clone(),
                    None if row.metric.contains_key("__name__") => continue,
                    None => {
                        return Err(wrong(
                            "a series without a name: say which metric it is by --load METRIC=FILE".into(),
                        ));
                    }
                },
            };
            if taken.insert(name.clone(), row.series(first)).is_some() {
                return Err(wrong(format!("several series of {name}: add them up, as sum({name})")));
            }
        }
        if taken.is_empty() {
            return Err(wrong("no series of it is a metric of the HPA: say which by --load METRIC=FILE".into()));
        }
        for (name, values) in taken {
            self.end = self.end.max(values.last().map_or(0, |it| it.0));
            self.insert(&name, Series::Recorded(values))?;
        }
        Ok(())
    }
}

impl Row {
    /// Whether it is of a metric: by the name, and by the labels that its selector asks for.
    fn is(&self, names: &Names) -> bool {
        let has = |(key, values): &(String, Vec<String>)| self.metric.get(key).is_some_and(|it| values.contains(it));
        self.metric.get("__name__") == Some(&names.metric) && names.labels.iter().all(has)
    }

    fn series(&self, first: Time) -> Vec<(Time, Option<f64>)> {
        let at = |it: &(f64, String)| milliseconds(it.0) - first;
        let step = self.values.windows(2).map(|it| at(&it[1]) - at(&it[0])).min().unwrap_or(0);
        let mut series = Vec::new();
        for value in &self.values {
            // A step without a value is left out.
            if let Some((before, Some(_))) = series.last().copied()
                && at(value) - before > step * 3 / 2
            {
                series.push((before + step, None));
            }
            series.push((at(value), value.1.parse::<f64>().ok().filter(|it| it.is_finite())));
        }
        series
    }
}

fn milliseconds(seconds: f64) -> Time {
    time_of(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(metric: &str, labels: &[(&str, &str)]) -> Names {
        let shown: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let whole = if shown.is_empty() { metric.to_owned() } else { format!("{metric}{{{}}}", shown.join(",")) };
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), vec![(*value).to_owned()])).collect();
        Names { metric: metric.to_owned(), all: vec![whole], labels }
    }

    fn answer(result: &str) -> String {
        format!("{{\"status\": \"success\", \"data\": {{\"resultType\": \"matrix\", \"result\": [{result}]}}}}")
    }

    fn read(result: &str, of: &[Names], metric: Option<&str>) -> Result<Load, String> {
        let mut load = Load::default();
        load.record(answer(result).as_bytes(), of, metric).map_err(|error| error.to_string()).map(|()| load)
    }

    const SUM: &str = r#"{"metric": {}, "values": [[1000, "10"], [1015, "20"], [1060, "NaN"], [1075, "30"]]}"#;

    #[test]
    fn a_series_is_the_only_metric_or_the_one_that_is_said() {
        let load = read(SUM, &[names("rps", &[])], None).unwrap();
        // 15 s after the last value before a gap it is not to be had.
        assert_eq!(
            [0, 15_000, 29_999, 30_000, 60_000, 75_000].map(|at| load.at("rps", at)),
            [Some(10.0), Some(20.0), Some(20.0), None, None, Some(30.0)]
        );
        let two = [names("rps", &[]), names("qps", &[])];
        assert!(read(SUM, &two, None).unwrap_err().contains("--load METRIC=FILE"));
        assert_eq!(read(SUM, &two, Some("qps")).unwrap().at("qps", 0), Some(10.0));
        assert!(read(&format!("{SUM}, {SUM}"), &two, Some("qps")).unwrap_err().contains("sum(...)"));
    }

    #[test]
    fn series_are_known_by_name_and_labels() {
        let row =
            |code: u16| format!(r#"{{"metric": {{"__name__": "rps", "code": "{code}"}}, "values": [[0, "{code}"]]}}"#);
        let of = [names("rps", &[("code", "500")]), names("rps", &[("code", "503")])];
        let load = read(&[row(500), row(503), row(200)].join(", "), &of, None).unwrap();
        assert_eq!([load.at("rps{code=500}", 0), load.at("rps{code=503}", 0)], [Some(500.0), Some(503.0)]);
        assert!(read(&[row(500), row(500)].join(", "), &of, None).unwrap_err().contains("several series"));
        assert!(read(&row(200), &of, None).unwrap_err().contains("is a metric of the HPA"));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let error = |text: &str| Load::default().record(text.as_bytes(), &[], None).unwrap_err().to_string();
        assert!(error(r#"{"status": "error", "error": "parse error"}"#).contains("parse error"));
        assert!(error(r#"{"status": "success", "data": {"resultType": "vector", "result": []}}"#).contains("vector"));
        assert!(error("{").contains("query_range"));
        let of = [names("rps", &[])];
        for values in [r#"[15, "1"], [0, "2"]"#, r#"[0, "1"], [0, "2"]"#, r#"[0, "1"], [1e15, "2"]"#] {
            let row = format!(r#"{{"metric": {{"__name__": "rps"}}, "values": [{values}]}}"#);
            assert!(read(&row, &of, None).unwrap_err().contains("do not grow"), "{values}");
        }
    }
}

//! What the workload is put under: a recorded series (CSV, or Prometheus' answer to a range query) or a shape. A value holds
//! until the next.

mod range;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use k8s_openapi::jiff::Timestamp;
use thiserror::Error;

use super::calculator::Time;

/// Values by metric.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    series: BTreeMap<String, Series>,
    /// Those of them that were made, not recorded.
    made: BTreeSet<String>,
    end: Time,
}

/// What an HPA's metric is called in a load: by any of these, of which none is another metric's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The metric's own name.
    pub(crate) metric: String,
    /// What it may be called, the shortest first.
    pub(crate) all: Vec<String>,
    /// Labels that its figures have, as its selector says.
    pub(crate) labels: Vec<(String, Vec<String>)>,
}

#[derive(Clone, Debug)]
enum Series {
    /// Steps; none where the metric was not to be had.
    Recorded(Vec<(Time, Option<f64>)>),
    Ramp(Vec<(Time, Option<f64>)>),
    Sine {
        low: f64,
        high: f64,
        period: Time,
    },
}

/// Why a load is not taken.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error("{0}")]
    Csv(#[from] csv::Error),
    #[error("the first column must be `seconds`, and each other column a metric of the HPA; found {0:?}")]
    Header(String),
    #[error("not Prometheus' answer to a range query (/api/v1/query_range): {0}")]
    Range(String),
    #[error("line {row}: {value:?} under {column} is no number")]
    Number { row: usize, column: String, value: String },
    #[error("line {row}: {seconds} s is no time, or not after the row before")]
    Order { row: usize, seconds: f64 },
    #[error("line {row}: a date among seconds, or the other way round")]
    Mixed { row: usize },
    #[error("{0} has a load already: give it once")]
    Twice(String),
    #[error("there are no rows")]
    Empty,
    #[error(
        "{0:?} is no load: give METRIC=steps:SECONDS=VALUE,..., METRIC=ramp:SECONDS=VALUE,... or METRIC=sine:LOW,HIGH,PERIOD_SECONDS"
    )]
    Shape(String),
}

impl Load {
    /// Reads a recorded series. `of` are the HPA's metrics; `metric` is what the only series is of, where that is said.
    pub(crate) fn record(
        &mut self,
        mut input: impl io::Read,
        of: &[Names],
        metric: Option<&str>,
    ) -> Result<(), LoadError> {
        let mut text = String::new();
        input.read_to_string(&mut text).map_err(|error| LoadError::Csv(error.into()))?;
        let text = text.strip_prefix(MARK).unwrap_or(&text);
        if text.trim_start().starts_with('{') { self.range(text, of, metric) } else { self.csv(text, metric) }
    }

    /// CSV: `seconds` and a column for each metric. An empty cell says that the metric was not to be had. Times, seconds or as
    /// RFC 3339 has them, count from the first row.
    fn csv(&mut self, text: &str, metric: Option<&str>) -> Result<(), LoadError> {
        let input = text.as_bytes();
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(input);
        let header = reader.headers()?.clone();
        let named = metric.is_none() || header.len() == 2;
        if !matches!(header.get(0), Some("seconds" | "time" | "timestamp")) || header.len() < 2 || !named {
            return Err(LoadError::Header(header.iter().collect::<Vec<_>>().join(",")));
        }
        let mut columns: Vec<Vec<(Time, Option<f64>)>> = vec![Vec::new(); header.len() - 1];
        let mut first = None;
        let mut last = None;
        let mut dated = None;
        for record in reader.records() {
            let record = record?;
            let row = || line_of(text, record.position());
            let number = |index: usize| {
                let value = record.get(index).unwrap_or("");
                let wrong = || LoadError::Number {
                    row: row(),
                    column: header.get(index).unwrap_or("").to_owned(),
                    value: value.to_owned(),
                };
                if value.is_empty() {
                    return Ok(None);
                }
                value.parse::<f64>().ok().filter(|it| it.is_finite()).map(Some).ok_or_else(wrong)
            };
            let time = record.get(0).and_then(|it| it.parse::<Timestamp>().ok());
            if *dated.get_or_insert(time.is_some()) != time.is_some() {
                return Err(LoadError::Mixed { row: row() });
            }
            let seconds = match time {
                Some(time) => time.as_millisecond() as f64 / 1e3,
                None => number(0)?.unwrap_or(f64::NAN),
            };
            let at = time_of(seconds - *first.get_or_insert(seconds));
            let Some(at) = at.filter(|at| last.is_none_or(|last| *at > last)) else {
                return Err(LoadError::Order { row: row(), seconds });
            };
            last = Some(at);
            for (index, column) in columns.iter_mut().enumerate() {
                column.push((at, number(index + 1)?));
            }
        }
        self.end = self.end.max(last.ok_or(LoadError::Empty)?);
        for (name, values) in header.iter().skip(1).zip(columns) {
            self.insert(metric.unwrap_or(name), Series::Recorded(values))?;
        }
        Ok(())
    }

    fn insert(&mut self, name: &str, series: Series) -> Result<(), LoadError> {
        match self.series.insert(name.to_owned(), series) {
            Some(_) => Err(LoadError::Twice(name.to_owned())),
            None => Ok(()),
        }
    }

    /// Adds a shape: `METRIC=KIND:...`.
    pub(crate) fn shape(&mut self, text: &str) -> Result<(), LoadError> {
        let wrong = || LoadError::Shape(text.to_owned());
        // A metric's name may have a selector, and that an equals sign.
        let at = ["=steps:", "=ramp:", "=sine:"].iter().find_map(|it| text.rfind(it)).ok_or_else(wrong)?;
        let (metric, shape) = (&text[..at], &text[at + 1..]);
        let (kind, rest) = shape.split_once(':').ok_or_else(wrong)?;
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|it| it.is_finite()).ok_or_else(wrong);
        let points = || {
            let mut points = Vec::new();
            for point in rest.split(',') {
                let (at, value) = point.split_once('=').ok_or_else(wrong)?;
                points.push((time_of(number(at)?).ok_or_else(wrong)?, Some(number(value)?)));
            }
            if points.is_sorted_by(|a, b| a.0 < b.0) { Ok(points) } else { Err(wrong()) }
        };
        let series = match kind {
            "steps" => Series::Recorded(points()?),
            "ramp" => Series::Ramp(points()?),
            "sine" => match rest.split(',').map(number).collect::<Result<Vec<_>, _>>()?[..] {
                [low, high, period] => {
                    let period = time_of(period).filter(|it| *it > 0).ok_or_else(wrong)?;
                    Series::Sine { low, high, period }
                }
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        if let Series::Recorded(points) | Series::Ramp(points) = &series {
            self.end = self.end.max(points.last().map_or(0, |it| it.0));
        }
        self.made.insert(metric.trim().to_owned());
        self.insert(metric.trim(), series)
    }

    /// When the last of them ends.
    pub(crate) fn end(&self) -> Time {
        self.end
    }

    /// Names of the metrics there are.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.series.keys().map(String::as_str)
    }

    /// What a metric is called here, if it is there.
    pub(crate) fn called(&self, names: &Names) -> Option<&str> {
        let found = names.all.iter().find_map(|it| self.series.get_key_value(it.as_str()));
        found.map(|(name, _)| name.as_str())
    }

    /// Whether a series was made, and shows the load itself and not what a metrics API had measured of it.
    pub(crate) fn is_made(&self, name: &str) -> bool {
        self.made.contains(name)
    }

    /// A metric's mean over the window that ends now; none if it is not to be had now.
    pub(crate) fn mean(&self, metric: &str, now: Time, window: Time) -> Option<f64> {
        let value = self.at(metric, now)?;
        if window == 0 {
            return Some(value);
        }
        let all: Vec<f64> = moments(now, window).filter_map(|at| self.at(metric, at)).collect();
        Some(if all.is_empty() { value } else { all.iter().sum::<f64>() / all.len() as f64 })
    }

    /// A metric's value at a time; none where it was not to be had.
    pub(crate) fn at(&self, metric: &str, now: Time) -> Option<f64> {
        match self.series.get(metric)? {
            Series::Recorded(points) => {
                let next = points.partition_point(|(at, _)| *at <= now);
                points[next.saturating_sub(1)].1
            }
            Series::Ramp(points) => {
                let next = points.partition_point(|(at, _)| *at <= now);
                let (before, after) = (points.get(next.wrapping_sub(1)), points.get(next));
                match (before, after) {
                    (Some((from, Some(low))), Some((to, Some(high)))) => {
                        Some(low + (high - low) * (now - from) as f64 / (to - from) as f64)
                    }
                    (Some((_, value)), _) | (None, Some((_, value))) => *value,
                    _ => None,
                }
            }
            Series::Sine { low, high, period } => {
                let turn = (now % period) as f64 / *period as f64 * std::f64::consts::TAU;
                // From the low point up.
                Some(low + (high - low) * (1.0 - turn.cos()) / 2.0)
            }
        }
    }
}

/// What some editors and programs begin a text with, the byte order mark.
pub(super) const MARK: char = '\u{feff}';

/// The line that a record is on. What the reader says is where it went on after the record before: blank lines and comments are
/// passed over.
fn line_of(text: &str, position: Option<&csv::Position>) -> usize {
    let begun = position.map_or(0, |it| it.byte() as usize).min(text.len());
    let (before, rest) = text.as_bytes().split_at(begun);
    let lines = rest.split(|it| *it == b'\n');
    let passed = lines.take_while(|line| line.trim_ascii().is_empty() || line.starts_with(b"#")).count();
    before.split(|it| *it == b'\n').count() + passed
}

/// Milliseconds of a number of seconds; none of what no clock shows.
fn time_of(seconds: f64) -> Option<Time> {
    (seconds.abs() <= 1e12).then(|| (seconds * 1e3).round() as Time)
}

/// Into how many parts a window is divided.
const PARTS: i64 = 60;

/// The middles of a window's parts.
pub(super) fn moments(now: Time, window: Time) -> impl Iterator<Item = Time> {
    (0..PARTS).map(move |part| now - window + window * (2 * part + 1) / (2 * PARTS))
}

#[cfg(test)]
mod tests;

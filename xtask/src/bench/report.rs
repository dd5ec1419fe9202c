//! What a benchmark says: figures with their limits, tables, and notes; as text for the terminal, as Markdown, and as JSON.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::stats::Spread;

/// One benchmark's results.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Section {
    /// The subcommand.
    pub(super) name: Cow<'static, str>,
    /// What was measured, and how.
    pub(super) about: String,
    /// The figures.
    pub(super) figures: Vec<Figure>,
    /// Tables of what is not a figure of its own.
    pub(super) tables: Vec<Table>,
    /// What a reader has to know besides.
    pub(super) notes: Vec<String>,
}

/// One figure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Figure {
    /// What it is.
    pub(super) what: String,
    /// Its unit.
    pub(super) unit: Cow<'static, str>,
    /// Its value.
    pub(super) value: Spread,
    /// What the median must not exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<f64>,
    /// Whether it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) met: Option<bool>,
}

/// A table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Table {
    /// Its title.
    pub(super) title: String,
    /// Column headers.
    pub(super) columns: Vec<Cow<'static, str>>,
    /// Rows of as many cells.
    pub(super) rows: Vec<Vec<String>>,
}

impl Figure {
    /// Whether the limit is met, and whether the spread leaves that open.
    pub(super) fn verdict(&self) -> &'static str {
        let (Some(limit), Some(met)) = (self.limit, self.met) else { return "" };
        match (met, (self.value.low..=self.value.high).contains(&limit)) {
            (true, false) => "yes",
            (true, true) => "yes, within the spread",
            (false, false) => "NO",
            (false, true) => "NO, within the spread",
        }
    }
}

impl Section {
    /// An empty one.
    pub(super) fn new(name: &'static str, about: impl Into<String>) -> Self {
        Self { name: name.into(), about: about.into(), figures: Vec::new(), tables: Vec::new(), notes: Vec::new() }
    }

    /// Adds a figure without a limit.
    pub(super) fn figure(&mut self, what: impl Into<String>, unit: &'static str, value: Spread) {
        self.figures.push(Figure { what: what.into(), unit: unit.into(), value, limit: None, met: None });
    }

    /// Adds a figure whose median must not exceed `limit`.
    pub(super) fn limited(&mut self, what: impl Into<String>, unit: &'static str, value: Spread, limit: f64) {
        let met = Some(value.median <= limit);
        self.figures.push(Figure { what: what.into(), unit: unit.into(), value, limit: Some(limit), met });
    }

    /// Adds a note.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// For the terminal.
    pub(super) fn text(&self) -> String {
        let mut out = format!("\n==== {} ====\n{}\n", self.name, self.about);
        if !self.figures.is_empty() {
            out += &aligned(&self.rows());
        }
        for table in &self.tables {
            let _ = writeln!(out, "\n{}", table.title);
            let header = table.columns.iter().map(ToString::to_string).collect();
            out += &aligned(&[vec![header], table.rows.clone()].concat());
        }
        for note in &self.notes {
            let _ = writeln!(out, "- {note}");
        }
        out
    }

    /// For the page.
    pub(super) fn markdown(&self) -> String {
        let mut out = format!("## {}\n\n{}\n\n", self.name, self.about);
        if !self.figures.is_empty() {
            out += &piped(&self.rows());
        }
        for table in &self.tables {
            let header = table.columns.iter().map(ToString::to_string).collect();
            let _ = write!(out, "\n{}:\n\n{}", table.title, piped(&[vec![header], table.rows.clone()].concat()));
        }
        if !self.notes.is_empty() {
            out.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(out, "- {note}");
        }
        out
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let header = ["figure", "unit", "median", "quartiles", "n", "limit", "met"].map(str::to_owned).to_vec();
        let rows = self.figures.iter().map(|it| {
            let quartiles = if it.value.n > 1 {
                format!("{} to {}", number(it.value.low), number(it.value.high))
            } else {
                String::new()
            };
            vec![
                it.what.clone(),
                it.unit.to_string(),
                number(it.value.median),
                quartiles,
                it.value.n.to_string(),
                it.limit.map_or_else(String::new, number),
                it.verdict().to_owned(),
            ]
        });
        std::iter::once(header).chain(rows).collect()
    }
}

/// Three significant digits, or all before the point.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out
}

fn piped(rows: &[Vec<String>]) -> String {
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
        if i == 0 {
            let _ = writeln!(out, "|{}", "---|".repeat(row.len()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_passed_is_said_so() {
        let mut section = Section::new("overhead", "about");
        section.limited("added", "us", Spread::of(&[2.0, 3.0, 4.0]), 2.5);
        section.limited("less", "us", Spread::one(1.0), 2.5);
        let page = section.markdown();
        assert!(page.contains("| added | us | 3.00 | 2.50 to 3.50 | 3 | 2.50 | NO, within the spread |"));
        assert!(page.contains("| less | us | 1.00 |  | 1 | 2.50 | yes |"));
        assert!(section.text().contains("added   us"));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([1234.5, 12.34, 1.234, 0.1234].map(number), ["1234", "12.3", "1.23", "0.123"]);
    }
}

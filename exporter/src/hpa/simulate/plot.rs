//! A step chart for the terminal, of eighths of a character cell.

use std::fmt::Write as _;

const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A column's part of so many values.
fn part<T>(values: &[T], column: usize, width: usize) -> Option<&[T]> {
    let (from, to) = (column * values.len() / width, (column + 1) * values.len() / width);
    values.get(from..to.max(from + 1).min(values.len()))
}

/// Draws `values`, spread over `width` columns, from 0 up, and a line at the target, if there is one. A value that is none leaves a
/// gap.
pub(super) fn chart(title: &str, values: &[Option<f64>], target: Option<f64>, width: usize, height: usize) -> String {
    let most = values.iter().flatten().chain(&target).fold(0.0, |most: f64, value| most.max(*value));
    let scale = if most > 0.0 { (height * 8) as f64 / most } else { 0.0 };
    let columns: Vec<Option<usize>> = (0..width)
        .map(|column| {
            // The highest of what falls into a column: a short peak must be seen.
            let high = part(values, column, width)?
                .iter()
                .flatten()
                .fold(None, |high: Option<f64>, value| Some(high.map_or(*value, |it| it.max(*value))))?;
            Some(((high * scale).round() as usize).max(usize::from(high > 0.0)))
        })
        .collect();
    let line = target.map(|it| ((it * scale).round() as usize).max(1));
    let top = number(most);
    let margin = top.len().max(number(0.0).len());
    let mut out = format!("{title}\n");
    for row in (0..height).rev() {
        let label = if row + 1 == height {
            top.as_str()
        } else if row == 0 {
            "0"
        } else {
            ""
        };
        let _ = write!(out, "{label:>margin$} ┤");
        for column in &columns {
            let eighths = column.unwrap_or(0);
            // The line stands before what is not above it.
            let hidden = line.is_some_and(|it| (it - 1) / 8 == row && eighths <= it);
            out.push(if hidden { '╌' } else { EIGHTHS[eighths.saturating_sub(row * 8).min(8)] });
        }
        while out.ends_with(' ') {
            out.pop();
        }
        out.push('\n');
    }
    out
}

/// A line of marks below a chart, where something is so; nothing if it never is.
pub(super) fn marks(values: &[bool], most: f64, width: usize, means: &str) -> String {
    if !values.contains(&true) {
        return String::new();
    }
    let at = |column| part(values, column, width).is_some_and(|it| it.contains(&true));
    let marks: String = (0..width).map(|column| if at(column) { '×' } else { ' ' }).collect();
    let margin = number(most).len().max(1);
    format!("{:>margin$}  {}\n{:>margin$}  × {means}\n", "", marks.trim_end(), "")
}

/// A time axis for charts whose labels are as wide as `most`'s.
pub(super) fn axis(most: f64, seconds: f64, width: usize) -> String {
    let margin = number(most).len().max(1);
    let parts = if width < 60 { 2 } else { 4 };
    let mut line: Vec<char> = vec!['─'; width];
    let mut labels = String::new();
    for tick in 0..=parts {
        let column = (tick * width / parts).min(width - 1);
        if tick > 0 && tick < parts {
            line[column] = '┬';
        }
        let text = format!("{:.0} s", seconds * tick as f64 / parts as f64);
        let start = if tick == parts { width.saturating_sub(text.len()) } else { column };
        // A label that has no room is left out.
        let used = labels.chars().count();
        if start >= used + usize::from(tick > 0) {
            labels += &" ".repeat(start - used);
            labels += &text;
        }
    }
    format!("{:>margin$} └{}\n{:>margin$}  {labels}\n", "", line.iter().collect::<String>(), "")
}

fn number(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_drawn_and_a_gap_left() {
        let text = chart("replicas", &[Some(2.0), Some(2.0), None, Some(4.0)], None, 4, 2);
        assert_eq!(text, "replicas\n4 ┤   █\n0 ┤██ █\n");
        assert_eq!(chart("none", &[Some(0.0)], None, 2, 1), "none\n0 ┤\n");
    }

    #[test]
    fn the_target_is_a_line_that_what_is_above_it_breaks() {
        let values = [Some(1.0), Some(4.0), None, Some(2.0)];
        assert_eq!(chart("load", &values, Some(3.0), 4, 4), "load\n4 ┤ █\n  ┤╌█╌╌\n  ┤ █ █\n0 ┤██ █\n");
        // It is seen also where nothing comes near it.
        assert_eq!(chart("load", &[Some(1.0)], Some(8.0), 2, 2), "load\n8 ┤╌╌\n0 ┤▂▂\n");
        // And where all is in one row.
        assert_eq!(chart("load", &[Some(1.0), Some(8.0)], Some(2.0), 2, 1), "load\n0 ┤╌█\n".replace('0', "8"));
    }

    #[test]
    fn marks_are_below_their_columns_and_times_between_the_ends() {
        assert_eq!(marks(&[false, true, false, false], 8.0, 4, "away"), "    ×\n   × away\n");
        assert_eq!(marks(&[false], 8.0, 4, "away"), "");
        let axis = axis(8.0, 1200.0, 64);
        let lines: Vec<&str> = axis.lines().collect();
        assert!(lines[0].starts_with("  └") && lines[0].matches('┬').count() == 3, "{axis}");
        assert!(["0 s", "300 s", "600 s", "900 s", "1200 s"].iter().all(|it| lines[1].contains(it)), "{axis}");
        assert!(!super::axis(8.0, 1200.0, 40).contains("300 s"));
    }
}

//! A step chart for the terminal, of eighths of a character cell.

use std::fmt::Write as _;

const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws `values`, spread over `width` columns, from 0 up. A value that is none leaves a gap.
pub(super) fn chart(title: &str, values: &[Option<f64>], width: usize, height: usize) -> String {
    let most = values.iter().flatten().fold(0.0, |most: f64, value| most.max(*value));
    let scale = if most > 0.0 { (height * 8) as f64 / most } else { 0.0 };
    let columns: Vec<Option<usize>> = (0..width)
        .map(|column| {
            let (from, to) = (column * values.len() / width, ((column + 1) * values.len() / width));
            let here = values.get(from..to.max(from + 1).min(values.len()))?;
            // The highest of what falls into a column: a short peak must be seen.
            let high = here
                .iter()
                .flatten()
                .fold(None, |high: Option<f64>, value| Some(high.map_or(*value, |it| it.max(*value))))?;
            Some(((high * scale).round() as usize).max(usize::from(high > 0.0)))
        })
        .collect();
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
            out.push(EIGHTHS[column.map_or(0, |eighths| eighths.saturating_sub(row * 8).min(8))]);
        }
        while out.ends_with(' ') {
            out.pop();
        }
        out.push('\n');
    }
    out
}

/// A time axis for charts whose labels are as wide as `most`'s.
pub(super) fn axis(most: f64, seconds: f64, width: usize) -> String {
    let margin = number(most).len().max(1);
    let end = format!("{seconds:.0} s");
    format!("{:>margin$} └{}\n{:>margin$}  0 s{end:>pad$}\n", "", "─".repeat(width), "", pad = width.saturating_sub(3))
}

fn number(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_drawn_and_a_gap_left() {
        let text = chart("replicas", &[Some(2.0), Some(2.0), None, Some(4.0)], 4, 2);
        assert_eq!(text, "replicas\n4 ┤   █\n0 ┤██ █\n");
        assert_eq!(chart("none", &[Some(0.0)], 2, 1), "none\n0 ┤\n");
    }
}

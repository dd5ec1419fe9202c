//! What test runners print, counted, and the table of where a run's time went. Pure: no processes, no clock.

use std::fmt::Write as _;
use std::time::Duration;

/// What tests and checks came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) skipped: u32,
    /// Attempts that came before one that passed.
    pub(super) retried: u32,
}

/// How a test says in a line of its own that it left itself out; the test runner counts such a test as passed.
const SKIPPED: &str = "skipped: ";
/// How a test says that an attempt failed and that it tries again.
const RETRY: &str = "retry: ";

impl Tally {
    /// A check, which prints no counts, by whether it passed.
    pub(super) fn of_check(passed: bool) -> Self {
        Self { passed: u32::from(passed), failed: u32::from(!passed), ..Self::default() }
    }

    /// Takes up one line of a test runner's output.
    pub(super) fn read(&mut self, line: &str) {
        if line.starts_with(SKIPPED) {
            self.skipped += 1;
            self.passed = self.passed.saturating_sub(1);
        } else if line.starts_with(RETRY) {
            self.retried += 1;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += number_before(result, "passed");
            self.failed += number_before(result, "failed");
            self.skipped += number_before(result, "ignored");
        }
    }

    /// Adds another.
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.retried += other.retried;
    }
}

/// 7 of `ok. 7 passed; 0 failed`, for `passed`.
fn number_before(text: &str, word: &str) -> u32 {
    let mut before = text.split(';').filter_map(|part| part.trim().strip_suffix(word));
    before.find_map(|part| part.split_whitespace().last()?.parse().ok()).unwrap_or(0)
}

/// One row of the table.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) seconds: Duration,
    pub(super) tally: Tally,
    /// It ran beside the others, so that its time is in theirs.
    pub(super) beside: bool,
}

/// The table, and below it the line that test runners close with.
pub(super) fn table(rows: &[Row], whole: Duration, left_out: &[String]) -> String {
    let mut out =
        String::from("| section | seconds | passed | failed | skipped | retries |\n|---|---:|---:|---:|---:|---:|\n");
    let mut sum = Tally::default();
    for Row { name, seconds, tally, beside } in rows {
        sum.add(*tally);
        let Tally { passed, failed, skipped, retried } = tally;
        let beside = if *beside { " (beside)" } else { "" };
        let _ =
            writeln!(out, "| {name}{beside} | {} | {passed} | {failed} | {skipped} | {retried} |", seconds.as_secs());
    }
    sum.skipped += u32::try_from(left_out.len()).unwrap_or(u32::MAX);
    let Tally { passed, failed, skipped, retried } = sum;
    let _ = writeln!(out, "| all | {} | {passed} | {failed} | {skipped} | {retried} |", whole.as_secs());
    if !left_out.is_empty() {
        let _ = writeln!(
            out,
            "\nleft out (`cargo xtask test --full` runs all that the machine can): {}",
            left_out.join(", ")
        );
    }
    let _ = write!(out, "\n{passed} passed, {failed} failed, {skipped} skipped");
    out
}

#[cfg(test)]
mod tests {
    use super::{Duration, Row, Tally, table};

    fn read(text: &str) -> Tally {
        let mut tally = Tally::default();
        text.lines().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn results_of_several_binaries_add_up() {
        let text = "running 3 tests\ntest a ... ok\n\
                    test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.00s\n\
                    test result: FAILED. 40 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.13s\n";
        assert_eq!(read(text), Tally { passed: 43, failed: 2, skipped: 1, retried: 0 });
    }

    #[test]
    fn a_test_that_leaves_itself_out_has_not_passed() {
        let text = "---- a stdout ----\ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(read(text).passed, 3);
        let text = format!("{text}skipped: a needs Go\nretry: 2.3% off\n");
        assert_eq!(read(&text), Tally { passed: 2, failed: 0, skipped: 1, retried: 1 });
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(read("9 passed; 3 failed\n  test result: ok. 9 passed\nit skipped: nothing\n"), Tally::default());
    }

    #[test]
    fn the_table_ends_in_the_closing_line_and_counts_what_was_left_out() {
        let row =
            |name: &str, tally, beside| Row { name: name.to_owned(), seconds: Duration::from_secs(7), tally, beside };
        let rows = [row("clippy", Tally::of_check(true), false), row("kernel 6.1", Tally::of_check(false), true)];
        let said = table(&rows, Duration::from_secs(9), &["long::soak::soak".to_owned()]);
        assert!(said.ends_with("\n1 passed, 1 failed, 1 skipped"), "{said}");
        assert!(said.contains("| kernel 6.1 (beside) | 7 | 0 | 1 | 0 | 0 |"), "{said}");
        assert!(said.contains("long::soak::soak"), "{said}");
    }
}

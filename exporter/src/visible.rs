//! Text that a program may have made up, such as its path and its routes, made fit to be shown: it neither ends a line, nor moves a
//! terminal's cursor, nor turns the text beside it around. Knows nothing of where it is shown.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// Whether it does something instead of being seen: C0, DEL and C1; separators of lines and paragraphs; changes of direction.
fn acts(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes what is written through it as Rust does, `\n` and `\u{1b}`.
pub(crate) struct Escaped<W>(pub(crate) W);

impl<W: Write> Write for Escaped<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(acts) {
            let acting = part.chars().next_back().filter(|c| acts(*c));
            self.0.write_str(&part[..part.len() - acting.map_or(0, char::len_utf8)])?;
            if let Some(c) = acting {
                write!(self.0, "{}", c.escape_default())?;
            }
        }
        Ok(())
    }
}

/// Escapes all but the ends of lines, which the formats of `/metrics` escape themselves.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| acts(c) && c != '\n') {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            escaped.push('\n');
        }
        let _ = Escaped(&mut escaped).write_str(line);
    }
    escaped.into()
}

/// Escapes in JSON what JSON need not; ends of lines are between its tokens alone.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| acts(c) && c != '\n') {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) && c != '\n' {
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "a\nb\r\t\x1b[2J\0\x7f\u{85}\u{9b}0m\u{2028}\u{2029}\u{202e}\u{2066}é漢\\\"";

    #[test]
    fn what_acts_is_escaped_and_all_else_is_as_it_was() {
        let mut escaped = String::new();
        Escaped(&mut escaped).write_str(EVIL).unwrap();
        assert_eq!(escaped, r#"a\nb\r\t\u{1b}[2J\u{0}\u{7f}\u{85}\u{9b}0m\u{2028}\u{2029}\u{202e}\u{2066}é漢\""#);
        let mut again = String::new();
        Escaped(&mut again).write_str(&escaped).unwrap();
        assert_eq!(again, escaped);
    }

    #[test]
    fn json_means_what_it_meant() {
        let text = serde_json::to_string_pretty(&[EVIL]).unwrap();
        let escaped = json(&text);
        assert!(!escaped.contains(|c| acts(c) && c != '\n') && escaped.contains("\\u2028"), "{escaped}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&escaped).unwrap(), [EVIL]);
    }

    #[test]
    fn ends_of_lines_are_left_where_the_format_has_its_own_escape() {
        assert!(matches!(lines("GET /ordinary\nπ"), Cow::Borrowed(_)));
        assert_eq!(lines("\n/a\x07\n"), "\n/a\\u{7}\n");
    }
}

//! What the doctor found, for people and for programs.

use serde_json::json;

/// What looking at a link came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It holds, and what was seen.
    Whole(String),
    /// It was not looked at, and why.
    Passed(String),
    /// It holds, but may not be what is meant.
    Warned(String),
    /// It could not be looked at, so that nothing can be said of what lies behind it.
    Unknown(String),
    /// It is broken: what is wrong, and what to do.
    Broken(String),
}

/// A link, and what looking at it came to.
pub(super) type Finding = (&'static str, Look);

impl Look {
    /// The mark of a line, the state in JSON, and the text.
    fn parts(&self) -> (&'static str, &'static str, &str) {
        match self {
            Self::Whole(text) => ("ok    ", "ok", text),
            Self::Passed(text) => ("-     ", "skipped", text),
            Self::Warned(text) => ("warn  ", "warning", text),
            Self::Unknown(text) => ("?     ", "unknown", text),
            Self::Broken(text) => ("BROKEN", "broken", text),
        }
    }
}

/// A line for each link.
pub(super) fn text(findings: &[Finding]) -> String {
    let line = |(link, look): &Finding| {
        let (mark, _, text) = look.parts();
        [mark, "  ", link, ": ", text, "\n"].concat()
    };
    findings.iter().map(line).collect()
}

/// One object.
pub(super) fn json(namespace: &str, name: &str, findings: &[Finding]) -> String {
    let links: Vec<_> = findings
        .iter()
        .map(|(link, look)| {
            let (_, state, text) = look.parts();
            json!({"link": link, "state": state, "text": text})
        })
        .collect();
    let verdict = ["content", "broken", "unknown"][usize::from(status(findings))];
    format!("{:#}\n", json!({"hpa": format!("{namespace}/{name}"), "verdict": verdict, "links": links}))
}

/// 0 if nothing is broken, 1 if a link is, 2 if that cannot be told.
pub(super) fn status(findings: &[Finding]) -> u8 {
    if findings.iter().any(|(_, look)| matches!(look, Look::Broken(_))) {
        1
    } else if findings.iter().any(|(_, look)| matches!(look, Look::Unknown(_))) {
        2
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_link_counts_more_than_an_unknown_one_and_a_warning_for_nothing() {
        let of = |looks: &[Look]| looks.iter().map(|it| ("values", it.clone())).collect::<Vec<_>>();
        let text = || "x".to_owned();
        let (whole, passed, warned) = (Look::Whole(text()), Look::Passed(text()), Look::Warned(text()));
        let (unknown, broken) = (Look::Unknown(text()), Look::Broken(text()));
        assert_eq!(status(&of(&[whole.clone(), passed, warned])), 0);
        assert_eq!(status(&of(&[whole.clone(), unknown.clone()])), 2);
        assert_eq!(status(&of(&[unknown, broken.clone()])), 1);
        assert_eq!(super::text(&of(std::slice::from_ref(&broken))), "BROKEN  values: x\n");
        let json: serde_json::Value = serde_json::from_str(&json("shop", "web", &of(&[whole, broken]))).unwrap();
        assert_eq!((&json["hpa"], &json["verdict"]), (&"shop/web".into(), &"broken".into()));
        assert_eq!(json["links"][0], json!({"link": "values", "state": "ok", "text": "x"}));
    }
}

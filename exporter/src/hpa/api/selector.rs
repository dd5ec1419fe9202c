//! Kubernetes label selectors in their text form: `a=b,c!=d,e in (x,y),f notin (z),g,!h` (k8s.io/apimachinery,
//! pkg/labels/selector.go).

use std::collections::BTreeMap;

use thiserror::Error;

use super::spelling::{self, SpellingError};

/// The longest selector that is read, bytes.
const MAX_LENGTH: usize = 16 * 1024;

/// All requirements must hold. Without any, everything is selected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Selector(pub(crate) Vec<Requirement>);

/// What is required of one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Requirement {
    /// The label.
    pub(crate) key: String,
    /// What of it.
    pub(crate) test: Test,
}

/// A test.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Test {
    /// Is there, and one of these.
    In(Vec<String>),
    /// Is not there, or none of these.
    NotIn(Vec<String>),
    /// Is there.
    Exists,
    /// Is not there.
    Absent,
}

/// No selector.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("selector: {0}")]
pub(crate) struct SelectorError(pub(super) String);

impl From<SpellingError> for SelectorError {
    fn from(error: SpellingError) -> Self {
        Self(error.to_string())
    }
}

impl Selector {
    /// Reads one.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_LENGTH {
            return Err(SelectorError(format!("{} bytes, more than {MAX_LENGTH}", text.len())));
        }
        let mut requirements = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (requirement, after) = requirement(rest)?;
            requirements.push(requirement);
            rest = after.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(after) if !after.trim().is_empty() => after.trim_start(),
                None if rest.is_empty() => rest,
                _ => return Err(SelectorError(format!("{rest:?} follows a requirement"))),
            };
        }
        Ok(Self(requirements))
    }

    /// From an object's `matchLabels` and `matchExpressions`.
    pub(crate) fn of_parts(
        labels: Option<&BTreeMap<String, String>>,
        expressions: &[(String, String, Vec<String>)],
    ) -> Result<Self, SelectorError> {
        let equal = labels.into_iter().flatten();
        let mut requirements: Vec<_> =
            equal.map(|(key, value)| Requirement { key: key.clone(), test: Test::In(vec![value.clone()]) }).collect();
        for (key, operator, values) in expressions {
            let test = match operator.as_str() {
                "In" => Test::In(values.clone()),
                "NotIn" => Test::NotIn(values.clone()),
                "Exists" => Test::Exists,
                "DoesNotExist" => Test::Absent,
                other => return Err(SelectorError(format!("operator {other:?}"))),
            };
            requirements.push(Requirement { key: key.clone(), test });
        }
        Ok(Self(requirements))
    }

    /// The selector of figures that this one spells: routes and reasons are no values of Kubernetes labels ([`spelling`]).
    pub(crate) fn of_figures(self) -> Result<Self, SelectorError> {
        let decoded = |values: Vec<String>| values.iter().map(|it| spelling::decode(it)).collect::<Result<Vec<_>, _>>();
        let requirement = |Requirement { key, test }| {
            let test = match test {
                Test::In(values) => Test::In(decoded(values)?),
                Test::NotIn(values) => Test::NotIn(decoded(values)?),
                other => other,
            };
            Ok(Requirement { key, test })
        };
        self.0.into_iter().map(requirement).collect::<Result<_, SelectorError>>().map(Self)
    }

    /// Whether labels, asked for by name, fulfil it.
    pub(crate) fn matches<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.0.iter().all(|it| {
            let value = label(&it.key);
            match &it.test {
                Test::In(values) => value.is_some_and(|value| values.iter().any(|it| spelling::means(it, value))),
                Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|it| !spelling::means(it, value))),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        })
    }
}

fn requirement(text: &str) -> Result<(Requirement, &str), SelectorError> {
    if let Some(after) = text.strip_prefix('!') {
        let (key, rest) = key(after.trim_start())?;
        return Ok((Requirement { key, test: Test::Absent }, rest));
    }
    let (key, rest) = key(text)?;
    let rest = rest.trim_start();
    let word = |sign: &str| rest.strip_prefix(sign).filter(|rest| rest.starts_with([' ', '(']));
    let (test, rest) = if let Some(after) = word("in") {
        let (values, rest) = list(after)?;
        (Test::In(values), rest)
    } else if let Some(after) = word("notin") {
        let (values, rest) = list(after)?;
        (Test::NotIn(values), rest)
    } else if let Some(after) = rest.strip_prefix("!=") {
        let (value, rest) = value(after);
        (Test::NotIn(vec![value]), rest)
    } else if let Some(after) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        let (value, rest) = value(after);
        (Test::In(vec![value]), rest)
    } else {
        (Test::Exists, rest)
    };
    Ok((Requirement { key, test }, rest))
}

fn key(text: &str) -> Result<(String, &str), SelectorError> {
    let end = text.find(['=', '!', ',', '(', ')', ' ', '\t']).unwrap_or(text.len());
    let fits = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.' | '/');
    if end == 0 {
        Err(SelectorError(format!("a label's name was expected at {text:?}")))
    } else if !text[..end].chars().all(fits) {
        // `a>5` would choose by a label of that name, which nothing has.
        Err(SelectorError(format!(
            "{:?} is no label's name, or asks for more or less, which is not to be had",
            &text[..end]
        )))
    } else {
        Ok((text[..end].to_owned(), &text[end..]))
    }
}

fn value(text: &str) -> (String, &str) {
    let end = text.find(',').unwrap_or(text.len());
    (text[..end].trim().to_owned(), &text[end..])
}

fn list(text: &str) -> Result<(Vec<String>, &str), SelectorError> {
    let inside = text.trim_start().strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let Some((values, rest)) = inside else { return Err(SelectorError(format!("(values) were expected at {text:?}"))) };
    Ok((values.split(',').map(|it| it.trim().to_owned()).collect(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str) -> bool {
        let label = |name: &str| match name {
            "app" => Some("shop"),
            "example.com/tier" => Some("web"),
            "empty" => Some(""),
            _ => None,
        };
        Selector::parse(selector).unwrap().matches(label)
    }

    #[test]
    fn every_form_is_read() {
        for yes in [
            "",
            "app=shop",
            "app==shop",
            "app = shop , example.com/tier=web",
            "app!=x",
            "none!=x",
            "app in (x, shop)",
            "app in(shop)",
            "app notin (x,y)",
            "none notin (x)",
            "app",
            "!none",
            "! none",
            "app,!none,example.com/tier in (web)",
            "empty=",
        ] {
            assert!(selects(yes), "{yes}");
        }
        for no in [
            "app=x",
            "none=x",
            "app!=shop",
            "app in (x)",
            "none in (x)",
            "app notin (shop)",
            "none",
            "!app",
            "app=shop,none",
            "app=",
        ] {
            assert!(!selects(no), "{no}");
        }
    }

    #[test]
    fn figures_are_chosen_by_values_that_no_label_can_have() {
        let route = "/orders/{id}";
        let selects = |text: &str| {
            let selector = Selector::parse(text).unwrap().of_figures()?;
            Ok::<bool, SelectorError>(selector.matches(|name| (name == "http_route").then_some(route)))
        };
        for yes in ["http_route=x..orders._7bid_7d", "http_route in (/, x..orders._7bid_7d)", "http_route=/orders/{id}"]
        {
            assert_eq!(selects(yes), Ok(true), "{yes}");
        }
        assert_eq!(selects("http_route!=x..orders._7bid_7d"), Ok(false));
        assert_eq!(selects("http_route=x..orders"), Ok(false));
        assert!(selects("http_route=x..orders_7").unwrap_err().to_string().contains("--encode"));
    }

    #[test]
    fn what_is_none_is_refused() {
        for wrong in [
            "=",
            ",",
            "app,",
            "app in",
            "app in x",
            "app in (x",
            "app)x",
            "a b",
            "!",
            "app in (x) y",
            "a>5",
            "a<5,b",
            "a*=x",
        ] {
            assert!(Selector::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Selector::parse(&"a,".repeat(20_000)).unwrap_err().to_string().contains("bytes"));
    }
}

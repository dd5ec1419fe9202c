//! Names of metrics. One with labels in braces between colons, as `rps:{http_route}`, stands for a metric of each value of that
//! label; a value is spelled as an HPA's selector has it, in which there is no colon, so that a name has one meaning. Pure.

use crate::hpa::api::{
    selector::{Requirement, Test},
    spelling,
};

/// The longest name.
const MOST: usize = 253;

/// A name as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Label(String),
}

impl Name {
    /// Reads one; none where it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fits = |it: &str| {
            !it.is_empty() && it.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '_' | '-' | '.'))
        };
        let part = |part: &str| match part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(label) => fits(label).then(|| Part::Label(label.to_owned())),
            None => fits(part).then(|| Part::Text(part.to_owned())),
        };
        let parts: Vec<Part> = text.split(':').map(part).collect::<Option<_>>()?;
        let begins = matches!(parts.first(), Some(Part::Text(_)));
        let twice = |(index, part): (usize, &Part)| matches!(part, Part::Label(_)) && parts[..index].contains(part);
        (begins && !parts.iter().enumerate().any(twice) && text.len() <= MOST && !matches!(text, "." | ".."))
            .then_some(Self(parts))
    }

    /// The labels that it has a metric for each value of.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|it| if let Part::Label(label) = it { Some(label.as_str()) } else { None })
    }

    /// Whether it stands for several.
    pub(crate) fn is_template(&self) -> bool {
        self.labels().next().is_some()
    }

    /// What a name that is asked for chooses by; none if it is none of this.
    pub(crate) fn chosen(&self, asked: &str) -> Option<Vec<Requirement>> {
        let mut chosen = Vec::new();
        let mut asked = asked.split(':');
        for part in &self.0 {
            let value = asked.next()?;
            match part {
                Part::Text(text) if text == value => {}
                Part::Text(_) => return None,
                Part::Label(_) if value.is_empty() => return None,
                Part::Label(label) => {
                    let test = Test::In(vec![spelling::decode(value).ok()?]);
                    chosen.push(Requirement { key: label.clone(), test });
                }
            }
        }
        asked.next().is_none().then_some(chosen)
    }

    /// The name of its metric of these values of its labels.
    pub(crate) fn spelled(&self, value: impl Fn(&str) -> Option<String>) -> Option<String> {
        let part = |part: &Part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Label(label) => value(label).filter(|it| !it.is_empty()).map(|it| spelling::encode(&it)),
        };
        self.0.iter().map(part).collect::<Option<Vec<_>>>().map(|parts| parts.join(":"))
    }

    /// Whether some name could be one of both.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let same = |(one, other): (&Part, &Part)| match (one, other) {
            (Part::Text(one), Part::Text(other)) => one == other,
            _ => true,
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_a_metric_of_each_value_and_no_name_is_of_two_values() {
        let name = Name::parse("rps:{http_request_method}:{http_route}").unwrap();
        let of = |method: &str, route: &str| {
            name.spelled(|label| Some(if label == "http_route" { route } else { method }.to_owned())).unwrap()
        };
        assert_eq!(of("GET", "/orders/{id}"), "rps:GET:x..orders._7bid_7d");
        assert_ne!(of("GET", "/a:b"), of("GET", "/a/b"));
        let chosen = name.chosen("rps:GET:x..orders._7bid_7d").unwrap();
        assert_eq!(chosen[0], Requirement { key: "http_request_method".into(), test: Test::In(vec!["GET".into()]) });
        assert_eq!(chosen[1].test, Test::In(vec!["/orders/{id}".into()]));
        for other in ["rps:GET", "rps:GET:a:b", "rpt:GET:a", "rps::a", "rps:GET:x._zz"] {
            assert_eq!(name.chosen(other), None, "{other}");
        }
        assert_eq!(name.spelled(|_| Some(String::new())), None);
    }

    #[test]
    fn names_that_could_be_taken_for_each_other_meet() {
        let meet = |one, other| Name::parse(one).unwrap().meets(&Name::parse(other).unwrap());
        assert!(meet("rps:{a}", "rps:{b}") && meet("rps:{a}", "rps:select"));
        assert!(!meet("rps:{a}", "rps") && !meet("rps:{a}", "rpt:{a}") && !meet("rps:{a}", "rps:{a}:{b}"));
    }

    #[test]
    fn what_is_no_name() {
        for wrong in ["", "a b", "rps:", "{a}", "a:{b", "a:x{b}", "a/b", ".", "..", "a:{}", "a%", "a:{b}:{b}"] {
            assert_eq!(Name::parse(wrong), None, "{wrong}");
        }
    }
}

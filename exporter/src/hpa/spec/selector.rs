//! A label selector as an HPA's metric has it (metav1.LabelSelector): what the HPA controller refuses of it, and its text form,
//! as it goes into a query. Knows nothing of who answers.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

/// The selector. Empty: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct LabelSelector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

impl LabelSelector {
    /// Of an object's JSON; none of what is no selector.
    pub(crate) fn of(json: &serde_json::Value) -> Option<Self> {
        if json.is_null() { Some(Self::default()) } else { serde_json::from_value(json.clone()).ok() }
    }

    /// Whether it selects everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// What the controller refuses of it (`metav1.LabelSelectorAsSelector`), which the API server takes all the same: a key that
    /// is no label's, a value that is no label's value, an operator that does not fit.
    pub(crate) fn refused(&self) -> Option<String> {
        let labels = self.match_labels.iter().find_map(|(key, value)| of_key(key).or_else(|| of_value(key, value)));
        labels.or_else(|| self.match_expressions.iter().find_map(Expression::refused))
    }

    /// The values that a label must have one of; none if it may have any.
    pub(crate) fn values_of(&self, key: &str) -> Option<Vec<&str>> {
        let equal = self.match_labels.get(key).map(|it| vec![it.as_str()]);
        let listed = || {
            let it = self.match_expressions.iter().find(|it| it.key == key && it.operator == "In")?;
            Some(it.values.iter().map(String::as_str).collect())
        };
        equal.or_else(listed)
    }

    /// The labels that must be there, each with the values that it may have.
    pub(crate) fn equal(&self) -> Vec<(&str, Vec<&str>)> {
        let labels = self.match_labels.iter().map(|(key, value)| (key.as_str(), vec![value.as_str()]));
        let listed = self.match_expressions.iter().filter(|it| it.operator == "In");
        labels.chain(listed.map(|it| (it.key.as_str(), it.values.iter().map(String::as_str).collect()))).collect()
    }

    /// As Prometheus writes it, `{a="x",b=~"y|z"}`; none of what asks for more than values that a label may have.
    pub(crate) fn as_matchers(&self) -> Option<String> {
        let equal = self.equal();
        let matcher = |(key, values): &(&str, Vec<&str>)| match values.as_slice() {
            [value] => format!("{key}=\"{value}\""),
            values => format!("{key}=~\"{}\"", values.join("|")),
        };
        let whole = equal.len() == self.match_labels.len() + self.match_expressions.len();
        whole.then(|| format!("{{{}}}", equal.iter().map(matcher).collect::<Vec<_>>().join(",")))
    }

    /// Whether these labels fulfil all of `matchLabels`, of which there is one at least, and nothing else is asked for.
    pub(crate) fn is_within(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.match_labels.is_empty()
            && self.match_expressions.is_empty()
            && self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The same without these labels.
    pub(crate) fn without(&self, keys: &[&str]) -> Self {
        let mut rest = self.clone();
        rest.match_labels.retain(|key, _| !keys.contains(&key.as_str()));
        rest.match_expressions.retain(|it| !keys.contains(&it.key.as_str()));
        rest
    }
}

impl Expression {
    fn refused(&self) -> Option<String> {
        let Self { key, operator, values } = self;
        let operator_fits = match operator.as_str() {
            "In" | "NotIn" if values.is_empty() => Some(format!("{key}: operator {operator} needs values")),
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                Some(format!("{key}: operator {operator} has no values"))
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => None,
            other => Some(format!("{key}: {other:?} is none of In, NotIn, Exists and DoesNotExist")),
        };
        of_key(key).or(operator_fits).or_else(|| values.iter().find_map(|value| of_value(key, value)))
    }
}

/// In the form of a query's `labelSelector`.
impl fmt::Display for LabelSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        parts.extend(self.match_expressions.iter().map(
            |Expression { key, operator, values }| match operator.as_str() {
                "In" => format!("{key} in ({})", values.join(",")),
                "NotIn" => format!("{key} notin ({})", values.join(",")),
                "DoesNotExist" => format!("!{key}"),
                _ => key.clone(),
            },
        ));
        formatter.write_str(&parts.join(","))
    }
}

/// Letters, digits, `-`, `_` and `.`, of which the first and the last are letters or digits; at most 63 of them
/// (k8s.io/apimachinery, pkg/util/validation).
fn is_name(text: &str) -> bool {
    let edge = |it: Option<char>| it.is_some_and(|it| it.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.'))
}

fn of_value(key: &str, value: &str) -> Option<String> {
    let fits = value.is_empty() || is_name(value);
    (!fits).then(|| {
        format!("{key}: {value:?} is no label value: at most 63 letters, digits, -, _ and ., no / and no space")
    })
}

fn of_key(key: &str) -> Option<String> {
    let domain = |it: &str| {
        !it.is_empty() && it.len() <= 253 && it.split('.').all(|part| is_name(part) && !part.contains(['_', '.']))
    };
    let fits = key.rsplit_once('/').map_or_else(|| is_name(key), |(prefix, name)| domain(prefix) && is_name(name));
    (!fits).then(|| format!("{key:?} is no label's name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(yaml: &str) -> LabelSelector {
        serde_norway::from_str(yaml).unwrap()
    }

    #[test]
    fn the_text_form_has_expressions_too() {
        let all = "{matchLabels: {b: x, a: y}, matchExpressions: [{key: c, operator: In, values: ['500', '503']}, {key: d, \
                   operator: NotIn, values: [z]}, {key: e, operator: Exists}, {key: f, operator: DoesNotExist}]}";
        assert_eq!(selector(all).to_string(), "a=y,b=x,c in (500,503),d notin (z),e,!f");
        assert_eq!(selector(all).refused(), None);
        assert_eq!(selector(all).values_of("c"), Some(vec!["500", "503"]));
        assert!(selector("{}").is_empty());
        assert_eq!(selector(all).as_matchers(), None);
        let values = "{matchLabels: {a: x}, matchExpressions: [{key: c, operator: In, values: ['500', '503']}]}";
        assert_eq!(selector(values).as_matchers().as_deref(), Some("{a=\"x\",c=~\"500|503\"}"));
    }

    #[test]
    fn what_is_no_label_value_is_refused_as_by_the_controller() {
        let refused = |yaml: &str| selector(yaml).refused().unwrap_or_default();
        let long = format!("{{matchLabels: {{a: {}}}}}", "x".repeat(64));
        for wrong in [
            "{matchLabels: {http_route: '/orders/{id}'}}",
            "{matchLabels: {reason: chan receive}}",
            "{matchLabels: {a: -x}}",
            "{matchExpressions: [{key: http_route, operator: In, values: [ok, /a]}]}",
            "{matchExpressions: [{key: a, operator: In}]}",
            "{matchExpressions: [{key: a, operator: Exists, values: [x]}]}",
            "{matchExpressions: [{key: a, operator: Equals, values: [x]}]}",
            "{matchLabels: {'a b': x}}",
            "{matchLabels: {'/a': x}}",
            &long,
        ] {
            assert!(!refused(wrong).is_empty(), "{wrong}");
        }
        assert!(refused("{matchLabels: {http_route: /}}").contains("http_route: \"/\" is no label value"));
        for right in [
            "{matchLabels: {a: ''}}",
            "{matchLabels: {scaledobject.keda.sh/name: shop}}",
            "{matchLabels: {a: A.b_c-9}}",
        ] {
            assert_eq!(refused(right), "", "{right}");
        }
    }
}

//! What a trigger's metadata asks for, as KEDA sends it. Pure; knows nothing of gRPC.

use std::{collections::HashMap, str::FromStr};

/// What KEDA puts behind a key whose value it has from the scaled container's environment.
const FROM_ENV: &str = "FromEnv";

/// Names of what a value must be above for something to be active.
const ACTIVATIONS: [&str; 5] =
    ["activation", "activationTarget", "activationThreshold", "activationValue", "activationTargetValue"];

/// What a trigger's metadata asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Trigger {
    pub(super) metric: String,
    pub(super) selector: String,
    pub(super) target: f64,
    pub(super) activation: f64,
}

impl Trigger {
    pub(super) fn of(metadata: &HashMap<String, String>) -> Result<Self, String> {
        let wanted = |key: &str, what: &str| {
            let given = one_of(metadata, |name| name == key)?;
            let (_, value) = given.ok_or_else(|| format!("the trigger's metadata lacks {key:?}: {what}"))?;
            Ok::<_, String>(value.to_owned())
        };
        let trigger = Self {
            metric: wanted("metric", "the name of a metric of `gopulse metrics-api --table`")?,
            selector: wanted("selector", "what to look at, as deployment=shop, service=shop or app=shop")?,
            target: number("target", &wanted("target", "the value to hold, as 50")?)?,
            activation: activation(metadata)?,
        };
        // KEDA would scale on everything in the namespace.
        if trigger.selector.trim().is_empty() {
            return Err("the trigger's selector is empty: name what to look at, as deployment=shop".to_owned());
        }
        if trigger.target <= 0.0 {
            Err(format!("target is {}: it must be positive", trigger.target))
        } else {
            Ok(trigger)
        }
    }
}

/// Above which value something is to be done. Scalers of KEDA's own have it by several names; a name that is none of them would be
/// as if nothing was said, and is refused.
fn activation(metadata: &HashMap<String, String>) -> Result<f64, String> {
    match one_of(metadata, |name| name.to_ascii_lowercase().starts_with("activation"))? {
        None => Ok(0.0),
        Some((key, text)) if ACTIVATIONS.contains(&key) => number(key, text),
        Some((key, _)) => Err(format!("the trigger's metadata has {key:?}: it is one of {}", ACTIVATIONS.join(", "))),
    }
}

/// The one entry of such a name, by the name that it has in the trigger without `FromEnv`, and its value.
fn one_of(metadata: &HashMap<String, String>, is: impl Fn(&str) -> bool) -> Result<Option<(&str, &str)>, String> {
    let name = |key: &'_ String| key.strip_suffix(FROM_ENV).unwrap_or(key).len();
    let mut given: Vec<(&String, &String)> = metadata.iter().filter(|(key, _)| is(&key[..name(key)])).collect();
    given.sort_unstable();
    match given[..] {
        [] => Ok(None),
        [(key, value)] => Ok(Some((&key[..name(key)], value))),
        _ => {
            let keys: Vec<&str> = given.iter().map(|(key, _)| key.as_str()).collect();
            Err(format!("the trigger's metadata says one thing more than once: {}", keys.join(", ")))
        }
    }
}

fn number(key: &str, text: &str) -> Result<f64, String> {
    f64::from_str(text.trim())
        .ok()
        .filter(|it| it.is_finite())
        .ok_or_else(|| format!("{key} is {text:?}: it must be a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(metadata: &[(&str, &str)]) -> Result<Trigger, String> {
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Trigger::of(&metadata)
    }

    #[test]
    fn metadata_is_read_and_what_lacks_is_named() {
        let full = [("metric", "rps"), ("selector", "deployment=shop"), ("target", "50"), ("activation", "0.5")];
        assert_eq!(
            trigger(&full).unwrap(),
            Trigger { metric: "rps".into(), selector: "deployment=shop".into(), target: 50.0, activation: 0.5 }
        );
        for key in ACTIVATIONS {
            let spelled = [("metric", "rps"), ("selector", "a=b"), ("target", "50"), (key, "0.5")];
            assert_eq!(trigger(&spelled).unwrap().activation.to_bits(), 0.5_f64.to_bits(), "{key}");
        }
        let unknown = [("metric", "rps"), ("selector", "a=b"), ("target", "50"), ("ActivationLagThreshold", "0.5")];
        assert!(trigger(&unknown).unwrap_err().contains("activationThreshold"));
        let twice = [&full[..], &[("activationTarget", "3")]].concat();
        assert!(trigger(&twice).unwrap_err().contains("more than once"));
        let from_env =
            [("metric", "rps"), ("selectorFromEnv", "a=b"), ("targetFromEnv", "50"), ("activationFromEnv", "2")];
        let of_env = trigger(&from_env).unwrap();
        assert_eq!((of_env.selector.as_str(), of_env.target, of_env.activation), ("a=b", 50.0, 2.0));
        let both = [&full[..], &[("targetFromEnv", "3")]].concat();
        assert!(trigger(&both).unwrap_err().contains("target, targetFromEnv"));
        assert!(trigger(&full[1..]).unwrap_err().contains("\"metric\""));
        assert!(trigger(&[("metric", "rps"), ("selector", " "), ("target", "1")]).unwrap_err().contains("empty"));
        assert!(trigger(&[("metric", "rps"), ("selector", "a=b"), ("target", "many")]).unwrap_err().contains("number"));
        assert!(trigger(&[("metric", "rps"), ("selector", "a=b"), ("target", "0")]).unwrap_err().contains("positive"));
    }
}

//! How the value of a figure's label is spelled where Kubernetes takes values of labels alone (an HPA's `metric.selector`: at most
//! 63 letters, digits, `-`, `_` and `.`, apimachinery's `IsValidLabelValue`), and in the names of metrics that are one for each
//! route. No two values have one spelling. Pure.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};
use thiserror::Error;

/// The longest value of a label (apimachinery, pkg/util/validation: `LabelValueMaxLength`).
const MOST: usize = 63;
/// Begins a value that is escaped: `.` is `/`, `_` and two hexadecimal digits are a byte, all else is itself.
const ESCAPED: &str = "x.";
/// Begins the digest of a value that is too long to be escaped: 20 bytes of its SHA-256.
const DIGEST: &str = "sha256.";
const DIGEST_BYTES: usize = 20;

/// What looks spelled and is not.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no value as `gopulse metrics-api --encode VALUE` spells it: {1}")]
pub(crate) struct SpellingError(String, &'static str);

/// Whether Kubernetes takes it as a label's value.
fn is_label_value(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MOST
        && bytes.iter().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(it))
        && ends(bytes.first())
        && ends(bytes.last())
}

/// A value as Kubernetes takes it: itself where it is one that it takes, else escaped, or its digest where that is too long.
pub(crate) fn encode(value: &str) -> String {
    if is_label_value(value) && !value.starts_with(ESCAPED) && !value.starts_with(DIGEST) {
        return value.to_owned();
    }
    let mut spelled = ESCAPED.to_owned();
    let last = value.len().saturating_sub(1);
    for (index, byte) in value.bytes().enumerate() {
        match byte {
            b'/' if index != last => spelled.push('.'),
            b'-' if index != last => spelled.push('-'),
            _ if byte.is_ascii_alphanumeric() => spelled.push(char::from(byte)),
            _ => drop(write!(spelled, "_{byte:02x}")),
        }
    }
    if spelled.len() <= MOST { spelled } else { digested(value) }
}

/// What a spelling is of. The digest of a value stays what it is: [`means`] holds it against values.
pub(crate) fn decode(spelled: &str) -> Result<String, SpellingError> {
    let Some(escaped) = spelled.strip_prefix(ESCAPED) else { return Ok(spelled.to_owned()) };
    // With another sign it cannot be meant as one: KEDA's selectors and `kubectl get --raw` take any text.
    if !is_label_value(spelled) {
        return Ok(spelled.to_owned());
    }
    let wrong = |why| SpellingError(spelled.to_owned(), why);
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'.', _) => bytes.push(b'/'),
            (b'_', [high, low, after @ ..]) => {
                let hex = |byte: &u8| char::from(*byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
                let (Some(high), Some(low)) = (hex(high), hex(low)) else {
                    return Err(wrong("after _ two of 0 to 9 and a to f are expected"));
                };
                bytes.push((high * 16 + low) as u8);
                rest = after;
            }
            (b'_', _) => return Err(wrong("after _ two of 0 to 9 and a to f are expected")),
            _ => bytes.push(*first),
        }
    }
    let value = String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))?;
    if encode(&value) == spelled { Ok(value) } else { Err(wrong("another spelling is that of its value")) }
}

/// Whether a decoded spelling means a value.
pub(crate) fn means(decoded: &str, value: &str) -> bool {
    decoded == value
        || (decoded.starts_with(DIGEST)
            && decoded.len() == DIGEST.len() + 2 * DIGEST_BYTES
            && digested(value) == decoded)
}

fn digested(value: &str) -> String {
    let digest = digest(&SHA256, value.as_bytes());
    digest.as_ref().iter().take(DIGEST_BYTES).fold(DIGEST.to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long enough that its escapes do not fit.
    const LONG: &str = "/api/v1/organizations/{organization_id}/projects/{project_id}/members";

    #[test]
    fn every_value_has_a_spelling_of_its_own_that_kubernetes_takes() {
        for (value, spelled) in [
            ("/orders/{id}", "x..orders._7bid_7d"),
            ("/", "x._2f"),
            ("/items/", "x..items_2f"),
            ("/a-b/c_d.e", "x..a-b.c_5fd_2ee"),
            ("/dash-", "x..dash_2d"),
            ("/files/{path...}", "x..files._7bpath_2e_2e_2e_7d"),
            ("/caf\u{e9}", "x..caf_c3_a9"),
            ("chan receive", "x.chan_20receive"),
            ("_overflow", "x._5foverflow"),
            ("x.y", "x.x_2ey"),
            ("sha256.0", "x.sha256_2e0"),
            ("", ""),
            ("select", "select"),
            ("503", "503"),
        ] {
            assert_eq!(encode(value), spelled);
            assert!(is_label_value(spelled), "{spelled}");
            assert_eq!(decode(spelled).as_deref(), Ok(value), "{spelled}");
        }
        let digest = encode(LONG);
        assert!(digest.starts_with("sha256.") && is_label_value(&digest), "{digest}");
        assert!(means(&decode(&digest).unwrap(), LONG) && !means(&digest, "/") && means("/", "/"));
        assert_ne!(digest, encode(&format!("{LONG}/")));
    }

    #[test]
    fn what_is_spelled_wrongly_is_refused_and_what_no_label_could_be_is_meant_as_it_is() {
        for wrong in ["x.orders_zz1", "x.a_2", "x.a_2F", "x.a_62c", "x._ff1", "x.plain"] {
            assert!(decode(wrong).is_err(), "{wrong}");
        }
        for itself in ["/orders/{id}", "x./a", "chan receive", "200"] {
            assert_eq!(decode(itself).as_deref(), Ok(itself));
        }
    }
}

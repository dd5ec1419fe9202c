//! Which certificate authorities are published while certificates change: those before stand beside the new ones until every
//! replica serves by the new ones. Pure but for validity, which is held against the clock; knows nothing of what they sign.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::certs::is_valid;

/// For how long an authority stands that is wanted no more, or was put there by somebody else: kubelets write a changed Secret into
/// their pods' volumes within two minutes, each at another time.
pub(crate) const GRACE: Duration = Duration::from_mins(5);

/// The authorities of one name, as they are published.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// When each was last wanted from here.
    wanted: BTreeMap<String, Instant>,
    /// When each was first seen published that was never wanted from here: another replica may be ahead.
    seen: BTreeMap<String, Instant>,
}

impl Trust {
    /// What is to be published, PEM: what is wanted first, then what was wanted within [`GRACE`], then what others have published
    /// within it. None if `wanted` has no certificate.
    pub(crate) fn publish<'a>(
        &mut self,
        wanted: &str,
        published: impl IntoIterator<Item = &'a str>,
        now: Instant,
    ) -> Option<String> {
        let mut all = certificates(wanted);
        if all.is_empty() {
            return None;
        }
        self.wanted.extend(all.iter().map(|it| (it.clone(), now)));
        let published: Vec<String> = published.into_iter().flat_map(certificates).collect();
        self.seen.retain(|it, _| published.contains(it));
        for certificate in published {
            self.seen.entry(certificate).or_insert(now);
        }
        for known in [&mut self.wanted, &mut self.seen] {
            known.retain(|certificate, at| now.saturating_duration_since(*at) < GRACE && is_valid(certificate));
            for certificate in known.keys() {
                if !all.contains(certificate) {
                    all.push(certificate.clone());
                }
            }
        }
        Some(all.concat())
    }
}

/// Whether two bundles have the same certificates.
pub(crate) fn same(left: &str, right: &str) -> bool {
    let sorted = |pem: &str| {
        let mut all = certificates(pem);
        all.sort();
        all.dedup();
        all
    };
    sorted(left) == sorted(right)
}

/// The certificates of a bundle, each a PEM block with its end of line. What is between them is left out.
pub(crate) fn certificates(pem: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let blocks = pem.split(BEGIN).skip(1).filter_map(|rest| rest.split_once(END));
    // Ends of lines differ by who wrote it.
    let lines = |body: &str| body.split_whitespace().collect::<Vec<_>>().join("\n");
    blocks.map(|(body, _)| format!("{BEGIN}\n{}\n{END}\n", lines(body))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> String {
        super::super::certs::make("api", "gopulse", Duration::from_hours(1)).unwrap().ca.unwrap()
    }

    #[test]
    fn the_authority_before_stands_for_a_while() {
        let (old, new, start) = (authority(), authority(), Instant::now());
        let mut trust = Trust::default();
        assert!(same(&trust.publish(&old, [], start).unwrap(), &old));
        let changed = start + Duration::from_hours(2);
        assert!(same(&trust.publish(&old, [&*old], changed).unwrap(), &old), "wanted until now");
        let both = trust.publish(&new, [&*old], changed).unwrap();
        assert!(same(&both, &format!("{old}{new}")) && both.starts_with(new.trim_end()));
        let later = changed + GRACE - Duration::from_secs(1);
        assert!(same(&trust.publish(&new, [&*both], later).unwrap(), &both));
        assert!(same(&trust.publish(&new, [&*both], changed + GRACE).unwrap(), &new));
    }

    #[test]
    fn what_another_replica_published_stands_for_a_while() {
        let (old, new, start) = (authority(), authority(), Instant::now());
        // This one has not read the new certificate yet; the other has published it.
        let mut behind = Trust::default();
        behind.publish(&old, [&*old], start);
        let there = format!("{new}{old}");
        assert!(same(&behind.publish(&old, [&*there], start + GRACE).unwrap(), &there), "seen just now");
        let both = behind.publish(&old, [&*there], start + 2 * GRACE - Duration::from_secs(1)).unwrap();
        assert!(same(&both, &there));
        assert!(same(&behind.publish(&old, [&*there], start + 2 * GRACE).unwrap(), &old), "nobody else's for ever");
    }

    #[test]
    fn bundles_are_sets_of_certificates() {
        let (a, b) = (authority(), authority());
        assert!(same(&format!("{a}{b}"), &format!("# of a\n{b}\n\n{a}{a}")));
        assert!(!same(&a, &b) && !same(&a, ""));
        assert_eq!(Trust::default().publish("nothing", [&*a], Instant::now()), None);
        let ended = super::super::certs::make("api", "gopulse", Duration::ZERO).unwrap().ca.unwrap();
        assert!(same(&Trust::default().publish(&a, [&*ended], Instant::now()).unwrap(), &a), "one that has ended goes");
    }
}

//! Texts of series: read from the kernel once each, made into label values as their families say, and folded by a pod's own templates.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use exporter_ebpf::key::{Family, OfTarget as _, SeriesKey, TextKey, text_kind};
use instruments::{OVERFLOW, Shown, describe};

use crate::{kernel::Maps, visible};

/// Label values by text.
#[derive(Default)]
pub(super) struct Routes {
    known: HashMap<TextKey, Texts>,
    /// Routes of targets with templates, which are limited here: the kernel side tells more apart for them.
    folded: HashMap<u32, HashSet<Arc<str>>>,
}

/// What a target's author says of its routes.
#[derive(Clone, Copy)]
pub(super) struct Templates<'t> {
    /// As `/users/{id}`: a segment in braces, or `*`, stands for any one segment; `{name...}` or `**` at the end for all that
    /// follow.
    pub(super) templates: &'t [String],
    /// Most routes of the target.
    pub(super) max_routes: u32,
}

/// A series' text, and the other one where its family has two.
pub(super) type Texts = (Option<Arc<str>>, Option<Arc<str>>);

impl Routes {
    /// The texts of a series.
    pub(super) fn label(&mut self, series: &SeriesKey, maps: &Maps, by: Templates<'_>) -> Texts {
        self.known_or_read(series, maps, by).unwrap_or_default()
    }

    fn known_or_read(&mut self, series: &SeriesKey, maps: &Maps, by: Templates<'_>) -> Option<Texts> {
        match series.text_kind {
            text_kind::NONE => None,
            text_kind::OVERFLOW | text_kind::SERIES_OVERFLOW => Some((Some(OVERFLOW.into()), None)),
            _ => {
                let key = series.text_key();
                if let Some(label) = self.known.get(&key) {
                    return Some(label.clone());
                }
                let family = describe(Family::of_number(key.family)?);
                let Shown { text, second, is_path } = (family.text)(&key, &|key| maps.texts.get(key))?;
                let text = visible::lines(&text).into_owned();
                let label: Arc<str> = if is_path && !by.templates.is_empty() {
                    self.folded(series.target(), text, by)
                } else {
                    text.into()
                };
                let second = second.map(|it| visible::lines(&it).into());
                let texts = (Some(label), second);
                self.known.insert(key, texts.clone());
                Some(texts)
            }
        }
    }

    fn folded(&mut self, target: u32, path: String, by: Templates<'_>) -> Arc<str> {
        let label = by.templates.iter().find(|template| matches(template, &path)).cloned().unwrap_or(path);
        let known = self.folded.entry(target).or_default();
        if let Some(label) = known.get(label.as_str()) {
            return label.clone();
        }
        if known.len() >= by.max_routes as usize {
            return OVERFLOW.into();
        }
        let label: Arc<str> = label.into();
        known.insert(label.clone());
        label
    }

    /// Forgets what dead targets had.
    pub(super) fn forget(&mut self, dead: &HashSet<u32>) {
        self.known.retain(|key, _| !dead.contains(&key.target()));
        self.folded.retain(|target, _| !dead.contains(target));
    }
}

/// Whether a path is one of a template's.
fn matches(template: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for part in template.split('/') {
        if part == "**" || (part.starts_with('{') && part.ends_with("...}")) {
            return segments.next().is_some();
        }
        let any = part == "*" || (part.starts_with('{') && part.ends_with('}'));
        match segments.next() {
            Some(segment) if segment == part || (any && !segment.is_empty()) => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_whole_paths() {
        for (template, path, expect) in [
            ("/users/{id}", "/users/alice", true),
            ("/users/{id}", "/users/{id}", true),
            ("/users/{id}", "/users/", false),
            ("/users/{id}", "/users/a/b", false),
            ("/users/*/orders", "/users/a/orders", true),
            ("/files/{path...}", "/files/a/b/c", true),
            ("/files/**", "/files", false),
            ("/", "/", true),
            ("/a", "/ab", false),
        ] {
            assert_eq!(matches(template, path), expect, "{template} {path}");
        }
    }

    #[test]
    fn what_no_template_matches_is_limited() {
        let mut routes = Routes::default();
        let templates = ["/users/{id}".to_owned()];
        let by = Templates { templates: &templates, max_routes: 2 };
        let mut fold = |path: &str| routes.folded(1, path.to_owned(), by).to_string();
        assert_eq!(fold("/users/alice"), "/users/{id}");
        assert_eq!(fold("/users/bob"), "/users/{id}");
        assert_eq!(fold("/x"), "/x");
        assert_eq!(fold("/y"), OVERFLOW);
        assert_eq!(fold("/users/carol"), "/users/{id}");
    }
}

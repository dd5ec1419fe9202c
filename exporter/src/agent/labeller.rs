//! From a series' key to its labels. Knows nothing of what was counted.

use std::sync::{MutexGuard, PoisonError};

use exporter_ebpf::key::{Family, SeriesKey};
use instruments::{Known, LabelSet, describe};

use super::{
    Agent,
    registry::Target,
    routes::{Routes, Templates},
};
use crate::kernel::Maps;

/// Makes labels, one thread at a time.
pub(super) struct Labeller<'a> {
    routes: MutexGuard<'a, Routes>,
    maps: &'a Maps,
    max_routes: u32,
}

impl Agent {
    /// The routes that are known. Asked for by whoever adds up series, and by nobody else.
    pub(super) fn routes(&self) -> MutexGuard<'_, Routes> {
        self.inner.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for others that make labels, who look up the texts that are not known yet.
    pub(super) fn labeller(&self) -> Labeller<'_> {
        let max_routes = self.inner.config.max_routes;
        Labeller { routes: self.routes(), maps: self.inner.kernel.maps(), max_routes }
    }
}

impl Labeller<'_> {
    /// The family of a series and its labels; none where the family is not known.
    pub(super) fn label(&mut self, key: &SeriesKey, target: &Target) -> Option<(Family, LabelSet)> {
        let family = Family::of_number(key.family)?;
        let go_minor = target.inspection.as_deref().map_or(0, |it| it.go_minor);
        let templates = target.placement.as_deref().map_or(&[][..], |placement| &placement.routes);
        let (text, second) = self.routes.label(key, self.maps, Templates { templates, max_routes: self.max_routes });
        Some((family, describe(family).labels(key, &Known { text, second, go_minor })))
    }
}

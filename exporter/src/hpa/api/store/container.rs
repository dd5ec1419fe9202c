//! A container of an agent: what is measured of it, since when, and whether what is told of it goes on with what was. Knows nothing of
//! streams and their ids.

use std::{collections::HashMap, sync::Arc};

use super::{
    Key,
    series::{FamilyInfo, Meaning, Series},
};
use crate::hpa::wire::Container as WireContainer;

/// So many series are looked through: most containers have no more, and an index of each would take more memory than it saves
/// time.
const FEW: usize = 32;

/// What is measured of a container, and since when. Shared by those that have the same.
pub(super) type Families = Arc<[(Arc<FamilyInfo>, u64)]>;

/// A container that is measured, or was.
#[derive(Debug)]
pub(crate) struct Container {
    pub(super) key: Key,
    /// Since when its growth is known, by the agent's clock.
    pub(super) since: u64,
    /// It began then: before `since` there was nothing to count.
    pub(super) from_start: bool,
    /// Since when it is counted without a gap, as the agent says it.
    pub(super) counted_since_ms: u64,
    /// When it left the stream. Its counts are remembered: it may come back with them.
    pub(super) gone: Option<u64>,
    /// The run of the agent that counted it is over: the next counts anew.
    pub(super) over: bool,
    /// What is measured of it, and since when.
    pub(super) families: Families,
    pub(super) series: Vec<Series>,
    /// Where a series is in `series`, by the address of its meaning, which is shared and so never the same for two. None while there
    /// are [`FEW`].
    #[expect(clippy::box_collection, reason = "most of very many containers have none, which is to take little room")]
    pub(super) places: Option<Box<HashMap<usize, usize>>>,
}

/// How a container is told of in a frame.
pub(super) struct Naming {
    /// The time of the frame before, if there is one.
    pub(super) last: Option<u64>,
    /// The frame's time, and what the agent's clock said.
    pub(super) at: u64,
    pub(super) unix_ms: u64,
    /// Whether the stream begins with it.
    pub(super) first: bool,
    /// For how long figures are kept, milliseconds.
    pub(super) longest: u64,
}

impl Container {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.key.2
    }

    /// Since when a family is measured of it; none if it is not.
    pub(crate) fn since(&self, family: &str) -> Option<u64> {
        self.families.iter().find(|(info, _)| *info.name == *family).map(|(_, since)| (*since).max(self.since))
    }

    /// Whether a family is measured of it.
    pub(crate) fn has(&self, family: &str) -> bool {
        self.since(family).is_some()
    }

    /// Whether this family is measured since the container began, before which there was nothing to count.
    pub(crate) fn began_at(&self, since: u64) -> bool {
        self.from_start && since == self.since
    }

    /// Its series of a family.
    pub(crate) fn series<'c>(&'c self, family: &'c str) -> impl Iterator<Item = &'c Series> {
        self.series.iter().filter(move |it| *it.family.name == *family)
    }

    /// Whether it was there after this time.
    pub(crate) fn is_of_window(&self, begin: u64) -> bool {
        self.gone.is_none_or(|gone| gone > begin)
    }

    /// Whether it is not known until when it went on: the agent that counted it ended before it did.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.over
    }

    /// How many series the stream has of it.
    pub(super) fn told_series(&self) -> usize {
        self.series.iter().filter(|it| it.is_told()).count()
    }

    /// Where a series is, or is to be pushed.
    pub(super) fn place(&mut self, meaning: &Arc<Meaning>) -> usize {
        let (series, next) = (&self.series, self.series.len());
        if next < FEW {
            return series.iter().position(|it| it.is(meaning)).unwrap_or(next);
        }
        let places = self.places.get_or_insert_with(|| {
            Box::new(series.iter().enumerate().map(|(place, it)| (it.address(), place)).collect())
        });
        *places.entry(Arc::as_ptr(meaning).addr()).or_insert(next)
    }

    /// It is told of, and what is measured of it now.
    pub(super) fn measured(&mut self, families: &[Arc<FamilyInfo>], at: u64, shared: &mut Families) {
        let since = |family: &Arc<FamilyInfo>| {
            let before = self.families.iter().find(|(known, _)| known.name == family.name);
            before.map_or(at, |(_, since)| *since)
        };
        self.families = share(shared, families.iter().map(|family| (family.clone(), since(family))).collect());
        self.gone = None;
    }

    /// Whether what is told now goes on with what was counted of it before.
    pub(super) fn goes_on(&self, wire: &WireContainer, counted_since: Option<u64>, naming: &Naming) -> bool {
        let in_stream = self.gone.is_none() && !naming.first;
        let seen = self.gone.or(naming.last).unwrap_or(0);
        !self.over
            && (in_stream
                || wire.counted_since_ms == self.counted_since_ms
                || counted_since.is_none_or(|it| it <= seen))
    }

    /// It leaves the stream.
    pub(super) fn leave(&mut self, at: u64, over: bool) {
        self.over |= over;
        if self.gone.is_none() {
            self.gone = Some(at);
            self.series.iter_mut().for_each(|it| it.end(at));
        }
    }
}

/// The same as before, if it is.
pub(super) fn share(shared: &mut Families, families: Vec<(Arc<FamilyInfo>, u64)>) -> Families {
    let same = |(one, since): &(Arc<FamilyInfo>, u64), (other, at): &(Arc<FamilyInfo>, u64)| {
        Arc::ptr_eq(one, other) && since == at
    };
    let is_same = shared.len() == families.len() && shared.iter().zip(&families).all(|(one, other)| same(one, other));
    if !is_same {
        *shared = families.into();
    }
    shared.clone()
}

//! Where an agent's containers and series are: containers stay where they are, so that a sample finds its series by numbers alone.

use std::collections::HashMap;

use super::{Key, container::Container};

/// Containers by name, each at a number of its own while it is there.
#[derive(Debug, Default)]
pub(super) struct Containers {
    numbers: HashMap<Key, u32>,
    held: Vec<Option<Container>>,
    free: Vec<u32>,
}

impl Containers {
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn contains_key(&self, key: &Key) -> bool {
        self.numbers.contains_key(key)
    }

    /// A container's number.
    pub(super) fn place(&self, key: &Key) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Container> {
        self.at(self.place(key)?)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Container> {
        self.at_mut(self.place(key)?)
    }

    pub(super) fn at(&self, number: u32) -> Option<&Container> {
        self.held.get(number as usize)?.as_ref()
    }

    pub(super) fn at_mut(&mut self, number: u32) -> Option<&mut Container> {
        self.held.get_mut(number as usize)?.as_mut()
    }

    /// Puts it where one of its name was, or at a number that nothing has.
    pub(super) fn insert(&mut self, container: Container) {
        let number = match self.numbers.get(&container.key) {
            Some(number) => *number,
            None => self.free.pop().unwrap_or_else(|| {
                self.held.push(None);
                self.held.len() as u32 - 1
            }),
        };
        self.numbers.insert(container.key.clone(), number);
        self.held[number as usize] = Some(container);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(number) = self.numbers.remove(key) {
            self.held[number as usize] = None;
            self.free.push(number);
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Container> {
        self.held.iter().flatten()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Container> {
        self.held.iter_mut().flatten()
    }

    /// Removes some, and says which.
    pub(super) fn forget(&mut self, old: impl Fn(&Key, &Container) -> bool) -> Vec<Key> {
        let goes: Vec<Key> = self.values().filter(|it| old(&it.key, it)).map(|it| it.key.clone()).collect();
        for key in &goes {
            self.remove(key);
        }
        goes
    }
}

/// Where a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The container's number.
    pub(super) container: u32,
    /// The series' in it.
    pub(super) series: u32,
}

/// Series by a stream's ids, which an agent gives in ascending order.
#[derive(Debug, Default)]
pub(super) struct Ids {
    places: Vec<(u32, Option<Place>)>,
    /// How many of them are there no longer.
    gone: usize,
    /// Whether some were not given in order.
    mixed: bool,
}

impl Ids {
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.gone
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// To be followed by [`Ids::settle`] before anything is looked for.
    pub(super) fn insert(&mut self, id: u32, place: Place) {
        self.mixed |= self.places.last().is_some_and(|(last, _)| id <= *last);
        self.places.push((id, Some(place)));
    }

    /// Puts what was inserted in order; of one id the last counts.
    pub(super) fn settle(&mut self) {
        if std::mem::take(&mut self.mixed) {
            self.places.reverse();
            self.places.sort_by_key(|(id, _)| *id);
            self.places.dedup_by_key(|(id, _)| *id);
            self.gone = self.places.iter().filter(|(_, place)| place.is_none()).count();
        }
        if self.gone > self.places.len() / 2 {
            self.places.retain(|(_, place)| place.is_some());
            self.gone = 0;
        }
    }

    /// `near` is where the one before was found, or 0.
    pub(super) fn find(&self, id: u32, near: &mut usize) -> Option<Place> {
        *near = self.index(id, *near)?;
        self.places[*near].1
    }

    fn index(&self, id: u32, near: usize) -> Option<usize> {
        let is_it = |at: &usize| self.places.get(*at).is_some_and(|(it, _)| *it == id);
        let next = (near..near.saturating_add(4)).find(is_it);
        next.or_else(|| self.places.binary_search_by_key(&id, |(it, _)| *it).ok())
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Place> {
        let index = self.index(id, 0)?;
        let place = self.places[index].1.take()?;
        self.gone += 1;
        Some(place)
    }

    pub(super) fn retain(&mut self, stays: impl Fn(Place) -> bool) {
        self.places.retain(|(_, place)| place.is_some_and(&stays));
        self.gone = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(series: u32) -> Place {
        Place { container: 1, series }
    }

    #[test]
    fn series_are_found_by_ids_in_whatever_order_they_were_given() {
        let mut ids = Ids::default();
        for (id, series) in [(5, 0), (7, 1), (9, 2), (6, 3), (u32::MAX, 4), (7, 5)] {
            ids.insert(id, place(series));
        }
        ids.settle();
        let find = |ids: &Ids, id| ids.find(id, &mut 0).map(|it| it.series);
        assert_eq!(
            [5, 6, 7, 9, u32::MAX, 8].map(|id| find(&ids, id)),
            [Some(0), Some(3), Some(5), Some(2), Some(4), None]
        );
        let mut near = 0;
        assert_eq!(
            [5, 6, 9, 5].map(|id| ids.find(id, &mut near).map(|it| it.series)),
            [Some(0), Some(3), Some(2), Some(0)]
        );
        assert_eq!((ids.remove(7).map(|it| it.series), ids.remove(7), ids.len()), (Some(5), None, 4));
        // One that comes again.
        ids.insert(7, place(8));
        ids.settle();
        assert_eq!((find(&ids, 7), find(&ids, 9), ids.len()), (Some(8), Some(2), 5));
        ids.retain(|it| it.series > 2);
        assert_eq!((find(&ids, 7), find(&ids, 9), ids.len()), (Some(8), None, 3));
    }

    #[test]
    fn ids_of_series_that_are_gone_take_no_room_for_ever() {
        let mut ids = Ids::default();
        for id in 0..100_000 {
            ids.insert(id, place(id));
            ids.settle();
            if id >= 10 {
                ids.remove(id - 10);
            }
        }
        assert!(ids.len() == 10 && ids.places.len() < 100, "{}", ids.places.len());
    }
}

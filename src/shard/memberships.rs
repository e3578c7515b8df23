//! Where one connection is a member, and at which index.
//! # Invariants: a connection with one subscription owns no table; one without has nothing.
//! # Not here: the members of a place (`subscribers`).

use super::subscribers::{NumberMap, Place};

/// The places of one connection, each with its index there. Most connections have one, and pay for
/// no table.
#[derive(Debug, Default)]
pub(super) enum Memberships {
    #[default]
    None,
    One(Place, u32),
    Many(Box<NumberMap<Place, u32>>),
}

impl Memberships {
    pub(super) fn len(&self) -> usize {
        match self {
            Memberships::None => 0,
            Memberships::One(..) => 1,
            Memberships::Many(all) => all.len(),
        }
    }

    /// The connection's index in a place.
    pub(super) fn get(&self, place: Place) -> Option<u32> {
        match self {
            Memberships::None => None,
            Memberships::One(one, index) => (*one == place).then_some(*index),
            Memberships::Many(all) => all.get(&place).copied(),
        }
    }

    /// Notes its index in a place, which it may have had before.
    pub(super) fn insert(&mut self, place: Place, index: u32) {
        match self {
            Memberships::None => *self = Memberships::One(place, index),
            Memberships::One(one, old) if *one == place => *old = index,
            Memberships::One(one, old) => {
                let all = [(*one, *old), (place, index)].into_iter().collect();
                *self = Memberships::Many(Box::new(all));
            }
            Memberships::Many(all) => {
                all.insert(place, index);
            }
        }
    }

    /// Takes a place out. Gives its index there.
    pub(super) fn remove(&mut self, place: Place) -> Option<u32> {
        let Memberships::Many(all) = self else {
            let index = self.get(place)?;
            *self = Memberships::None;
            return Some(index);
        };
        let index = all.remove(&place);
        if all.is_empty() {
            *self = Memberships::None;
        }
        index
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, u32)> {
        let (one, all) = match self {
            Memberships::None => (None, None),
            Memberships::One(place, index) => (Some((*place, *index)), None),
            Memberships::Many(all) => (None, Some(all)),
        };
        let all = all.into_iter().flat_map(|all| all.iter());
        one.into_iter().chain(all.map(|(place, index)| (*place, *index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn sorted(memberships: &Memberships) -> Vec<(usize, bool, u32)> {
        let mut all: Vec<_> = memberships
            .iter()
            .map(|(place, index)| (place.slot(), place.is_group(), index))
            .collect();
        all.sort_unstable();
        all
    }

    fn a_step() -> impl Strategy<Value = (usize, bool, Option<u32>)> {
        (0usize..6, any::<bool>(), prop::option::of(0u32..9))
    }

    proptest! {
        #[test]
        fn they_are_a_map(steps in prop::collection::vec(a_step(), 1..60)) {
            let (mut memberships, mut model) = (Memberships::default(), BTreeMap::new());
            for (slot, is_group, index) in steps {
                let place = if is_group { Place::group(slot) } else { Place::topic(slot) };
                if let Some(index) = index {
                    memberships.insert(place, index);
                    model.insert((slot, is_group), index);
                } else {
                    prop_assert_eq!(memberships.remove(place), model.remove(&(slot, is_group)));
                }
                prop_assert_eq!(memberships.get(place), model.get(&(slot, is_group)).copied());
                prop_assert_eq!(memberships.len(), model.len());
                let expected = model.iter().map(|((slot, is_group), index)| (*slot, *is_group, *index));
                prop_assert_eq!(sorted(&memberships), expected.collect::<Vec<_>>());
                prop_assert_eq!(model.is_empty(), matches!(memberships, Memberships::None));
            }
        }
    }
}

//! Ids in order: where each is greater than the one before, none occurs twice, and no hashes need be compared to know it.

use std::collections::BTreeMap;

use crate::ids::Ids;

/// The first and the last of some ids, of which each is greater than the one before. Integers come before texts, and texts are in the
/// order of their bytes. Debug output shows none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ascending {
    first: Id,
    last: Id,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Id {
    Integer(i128),
    /// As [`Ids::canonical`].
    Text(Vec<u8>),
}

impl Ascending {
    /// Those of consecutive rows; `None` when they do not ascend, or there are none.
    pub fn of(ids: &Ids) -> Option<Self> {
        let last_idx = ids.len().checked_sub(1)?;
        if let Some(integers) = ids.integers() {
            let [first, last] = [0, last_idx].map(|row_idx| Id::Integer(integers.value(row_idx)));
            return integers.ascend().then_some(Self { first, last });
        }
        let (mut before, mut text) = (Vec::new(), Vec::new());
        ids.canonical(0, &mut before);
        let first = Id::Text(before.clone());
        for row_idx in 1..ids.len() {
            ids.canonical(row_idx, &mut text);
            if text <= before {
                return None;
            }
            std::mem::swap(&mut before, &mut text);
        }
        let last = Id::Text(before);
        Some(Self { first, last })
    }

    /// Both, when `next`, the ids of the rows that follow, go on where these end.
    pub fn and(self, next: Self) -> Option<Self> {
        let Self { first, last } = self;
        (last < next.first).then_some(Self {
            first,
            last: next.last,
        })
    }
}

/// Ids of several places, none of which lies between those of another.
#[derive(Debug, Default)]
pub struct Apart {
    /// The last of each, by the first.
    ranges: BTreeMap<Id, Id>,
}

impl Apart {
    /// Adds those of another place, unless they would not be apart. Of two that have the same, one is refused.
    pub fn add(&mut self, ids: Ascending) -> bool {
        let Ascending { first, last } = ids;
        let below = self.ranges.range(..=&first).next_back();
        let above = self.ranges.range(&first..).next();
        let is_apart = below.is_none_or(|(_, end)| *end < first)
            && above.is_none_or(|(start, _)| last < *start);
        if is_apart {
            self.ranges.insert(first, last);
        }
        is_apart
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Id")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int8Array, Int64Array, StringArray, StringViewArray, UInt64Array};

    use super::*;

    fn of(array: impl arrow::array::Array + 'static) -> Option<Ascending> {
        Ascending::of(&Ids::from_column(Arc::new(array)))
    }

    fn from_to(first: i64, last: i64) -> Ascending {
        of(Int64Array::from_iter_values(first..=last)).unwrap()
    }

    #[test]
    fn integers_ascend_by_their_value_whatever_their_type() {
        assert_eq!(
            of(Int8Array::from(vec![-128, -1, 0, 127])),
            of(Int64Array::from(vec![-128, 127]))
        );
        assert!(of(UInt64Array::from(vec![1 << 62, 1 << 63, u64::MAX])).is_some());
        for broken in [vec![1, 1], vec![2, 1], vec![0, 5, 5, 6], vec![0, 5, 3, 6]] {
            assert_eq!(of(Int64Array::from(broken)), None);
        }
        assert!(of(Int64Array::from(vec![7])).is_some(), "one is in order");
        assert_eq!(of(Int64Array::from(Vec::<i64>::new())), None);
    }

    #[test]
    fn texts_ascend_by_their_bytes() {
        let texts = vec!["", "10", "9", "Z", "a", "aa", "é"];
        assert_eq!(
            of(StringArray::from(texts.clone())),
            of(StringViewArray::from(vec!["", "é"]))
        );
        assert_eq!(of(StringArray::from(vec!["9", "10"])), None);
        assert_eq!(of(StringArray::from(vec!["a", "a"])), None);
    }

    #[test]
    fn blocks_go_on_where_others_end() {
        assert_eq!(from_to(0, 5).and(from_to(6, 9)), Some(from_to(0, 9)));
        assert_eq!(from_to(0, 5).and(from_to(5, 9)), None, "5 occurs twice");
        assert_eq!(from_to(6, 9).and(from_to(0, 5)), None);
    }

    #[test]
    fn places_are_apart_when_none_has_an_id_between_those_of_another() {
        let refused = |ranges: &[(i64, i64)]| {
            let mut apart = Apart::default();
            let added = ranges.iter().map(|(a, b)| !apart.add(from_to(*a, *b)));
            added.collect::<Vec<_>>()
        };
        assert_eq!(refused(&[(10, 19), (0, 9), (30, 30), (20, 29)]), [false; 4]);
        for overlap in [
            (5, 15),
            (10, 19),
            (12, 13),
            (0, 40),
            (19, 19),
            (0, 10),
            (19, 40),
        ] {
            assert_eq!(
                refused(&[(10, 19), overlap, (41, 50)]),
                [false, true, false]
            );
        }
    }

    #[test]
    fn no_id_is_printed() {
        let ids = of(StringArray::from(vec!["Kaiser", "Lehmann"])).unwrap();
        assert_eq!(format!("{ids:?}"), "Ascending { first: Id, last: Id }");
    }
}

//! The best few rows of many, found in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The `limit` grid positions of smallest rank, each once, with the smallest rank that was offered for it.
///
/// Lists of parts merge, in any order, into the list of the whole: what a part leaves out is beaten by `limit` other positions
/// of that part, hence of the whole. Equal ranks are ordered by the grid row, so that the list is a function of the rows alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BestRows<R> {
    limit: usize,
    ranked: BTreeSet<(R, Arc<[i32]>)>,
    rank_of: BTreeMap<Arc<[i32]>, R>,
}

impl<R: Ord + Clone> BestRows<R> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            ranked: BTreeSet::new(),
            rank_of: BTreeMap::new(),
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a row of this rank could still enter: the cheap question, asked before anything is copied.
    pub(crate) fn may_enter(&self, rank: &R) -> bool {
        match self.ranked.last() {
            Some((worst, _)) if self.ranked.len() >= self.limit => rank <= worst,
            _ => self.limit > 0,
        }
    }

    /// The rank that a row must not exceed to enter; `None` while there is room for any.
    pub(crate) fn worst(&self) -> Option<&R> {
        let is_full = self.ranked.len() >= self.limit;
        self.ranked.last().map(|(rank, _)| rank).filter(|_| is_full)
    }

    pub(crate) fn offer(&mut self, rank: R, row: &[i32]) {
        if !self.may_enter(&rank) {
            return;
        }
        let row = match self.rank_of.get_key_value(row) {
            Some((_, known)) if *known <= rank => return,
            Some((row, known)) => {
                let row = Arc::clone(row);
                self.ranked.remove(&(known.clone(), Arc::clone(&row)));
                row
            }
            None => Arc::from(row),
        };
        self.rank_of.insert(Arc::clone(&row), rank.clone());
        self.ranked.insert((rank, row));
        if self.ranked.len() > self.limit
            && let Some((_, row)) = self.ranked.pop_last()
        {
            self.rank_of.remove(&row);
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (rank, row) in other.ranked {
            self.offer(rank, &row);
        }
    }

    /// Best first.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&R, &[i32])> {
        self.ranked.iter().map(|(rank, row)| (rank, &**row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(limit: usize, offers: &[(u8, u8)]) -> BestRows<u8> {
        let mut best = BestRows::new(limit);
        for &(rank, position) in offers {
            best.offer(rank, &[i32::from(position)]);
        }
        best
    }

    proptest! {
        #[test]
        fn parts_merge_in_any_order_into_the_list_of_the_whole(
            offers in prop::collection::vec((0..20u8, 0..12u8), 0..40),
            cut in 0..40usize,
            limit in 0..8usize,
        ) {
            let (left, right) = offers.split_at(cut.min(offers.len()));
            let whole = list(limit, &offers);
            let (mut a, mut b) = (list(limit, left), list(limit, right));
            let (a0, b0) = (a.clone(), b.clone());
            a.merge(b0);
            b.merge(a0);
            prop_assert_eq!(&a, &whole);
            prop_assert_eq!(&b, &whole);

            let mut best: BTreeMap<u8, u8> = BTreeMap::new();
            for &(rank, position) in &offers {
                best.entry(position).and_modify(|r| *r = rank.min(*r)).or_insert(rank);
            }
            let mut expected: Vec<(u8, i32)> = best.iter().map(|(&p, &r)| (r, i32::from(p))).collect();
            expected.sort_unstable();
            expected.truncate(limit);
            let found: Vec<(u8, i32)> = whole.iter().map(|(&r, row)| (r, row[0])).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

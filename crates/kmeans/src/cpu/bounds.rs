//! How long rows, tiles and a block are safe, and what becomes of that when the unit changes.

use super::lanes::{Lanes, OfClusters};
use super::travel::Travel;
use crate::LANES;

/// Rows and tiles are safe while what [`Travel`] has counted, in units, is below these.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounds {
    pub(super) epoch: u64,
    /// Steps of the travel when they were last held against it; they say nothing about where centroids were before.
    pub(super) n_steps: u64,
    /// [n_tiles x LANES] against the row's cluster. Empty: no bounds.
    pub(super) of_row: Vec<u16>,
    /// [n_tiles] against any cluster.
    pub(super) of_tile: Vec<u16>,
    /// The smallest of the tiles.
    pub(super) of_block: u16,
}

impl Bounds {
    /// Whether they say something about where the centroids of `travel` are.
    pub(super) fn hold(&self, travel: &Travel) -> bool {
        let is_known = match self.epoch == travel.epoch {
            true => self.n_steps <= travel.n_steps,
            false => travel.epochs_since(self.epoch).is_some(),
        };
        is_known && !self.of_row.is_empty()
    }

    /// That of the block, in units of today.
    pub(super) fn of_block(&self, travel: &Travel) -> Option<u16> {
        let past = travel.epochs_since(self.epoch)?.iter();
        let carried = past.fold(self.of_block, |bound, past| past.carried_of_any(bound));
        self.hold(travel).then_some(carried)
    }

    /// Makes those of rows with these labels bounds of today.
    pub(super) fn carry_on(&mut self, labels: &[u16], travel: &Travel) {
        let past = travel.epochs_since(self.epoch).unwrap_or_default();
        if past.is_empty() {
            return;
        }
        self.of_block = self.of_block(travel).unwrap_or_default();
        for past in past {
            for (bound, label) in self.of_row.iter_mut().zip(labels) {
                *bound = past.carried(*bound, *label);
            }
        }
        // Made anew from those of the rows by the next pass.
        self.of_tile.fill(0);
        (self.epoch, self.n_steps) = (travel.epoch, 0);
    }
}

/// What is left of the bounds of a tile's rows.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn left_of<L: Lanes>(
    bounds: &[u16; LANES],
    shrunk_units: &OfClusters,
    labels: &[u16; LANES],
) -> [u16; LANES] {
    // SAFETY: passed on to the caller.
    let shrunk = unsafe { shrunk_units.of_labels::<L>(labels) };
    let mut left = *bounds;
    for (left, shrunk) in left.iter_mut().zip(shrunk) {
        *left = left.saturating_sub(shrunk);
    }
    left
}

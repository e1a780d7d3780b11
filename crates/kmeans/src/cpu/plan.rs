//! Passes that know which rows they will look at before these are there.

use super::assign::{Assignment, Wanted};
use super::memory::{BlockMemory, Effort};
use super::travel::Travel;
use super::{CpuBackend, check_features};
use crate::{Block, Fragment, Outline, Partial};

/// A pass over one block on behalf of some candidates, on the memory of their passes over it; see [`CpuBackend::plan`].
pub struct PlannedPass<'a> {
    backend: CpuBackend,
    rows: Outline,
    assignments: Vec<Assignment<'a>>,
    /// Those that any candidate wants; `None`: all.
    tiles: Option<Vec<usize>>,
}

impl<'a> PlannedPass<'a> {
    pub(super) fn new(
        backend: CpuBackend,
        rows: Outline,
        asked: &'a mut [(&Travel, &mut BlockMemory)],
    ) -> Self {
        let assignments = asked.iter_mut().map(|(travel, memory)| {
            check_features(&rows, travel.centroids());
            let remembering = memory.remember(&rows, travel);
            Assignment::new(travel.packed(), Wanted::Changes(remembering))
        });
        Self {
            backend,
            rows,
            assignments: assignments.collect(),
            tiles: None,
        }
    }

    /// Goes through the bounds, if all have some.
    pub(super) fn list_tiles(&mut self) {
        let mut wanted = self.assignments.iter().map(|assignment| &assignment.wanted);
        let all_have_bounds = wanted.all(|wanted| match wanted {
            Wanted::Changes(remembering) => remembering.goes_by_bounds(),
            _ => false,
        });
        if !all_have_bounds {
            return;
        }
        let mut tiles = Vec::new();
        for assignment in &mut self.assignments {
            if let Wanted::Changes(remembering) = &mut assignment.wanted {
                tiles.extend_from_slice(remembering.list_all());
            }
        }
        // One list after the other, each in order: a sort that takes runs as they are.
        tiles.sort();
        tiles.dedup();
        self.tiles = Some(tiles);
    }

    /// The tiles of [`LANES`](crate::LANES) rows that it will look at, in order; `None`: all of them.
    pub fn tiles(&self) -> Option<&[usize]> {
        self.tiles.as_deref()
    }

    /// The answers of the candidates, in order.
    ///
    /// # Panics
    /// When `block` has other rows than it was planned for.
    pub fn run(self, block: &Block) -> Vec<(Partial, Effort)> {
        assert_eq!(block.outline(), self.rows, "rows it was planned for");
        self.sweep(block)
    }

    /// As [`PlannedPass::run`], of the tiles that it wants.
    ///
    /// # Panics
    /// When others are there.
    pub fn run_on(self, fragment: &Fragment) -> Vec<(Partial, Effort)> {
        assert_eq!(fragment.block().outline(), self.rows);
        assert_eq!(
            self.tiles(),
            Some(fragment.tiles()),
            "tiles it will look at"
        );
        self.sweep(fragment.block())
    }

    fn sweep(mut self, block: &Block) -> Vec<(Partial, Effort)> {
        self.backend.sweep(block, &mut self.assignments);
        let assignments = self.assignments.into_iter();
        let finished = assignments.map(|assignment| match assignment.wanted {
            Wanted::Changes(remembering) => remembering.finish(assignment.n_rechecked),
            _ => unreachable!("made above"),
        });
        finished.collect()
    }
}

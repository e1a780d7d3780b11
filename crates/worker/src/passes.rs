//! Passes: what the rows of some shards add up to under the centroids of each candidate.

use clientele_data::DataError;
use clientele_data::ingest::GridBlock;
use clientele_kmeans::cpu::{BlockMemory, Effort};
use clientele_kmeans::{Centroids, Partial};
use clientele_protocol::CandidateId;
use rayon::prelude::*;

use crate::Worker;
use crate::memory::{Done, Remembered};
use crate::stages::Blocks;

impl Worker {
    /// One partial a candidate.
    pub(crate) fn pass(
        &self,
        blocks: &Blocks,
        ids: &[CandidateId],
        centroids: &[Centroids],
    ) -> Result<Vec<Partial>, DataError> {
        let engine = &self.resources.engine;
        if engine.is_gpu() {
            self.memory.clear();
        } else {
            self.memory.begin(ids, centroids, engine.cpu());
        }
        let zero = || {
            centroids
                .iter()
                .map(|c| Partial::zero(c.n_clusters(), c.n_features()))
                .collect()
        };
        let partials = (0..blocks.ids.len())
            .into_par_iter()
            .map(|at| self.pass_block(blocks, at, ids, centroids))
            .try_reduce(zero, |mut a: Vec<Partial>, b| {
                a.iter_mut().zip(&b).for_each(|(a, b)| a.merge(b));
                Ok(a)
            })?;
        if let Some(candidate) = self.memory.wants_order() {
            blocks.ids.par_iter().for_each(|id| {
                let change =
                    |grid: &mut GridBlock| self.memory.order(candidate, *id, &mut grid.block);
                blocks.rows.store.modify(*id, change);
            });
        }
        Ok(partials)
    }

    fn pass_block(
        &self,
        blocks: &Blocks,
        at: usize,
        ids: &[CandidateId],
        centroids: &[Centroids],
    ) -> Result<Vec<Partial>, DataError> {
        let engine = &self.resources.engine;
        let id = blocks.ids[at];
        let n_rows = self.job.manifest.blocks()[id.0 as usize].n_rows;
        let mut partials: Vec<Option<Partial>> = vec![None; ids.len()];
        let mut finish = |idx: usize, memory: BlockMemory, partial: Partial, effort: Effort| {
            let done = Done {
                n_rows,
                n_moved: partial.n_moved.unwrap_or(0),
                effort,
            };
            self.memory.put(id, ids[idx], memory, done);
            partials[idx] = Some(partial);
        };
        // Some need no row of the block, and if none does, it is not even read.
        let mut to_read: Vec<Remembered> = Vec::new();
        for remembered in self.memory.take(id, ids, n_rows) {
            match remembered.memory.answer_unread(&remembered.travel) {
                Some(partial) => {
                    let effort = Effort::default();
                    finish(remembered.idx, remembered.memory, partial, effort);
                }
                None => to_read.push(remembered),
            }
        }
        if !to_read.is_empty() {
            let grid = blocks.get(at, |id| !self.memory.is_unread(*id, ids))?;
            let mut asked: Vec<_> = to_read
                .iter_mut()
                .map(|remembered| (&*remembered.travel, &mut remembered.memory))
                .collect();
            let answers = engine.cpu().pass_remembering(&grid.block, &mut asked);
            for (remembered, (partial, effort)) in to_read.into_iter().zip(answers) {
                finish(remembered.idx, remembered.memory, partial, effort);
            }
        }
        // There was no room to remember anything of the others.
        let others: Vec<usize> = (0..ids.len())
            .filter(|idx| partials[*idx].is_none())
            .collect();
        if others.is_empty() {
            engine.note_cpu(n_rows as u64);
        } else {
            let grid = blocks.get(at, |_| true)?;
            let centroids: Vec<Centroids> =
                others.iter().map(|idx| centroids[*idx].clone()).collect();
            for (idx, partial) in others.into_iter().zip(engine.pass(&grid.block, &centroids)) {
                partials[idx] = Some(partial);
            }
        }
        Ok(partials.into_iter().flatten().collect())
    }
}

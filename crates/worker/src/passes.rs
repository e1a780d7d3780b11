//! Passes: what the rows of some shards add up to under the centroids of each candidate.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use clientele_data::DataError;
use clientele_data::ingest::GridBlock;
use clientele_data::manifest::BlockId;
use clientele_data::store::BlockStore;
use clientele_kmeans::cpu::{BlockMemory, Effort, Travel};
use clientele_kmeans::{BackendError, Centroids, LANES, Partial};
use clientele_protocol::CandidateId;
use rayon::prelude::*;

use crate::Worker;
use crate::engine::Gpu;
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
        self.memory.begin(ids, centroids, engine.cpu());
        let queue = Queue::new(blocks.ids.len());
        let wants_order = self.memory.wants_order();
        let on_cpu = |at: usize| {
            let (id, store) = (blocks.ids[at], &blocks.rows.store);
            if let Some((candidate, reordering)) = wants_order
                && let Some(ordered) = reordering.of_block(store.is_spilled(id))
            {
                let order = |grid: &mut GridBlock| {
                    self.memory.order(candidate, id, &mut grid.block, ordered);
                };
                store.reorder(id, order)?;
            }
            self.pass_block(blocks, at, ids, centroids)
        };
        let merge = |mut a: Vec<Partial>, b: Vec<Partial>| {
            a.iter_mut().zip(&b).for_each(|(a, b)| a.merge(b));
            Ok(a)
        };
        let zero = || {
            centroids
                .iter()
                .map(|c| Partial::zero(c.n_clusters(), c.n_features()))
                .collect()
        };
        let travel = self.memory.travel_of_last(ids, centroids);
        let on_gpu = |gpu| self.pass_on_gpu(gpu, blocks, centroids, travel.as_deref(), &queue);
        let _passing = engine.passing();
        // GPUs take blocks from the end and the CPU from the front, so that each has much the same ones in every pass.
        let (by_cpu, by_gpus) = std::thread::scope(|scope| {
            let gpus: Vec<_> = engine
                .gpus()
                .into_iter()
                .map(|gpu| scope.spawn(move || on_gpu(gpu)))
                .collect();
            let by_cpu = match engine.cpu_helps() {
                true => (0..self.resources.n_threads())
                    .into_par_iter()
                    .flat_map_iter(|_| std::iter::from_fn(|| queue.take_first()))
                    .map(on_cpu)
                    .try_reduce(zero, merge),
                false => Ok(zero()),
            };
            let by_gpus = gpus.into_iter().map(|gpu| gpu.join());
            (by_cpu, by_gpus.collect::<Vec<_>>())
        });
        let mut partials = by_cpu?;
        let mut unfinished = Vec::new();
        for by_gpu in by_gpus {
            let by_gpu = by_gpu.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            unfinished.extend(by_gpu.unfinished);
            partials = match by_gpu.partials {
                Some(by_gpu) => merge(partials, by_gpu)?,
                None => partials,
            };
        }
        unfinished.extend(std::iter::from_fn(|| queue.take_first()));
        let rescued = unfinished
            .into_par_iter()
            .map(on_cpu)
            .try_reduce(zero, merge)?;
        merge(partials, rescued)
    }

    /// Blocks from the end of the queue, as many as this GPU gets hold of. All or none of them count. With the `travel` of the centroids, it
    /// may leave out rows that cannot have changed.
    fn pass_on_gpu(
        &self,
        gpu: &Gpu,
        blocks: &Blocks,
        centroids: &[Centroids],
        travel: Option<&Travel>,
        queue: &Queue,
    ) -> Result<ByGpu, DataError> {
        let engine = &self.resources.engine;
        let mut taken = Vec::new();
        let mut n_rows = 0;
        let mut run = || -> Result<Result<Vec<Partial>, BackendError>, DataError> {
            let mut pass = match gpu.begin(centroids, travel) {
                Ok(pass) => pass,
                Err(error) => return Ok(Err(error)),
            };
            while let Some(at) = queue.take_last() {
                taken.push(at);
                let grid = blocks.get(at, |_| false)?;
                engine.note_given(self.engine_job, &grid.block);
                n_rows += grid.block.n_rows() as u64;
                if let Err(error) = pass.add(&grid.block) {
                    return Ok(Err(error));
                }
            }
            Ok(pass.finish())
        };
        Ok(match run()? {
            Ok(partials) => {
                engine.note_gpu(gpu, n_rows);
                ByGpu {
                    partials: Some(partials),
                    unfinished: Vec::new(),
                }
            }
            Err(error) => {
                engine.give_up(gpu, &error, taken.len().max(1));
                ByGpu {
                    partials: None,
                    unfinished: taken,
                }
            }
        })
    }

    fn pass_block(
        &self,
        blocks: &Blocks,
        at: usize,
        ids: &[CandidateId],
        centroids: &[Centroids],
    ) -> Result<Vec<Partial>, DataError> {
        let engine = &self.resources.engine;
        let (id, store) = (blocks.ids[at], &blocks.rows.store);
        let is_spilled = store.is_spilled(id);
        let n_rows = self.job.manifest.blocks()[id.0 as usize].n_rows;
        let mut partials: Vec<Option<Partial>> = vec![None; ids.len()];
        let mut finish = |idx: usize, memory: BlockMemory, answer: (Partial, Effort), n_read| {
            let (partial, effort) = answer;
            let done = Done {
                n_rows,
                n_moved: partial.n_moved.unwrap_or(0),
                effort,
                n_read_on_disk: is_spilled.then_some(n_read),
            };
            self.memory.put(id, ids[idx], memory, done);
            partials[idx] = Some(partial);
        };
        // Some need no row of the block, and if none does, it is not even read.
        let mut to_read: Vec<Remembered> = Vec::new();
        for remembered in self.memory.take(id, ids, n_rows) {
            match remembered.memory.answer_unread(&remembered.travel) {
                Some(partial) => {
                    let answer = (partial, Effort::default());
                    finish(remembered.idx, remembered.memory, answer, 0);
                }
                None => to_read.push(remembered),
            }
        }
        if !to_read.is_empty() {
            blocks.read_ahead(at, |id| self.memory.reads_much(*id, ids));
            let mut asked: Vec<_> = to_read
                .iter_mut()
                .map(|remembered| (&*remembered.travel, &mut remembered.memory))
                .collect();
            let (answers, n_read) = self.answers_from(store, id, &mut asked)?;
            for (remembered, answer) in to_read.into_iter().zip(answers) {
                finish(remembered.idx, remembered.memory, answer, n_read);
            }
        }
        // There was no room to remember anything of the others.
        let others: Vec<usize> = (0..ids.len())
            .filter(|idx| partials[*idx].is_none())
            .collect();
        engine.note_cpu(n_rows as u64);
        if !others.is_empty() {
            let grid = blocks.get(at, |_| true)?;
            let centroids: Vec<Centroids> =
                others.iter().map(|idx| centroids[*idx].clone()).collect();
            for (idx, partial) in others
                .into_iter()
                .zip(engine.pass_plain(&grid.block, &centroids))
            {
                partials[idx] = Some(partial);
            }
        }
        Ok(partials.into_iter().flatten().collect())
    }

    /// The answers from one block, and how many of its rows were there for them. Of one on disk, only the tiles that somebody wants are read,
    /// where that is quicker.
    fn answers_from(
        &self,
        store: &BlockStore,
        id: BlockId,
        asked: &mut [(&Travel, &mut BlockMemory)],
    ) -> Result<(Vec<(Partial, Effort)>, u64), DataError> {
        let cpu = self.resources.engine.cpu();
        let on_disk = store.on_disk(id);
        let by_tiles = on_disk.and_then(|on_disk| Some((on_disk.outline()?, on_disk)));
        let Some((outline, on_disk)) = by_tiles else {
            let block = &store.get(id)?.block;
            return Ok((cpu.pass_remembering(block, asked), block.n_rows() as u64));
        };
        let planned = cpu.plan(outline, asked);
        let some = match planned.tiles() {
            Some(tiles) => on_disk.read_tiles(tiles)?,
            None => None,
        };
        Ok(match some {
            Some(some) => {
                let n_rows = some.n_tiles_read() * LANES;
                (planned.run_on(&some), n_rows as u64)
            }
            None => {
                let block = &on_disk.read()?.block;
                (planned.run(block), block.n_rows() as u64)
            }
        })
    }
}

/// What a GPU made of the blocks it took.
struct ByGpu {
    /// None when it could not finish.
    partials: Option<Vec<Partial>>,
    /// Blocks that somebody else has to do.
    unfinished: Vec<usize>,
}

/// Blocks of a pass that nobody has taken yet.
struct Queue(Mutex<Range<usize>>);

impl Queue {
    fn new(n_blocks: usize) -> Self {
        Self(Mutex::new(0..n_blocks))
    }

    fn take_first(&self) -> Option<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    fn take_last(&self) -> Option<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next_back()
    }
}

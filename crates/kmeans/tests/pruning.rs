//! A pass that remembers gives what a pass over everything gives, whatever the centroids do, however little it reads.

use clientele_kmeans::cpu::{BlockMemory, CpuBackend, Effort, Kernel, Ordered, Travel};
use clientele_kmeans::{
    Backend, Block, Centroids, Fragment, GRID_LIMIT, Partial, Tiles, lloyd, reference,
};
use proptest::prelude::*;

const EDGE: i32 = GRID_LIMIT - 1;

/// How the centroids get from pass to pass.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// As a fit moves them.
    Lloyd,
    /// All a little, so that bounds run out slowly.
    Creep,
    /// One far, as a relocation does.
    Jump,
    /// Onto each other.
    Merge,
    /// Not at all.
    Stay,
}

#[derive(Debug, Clone)]
struct Case {
    n_features: usize,
    rows: Vec<Vec<i32>>,
    centroids: Vec<Vec<i32>>,
    ways: Vec<(Way, bool, bool)>,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let way = prop_oneof![
        4 => Just(Way::Lloyd),
        3 => Just(Way::Creep),
        1 => Just(Way::Jump),
        1 => Just(Way::Merge),
        1 => Just(Way::Stay),
    ];
    // The way, whether bounds are kept, whether rows are put into another order first.
    let ways = prop::collection::vec(
        (way, prop::bool::weighted(0.8), prop::bool::weighted(0.3)),
        1..12,
    );
    (
        1..=20usize,
        0..200usize,
        1..=12usize,
        0..5u8,
        any::<u64>(),
        ways,
    )
        .prop_map(|(n_features, n_rows, n_clusters, kind, seed, ways)| {
            let mut next = numbers(seed);
            let mut row = || -> Vec<i32> {
                let along = next(9) - 4;
                let mut value = || match kind {
                    0 => next(4),
                    1 => along * 1_000 + next(2),
                    2 => [-EDGE, EDGE, 0, 1][next(4) as usize],
                    3 => (next(3) - 1) * 1_000_000 + next(200_000),
                    _ => 7,
                };
                (0..n_features).map(|_| value()).collect()
            };
            Case {
                n_features,
                rows: (0..n_rows).map(|_| row()).collect(),
                centroids: (0..n_clusters).map(|_| row()).collect(),
                ways,
                seed,
            }
        })
}

fn numbers(seed: u64) -> impl FnMut(i32) -> i32 {
    let mut state = seed;
    move |n| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % n as u64) as i32
    }
}

impl Case {
    fn block(&self) -> Block {
        let keys = (0..self.rows.len() as u64).collect();
        Block::from_rows(0, self.n_features, &self.rows.concat(), keys).unwrap()
    }

    fn moved(
        &self,
        way: Way,
        centroids: &Centroids,
        partial: &Partial,
        next: &mut impl FnMut(i32) -> i32,
    ) -> Centroids {
        let mut values = centroids.values().to_vec();
        let d = self.n_features;
        let k = centroids.n_clusters();
        match way {
            Way::Lloyd => return lloyd::update(partial, centroids).0,
            Way::Creep => values
                .iter_mut()
                .for_each(|v| *v = (*v + next(3) - 1).clamp(-EDGE, EDGE)),
            Way::Jump => {
                let at = next(k as i32) as usize * d;
                values[at..at + d]
                    .iter_mut()
                    .for_each(|v| *v = next(2 * EDGE) - EDGE);
            }
            Way::Merge => {
                let (from, to) = (next(k as i32) as usize * d, next(k as i32) as usize * d);
                values.copy_within(from..from + d, to);
            }
            Way::Stay => {}
        }
        Centroids::new(d, values)
    }
}

fn rows_of(block: &Block) -> Vec<Vec<i32>> {
    let row = |row_idx| {
        let mut row = vec![0; block.n_features()];
        block.read_row(row_idx, &mut row);
        row
    };
    (0..block.n_rows()).map(row).collect()
}

/// The block as far as it has `tiles`, which claims to have `claimed`; the others are what would be far off as rows. `None` if it is not cut in two.
fn fragment(block: &Block, tiles: &[usize], claimed: &[usize]) -> Option<Fragment> {
    let cut = block.cut_rows()?;
    let mut lines = Tiles::zeroed(cut.frame.n_columns());
    lines.fill(f32::from_bits(0x5aa5_7b93));
    for &tile_idx in tiles {
        for words in cut.frame.words_of(tile_idx..tile_idx + 1) {
            lines[words.clone()].copy_from_slice(&cut.lines[words]);
        }
    }
    let frame = cut.frame;
    Some(frame.fragment(lines, cut.norms.concat(), claimed.to_vec()))
}

/// A pass that is planned before the rows are there, and gets no others than it asks for.
fn planned_pass(
    backend: &CpuBackend,
    block: &Block,
    travel: &Travel,
    memory: &mut BlockMemory,
) -> (Partial, Effort) {
    let mut asked = [(travel, memory)];
    let planned = backend.plan(block.outline(), &mut asked);
    let some = planned
        .tiles()
        .and_then(|tiles| fragment(block, tiles, tiles));
    let mut answers = match some {
        Some(some) => planned.run_on(&some),
        None => planned.run(block),
    };
    answers.remove(0)
}

fn backends() -> Vec<CpuBackend> {
    Kernel::available()
        .into_iter()
        .filter_map(CpuBackend::with_kernel)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_left_out_changes_nothing(case in cases()) {
        for backend in backends() {
            let mut next = numbers(case.seed);
            let as_given = case.block();
            let mut block = as_given.clone();
            let mut centroids = Centroids::new(case.n_features, case.centroids.concat());
            let mut travel = backend.travel(centroids.clone());
            let mut memory = BlockMemory::default();
            let mut old: Option<Vec<usize>> = None;
            for &(way, keeps_bounds, reorders) in &case.ways {
                travel.advance(&centroids, keeps_bounds);
                if reorders {
                    let ordered = [Ordered::TilesRead, Ordered::All][next(2) as usize];
                    memory.reorder(&mut block, &travel, ordered);
                    let mut rows = rows_of(&block);
                    block.put_as_given(&mut rows);
                    prop_assert_eq!(rows, rows_of(&as_given));
                }
                let unread = memory.answer_unread(&travel);
                let doubtful_share = memory.doubtful_share(&travel);
                let mut memory_apart = memory.clone();
                let apart = planned_pass(&backend, &block, &travel, &mut memory_apart);
                let (partial, effort) =
                    backend.pass_remembering(&block, &mut [(&travel, &mut memory)]).remove(0);
                prop_assert_eq!((&apart.0, apart.1), (&partial, effort));
                prop_assert_eq!(memory_apart.labels(case.rows.len()), memory.labels(case.rows.len()));
                let most_tiles = doubtful_share * effort.n_tiles as f64;
                prop_assert!(unread.is_some() || effort.n_tiles_read as f64 <= most_tiles);
                prop_assert!(effort.n_tiles_read <= effort.n_tiles);
                if let Some(unread) = unread {
                    prop_assert_eq!(&unread, &partial);
                    prop_assert!(effort.n_tiles_read == 0 || !keeps_bounds);
                }
                let rows: Vec<Vec<i32>> = centroids.rows().map(<[i32]>::to_vec).collect();
                let labels = reference::labels(&case.rows, &rows);
                let (counts, sums) = reference::partial(&case.rows, &labels, rows.len(), case.n_features);
                let counts: Vec<u64> = counts.iter().map(|&count| count as u64).collect();
                prop_assert_eq!(&partial.counts, &counts, "{:?}", backend.kernel());
                prop_assert_eq!(&partial.sums, &sums.concat());
                let kept = memory.labels(case.rows.len()).unwrap();
                // The keys are the places that rows were given in.
                for (&row, &label) in block.keys().iter().zip(kept) {
                    prop_assert_eq!(usize::from(label), labels[row as usize]);
                }
                let n_moved = match &old {
                    None => labels.len(),
                    Some(old) => old.iter().zip(&labels).filter(|(a, b)| a != b).count(),
                };
                prop_assert_eq!(partial.n_moved, Some(n_moved as u64));
                old = Some(labels);
                centroids = case.moved(way, &centroids, &partial, &mut next);
            }
        }
    }
}

#[test]
fn candidates_remember_side_by_side_and_alone_alike() {
    let mut next = numbers(3);
    let values: Vec<i32> = (0..40_000 * 9).map(|_| next(1_000_000) - 500_000).collect();
    let block = Block::from_rows(0, 9, &values, (0..40_000).collect()).unwrap();
    for backend in backends() {
        let starts: Vec<Centroids> = [2, 3, 17]
            .map(|k| Centroids::new(9, values[..9 * k].to_vec()))
            .into();
        let mut travels: Vec<_> = starts.iter().map(|c| backend.travel(c.clone())).collect();
        let mut together = vec![BlockMemory::default(); 3];
        for pass in 0..6 {
            let mut asked: Vec<_> = travels.iter().zip(&mut together).collect();
            let answers = backend.pass_remembering(&block, &mut asked);
            for (travel, (partial, _)) in travels.iter_mut().zip(answers) {
                let centroids = travel.centroids().clone();
                let plain = backend
                    .pass(&block, std::slice::from_ref(&centroids), None)
                    .unwrap()
                    .remove(0);
                assert_eq!(
                    (&partial.counts, &partial.sums),
                    (&plain.counts, &plain.sums),
                    "pass {pass}"
                );
                travel.advance(&lloyd::update(&partial, &centroids).0, true);
            }
        }
    }
}

#[test]
fn memory_of_rows_in_another_order_or_of_a_later_pass_is_not_used() {
    let mut next = numbers(9);
    let values: Vec<i32> = (0..5_000 * 4).map(|_| next(1_000_000) - 500_000).collect();
    let block = Block::from_rows(0, 4, &values, (0..5_000).collect()).unwrap();
    let backend = CpuBackend::new();
    let sums = |centroids: &Centroids| {
        backend
            .pass(&block, std::slice::from_ref(centroids), None)
            .unwrap()
            .remove(0)
            .sums
    };
    let first = Centroids::new(4, values[..6 * 4].to_vec());
    let mut travel = backend.travel(first.clone());
    let mut memory = BlockMemory::default();
    travel.advance(&first, true);
    backend.pass_remembering(&block, &mut [(&travel, &mut memory)]);
    let earlier = travel.clone();
    for _ in 0..3 {
        let to: Vec<i32> = travel
            .centroids()
            .values()
            .iter()
            .map(|v| v + next(90_000) - 45_000)
            .collect();
        travel.advance(&Centroids::new(4, to), true);
        backend.pass_remembering(&block, &mut [(&travel, &mut memory)]);
    }
    // A pass that comes late asks about where the centroids were.
    let (late, _) = backend
        .pass_remembering(&block, &mut [(&earlier, &mut memory.clone())])
        .remove(0);
    assert_eq!(late.sums, sums(&first));
    let mut reordered = block.clone();
    memory
        .clone()
        .reorder(&mut reordered, &travel, Ordered::TilesRead);
    assert_ne!(reordered.order_id(), 0);
    let (partial, effort) = backend
        .pass_remembering(&reordered, &mut [(&travel, &mut memory)])
        .remove(0);
    assert_eq!(partial.sums, sums(travel.centroids()));
    assert_eq!(effort.n_tiles_read, effort.n_tiles);
}

/// 60,000 rows in five groups that overlap, and the first rows to start from.
fn groups() -> (Block, Centroids) {
    let mut next = numbers(5);
    let centre = |next: &mut dyn FnMut(i32) -> i32| -> Vec<i32> {
        (0..6).map(|_| next(3_000_000) - 1_500_000).collect()
    };
    let centres: Vec<Vec<i32>> = (0..5).map(|_| centre(&mut next)).collect();
    let values: Vec<i32> = (0..60_000usize)
        .flat_map(|row| {
            let noise: Vec<i32> = (0..6).map(|_| next(2_600_000) - 1_300_000).collect();
            centres[row % 5]
                .iter()
                .zip(noise)
                .map(|(c, n)| c + n)
                .collect::<Vec<_>>()
        })
        .collect();
    let block = Block::from_rows(0, 6, &values, (0..60_000).collect()).unwrap();
    (block, Centroids::new(6, values[..5 * 6].to_vec()))
}

#[test]
fn a_fit_that_settles_reads_less_and_less() {
    let (block, start) = groups();
    let backend = CpuBackend::new();
    let mut travel = backend.travel(start);
    let mut memory = BlockMemory::default();
    let mut efforts: Vec<Effort> = Vec::new();
    loop {
        let (partial, effort) = backend
            .pass_remembering(&block, &mut [(&travel, &mut memory)])
            .remove(0);
        efforts.push(effort);
        let (centroids, shift) = lloyd::update(&partial, travel.centroids());
        travel.advance(&centroids, true);
        if shift == 0 {
            break;
        }
    }
    let last = efforts.last().unwrap();
    assert!(
        efforts.len() > 5 && last.n_tiles_read * 20 < last.n_tiles,
        "{efforts:?}"
    );
    assert!(last.n_unsafe_rows * 200 < 60_000, "{last:?}");
    assert!(memory.answer_unread(&travel).is_some() || last.n_tiles_read > 0);
}

#[test]
fn rows_in_order_are_looked_at_together() {
    let (block, start) = groups();
    for backend in backends() {
        let mut travel = backend.travel(start.clone());
        let mut memory = BlockMemory::default();
        let mut n_read = [0; 2];
        loop {
            let (mut ordered, mut memory_in_order) = (block.clone(), memory.clone());
            memory_in_order.reorder(&mut ordered, &travel, Ordered::TilesRead);
            let pass = |block: &Block, memory: &mut BlockMemory| {
                let mut answers = backend.pass_remembering(block, &mut [(&travel, memory)]);
                answers.remove(0)
            };
            let (partial, effort) = pass(&block, &mut memory);
            let (in_order, effort_in_order) = pass(&ordered, &mut memory_in_order);
            assert_eq!(partial.sums, in_order.sums);
            if ordered.order_id() != 0 {
                assert_eq!(effort.n_unsafe_rows, effort_in_order.n_unsafe_rows);
                n_read[0] += effort.n_tiles_read;
                n_read[1] += effort_in_order.n_tiles_read;
            }
            let (centroids, shift) = lloyd::update(&partial, travel.centroids());
            travel.advance(&centroids, true);
            if shift == 0 {
                break;
            }
        }
        assert!(0 < n_read[1] && n_read[1] * 2 < n_read[0], "{n_read:?}");
    }
}

/// A fit in which each pass gets the tiles that it asks for, or all but one of them if it `spoils`; passes, of which some tiles were enough, and
/// those of them that were wrong.
fn n_fragments_and_wrong(backend: &CpuBackend, spoils: bool) -> (u32, u32) {
    let (block, start) = groups();
    let mut travel = backend.travel(start);
    let mut memory = BlockMemory::default();
    let (mut n_fragments, mut n_wrong) = (0, 0);
    loop {
        let mut memory_apart = memory.clone();
        let mut asked = [(&travel, &mut memory_apart)];
        let planned = backend.plan(block.outline(), &mut asked);
        let tiles = planned.tiles().map(<[usize]>::to_vec);
        let apart = tiles.filter(|tiles| !tiles.is_empty()).map(|tiles| {
            let there = &tiles[usize::from(spoils)..];
            let some = fragment(&block, there, &tiles).expect("rows are cut in two");
            planned.run_on(&some).remove(0).0
        });
        let (partial, _) = backend
            .pass_remembering(&block, &mut [(&travel, &mut memory)])
            .remove(0);
        if let Some(apart) = apart {
            n_fragments += 1;
            n_wrong += u32::from(apart != partial);
        }
        let (centroids, shift) = lloyd::update(&partial, travel.centroids());
        travel.advance(&centroids, true);
        if shift == 0 {
            return (n_fragments, n_wrong);
        }
    }
}

#[test]
fn tiles_that_are_asked_for_are_needed_and_enough() {
    let (block, _) = groups();
    if block.cut_rows().is_none() {
        // This processor is no faster at products of 16 bits: no block is kept in parts.
        return;
    }
    for backend in backends() {
        let (n_fragments, n_wrong) = n_fragments_and_wrong(&backend, false);
        assert!(
            n_fragments > 5 && n_wrong == 0,
            "{n_wrong} of {n_fragments}"
        );
        let (_, n_wrong) = n_fragments_and_wrong(&backend, true);
        assert!(n_wrong > 0, "the comparison must be able to fail");
    }
}

#[test]
#[should_panic(expected = "tiles it will look at")]
fn tiles_that_are_not_there_are_noticed() {
    let (block, start) = groups();
    let backend = CpuBackend::new();
    let mut travel = backend.travel(start.clone());
    travel.advance(&start, true);
    let mut memory = BlockMemory::default();
    backend.pass_remembering(&block, &mut [(&travel, &mut memory)]);
    let mut asked = [(&travel, &mut memory)];
    let planned = backend.plan(block.outline(), &mut asked);
    match fragment(&block, &[], &[99_999]) {
        Some(some) => drop(planned.run_on(&some)),
        None => panic!("of whole blocks all tiles it will look at are there"),
    }
}

//! Passes that remember give what the definition gives, whatever the centroids do, and look at little.

use clientele_gpu::shaders::Flaw;
use clientele_gpu::{Fault, GpuBackend, OpenOptions, self_test};
use clientele_kmeans::cpu::{CpuBackend, Travel};
use clientele_kmeans::{
    Backend, BackendError, Block, Centroids, GRID_LIMIT, Partial, lloyd, reference,
};
use proptest::prelude::*;

use crate::problem::open;

const EDGE: i32 = GRID_LIMIT - 1;

/// How rows lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Groups that overlap.
    Blobs,
    /// Small integers: many rows are as far from one centroid as from another.
    Ties,
    /// On a line.
    Collinear,
    /// Only the ends of the grid and its middle.
    Extremes,
    /// All the same.
    Constant,
}

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

/// Blocks of rows, and where a fit of them starts.
struct Table {
    rows: Vec<Vec<Vec<i32>>>,
    blocks: Vec<Block>,
    centroids: Centroids,
    next: Numbers,
}

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: i32) -> i32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as i32
    }

    fn row(&mut self, kind: Kind, n_features: usize) -> Vec<i32> {
        let along = self.below(9) - 4;
        let group = self.below(5);
        let mut value = |f: usize| match kind {
            Kind::Blobs => {
                ((group as usize * 7 + f * 3) % 11) as i32 * 100_000 - 500_000 + self.below(500_000)
                    - 250_000
            }
            Kind::Ties => self.below(4),
            Kind::Collinear => along * 1_000 + self.below(2),
            Kind::Extremes => [-EDGE, EDGE, 0, 1][self.below(4) as usize],
            Kind::Constant => 7,
        };
        (0..n_features).map(&mut value).collect()
    }
}

impl Table {
    fn new(kind: Kind, n_rows: &[usize], n_features: usize, n_clusters: usize, seed: u64) -> Self {
        let mut next = Numbers(seed);
        let rows: Vec<Vec<Vec<i32>>> = n_rows
            .iter()
            .map(|&n| (0..n).map(|_| next.row(kind, n_features)).collect())
            .collect();
        let block = |rows: &Vec<Vec<i32>>| {
            Block::from_rows(0, n_features, &rows.concat(), vec![0; rows.len()]).unwrap()
        };
        let centroids = (0..n_clusters).flat_map(|_| next.row(kind, n_features));
        Self {
            blocks: rows.iter().map(block).collect(),
            centroids: Centroids::new(n_features, centroids.collect()),
            rows,
            next,
        }
    }

    fn on(
        &self,
        gpu: &GpuBackend,
        travel: &Travel,
        blocks: &[Block],
    ) -> Result<Partial, BackendError> {
        let mut pass = gpu.begin_remembering(travel)?;
        for block in blocks {
            pass.add(block)?;
        }
        Ok(pass.finish()?.remove(0))
    }

    /// Of the definition.
    fn expected(&self, centroids: &Centroids) -> (Vec<u64>, Vec<i64>) {
        let rows: Vec<Vec<i32>> = self.rows.concat();
        let of: Vec<Vec<i32>> = centroids.rows().map(<[i32]>::to_vec).collect();
        let labels = reference::labels(&rows, &of);
        let (counts, sums) = reference::partial(&rows, &labels, of.len(), centroids.n_features());
        (counts.iter().map(|&c| c as u64).collect(), sums.concat())
    }

    fn moved(&mut self, way: Way, centroids: &Centroids, partial: &Partial) -> Centroids {
        let mut values = centroids.values().to_vec();
        let (k, d) = (centroids.n_clusters() as i32, centroids.n_features());
        let next = &mut self.next;
        match way {
            Way::Lloyd => return lloyd::update(partial, centroids).0,
            Way::Creep => values
                .iter_mut()
                .for_each(|v| *v = (*v + next.below(3) - 1).clamp(-EDGE, EDGE)),
            Way::Jump => {
                let at = next.below(k) as usize * d;
                values[at..at + d]
                    .iter_mut()
                    .for_each(|v| *v = next.below(2 * EDGE) - EDGE);
            }
            Way::Merge => {
                let (from, to) = (next.below(k) as usize * d, next.below(k) as usize * d);
                values.copy_within(from..from + d, to);
            }
            Way::Stay => {}
        }
        Centroids::new(d, values)
    }

    /// Passes that are right, before one that is not.
    fn n_right(&mut self, gpu: &GpuBackend, ways: &[Way]) -> Result<usize, BackendError> {
        let mut centroids = self.centroids.clone();
        let mut travel = CpuBackend::new().travel(centroids.clone());
        for (pass, &way) in ways.iter().enumerate() {
            travel.advance(&centroids, true);
            let partial = self.on(gpu, &travel, &self.blocks)?;
            let (counts, sums) = self.expected(&centroids);
            if (&partial.counts, &partial.sums) != (&counts, &sums) {
                return Ok(pass);
            }
            centroids = self.moved(way, &centroids, &partial);
        }
        Ok(ways.len())
    }
}

fn always() -> OpenOptions {
    OpenOptions {
        always_remembers: true,
        ..OpenOptions::default()
    }
}

/// A fit to its end, and then some.
const FIT: [Way; 12] = [Way::Lloyd; 12];

#[test]
fn a_fit_of_any_shape_gives_the_integers_of_the_definition() {
    let Some(gpu) = open(always()) else { return };
    use Kind::{Blobs, Collinear, Constant, Extremes, Ties};
    use Way::{Creep, Jump, Lloyd, Merge, Stay};
    let ways = [
        Lloyd, Lloyd, Creep, Creep, Jump, Lloyd, Stay, Merge, Creep, Jump, Creep, Lloyd, Creep,
    ];
    for (n_features, n_clusters) in [
        (1, 2),
        (3, 9),
        (8, 8),
        (17, 31),
        (33, 4),
        (64, 5),
        (65, 12),
        (130, 256),
    ] {
        for kind in [Blobs, Ties, Collinear, Extremes, Constant] {
            let n_rows: &[usize] = if n_features > 60 {
                &[300, 17]
            } else {
                &[1_100, 1, 600]
            };
            let mut table = Table::new(kind, n_rows, n_features, n_clusters, 5);
            let n_right = table.n_right(&gpu, &ways).unwrap();
            assert_eq!(
                n_right,
                ways.len(),
                "{kind:?}, d = {n_features}, k = {n_clusters}"
            );
        }
    }
    let done = gpu.remembered();
    println!("{done:?}");
    assert!(done.n_passes > 200 && done.n_rows_looked_at * 10 < done.n_rows * 9);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_left_out_changes_nothing(
        kind in prop_oneof![Just(Kind::Blobs), Just(Kind::Ties), Just(Kind::Collinear), Just(Kind::Extremes), Just(Kind::Constant)],
        // Few numbers of features: each is a shader to compile.
        n_features in prop_oneof![Just(1usize), Just(3), Just(17), Just(70)],
        n_rows in prop::collection::vec(1..700usize, 1..4),
        n_clusters in 2..12usize,
        seed in any::<u64>(),
        ways in prop::collection::vec(prop_oneof![
            4 => Just(Way::Lloyd), 4 => Just(Way::Creep), 1 => Just(Way::Jump), 1 => Just(Way::Merge), 1 => Just(Way::Stay),
        ], 1..10),
    ) {
        if let Some(gpu) = insistent() {
            let mut table = Table::new(kind, &n_rows, n_features, n_clusters, seed);
            prop_assert_eq!(table.n_right(gpu, &ways).unwrap(), ways.len());
        }
    }
}

/// One device for all cases, so that each shader is compiled once.
fn insistent() -> Option<&'static GpuBackend> {
    static GPU: std::sync::OnceLock<Option<GpuBackend>> = std::sync::OnceLock::new();
    GPU.get_or_init(|| open(always())).as_ref()
}

#[test]
fn a_fit_that_settles_is_left_alone_more_and_more() {
    // Without being told to: from when it pays.
    let Some(gpu) = open(OpenOptions::default()) else {
        return;
    };
    let table = Table::new(Kind::Blobs, &[30_000, 20_000], 6, 5, 3);
    let cpu = CpuBackend::new();
    let mut travel = cpu.travel(table.centroids.clone());
    let (mut n_passes, mut last) = (0, clientele_gpu::Remembered::default());
    loop {
        let before = gpu.remembered();
        let partial = table.on(&gpu, &travel, &table.blocks).unwrap();
        last = match gpu.remembered() {
            now if now.n_passes == before.n_passes => last,
            now => clientele_gpu::Remembered {
                n_passes: now.n_passes,
                n_groups: now.n_groups - before.n_groups,
                n_groups_looked_at: now.n_groups_looked_at - before.n_groups_looked_at,
                n_rows: now.n_rows - before.n_rows,
                n_rows_looked_at: now.n_rows_looked_at - before.n_rows_looked_at,
            },
        };
        let plain = gpu.begin(std::slice::from_ref(travel.centroids()));
        let mut plain = plain.unwrap();
        table
            .blocks
            .iter()
            .for_each(|block| plain.add(block).unwrap());
        let plain = plain.finish().unwrap().remove(0);
        assert_eq!(
            (&partial.counts, &partial.sums),
            (&plain.counts, &plain.sums)
        );
        n_passes += 1;
        let (to, shift) = lloyd::update(&partial, travel.centroids());
        travel.advance(&to, true);
        if shift == 0 {
            break;
        }
    }
    println!(
        "{n_passes} passes, {:?}, the last {last:?}",
        gpu.remembered()
    );
    assert!(
        last.n_passes > 3 && last.n_passes < n_passes,
        "the first passes are plain"
    );
    assert!(last.n_rows_looked_at * 20 < last.n_rows, "{last:?}");
    assert!(last.n_groups_looked_at < last.n_groups, "{last:?}");
    // Centroids that stay where they are: not a row is read but those that no float can decide.
    let before = gpu.remembered();
    table.on(&gpu, &travel, &table.blocks).unwrap();
    let n_looked_at = gpu.remembered().n_rows_looked_at - before.n_rows_looked_at;
    assert!(gpu.remembered().n_passes == before.n_passes + 1 && n_looked_at * 500 < 50_000);
}

#[test]
fn the_self_test_leaves_rows_out_too() {
    let Some(gpu) = open(always()) else { return };
    assert_eq!(gpu.remembered(), clientele_gpu::Remembered::default());
    let answer = self_test::answer_in_steps(|block, travel| {
        let mut pass = gpu.begin_remembering(travel)?;
        pass.add(block)?;
        Ok(pass.finish()?.remove(0))
    });
    assert_eq!(answer, Ok(self_test::EXPECTED_IN_STEPS));
    let done = gpu.remembered();
    println!("{done:?}");
    assert!(
        done.n_passes >= 12 && done.n_rows_looked_at < done.n_rows,
        "{done:?}"
    );
}

#[test]
fn a_travel_that_is_counted_too_short_is_noticed() {
    let fit = |fault| {
        let options = OpenOptions { fault, ..always() };
        let gpu = open(options)?;
        let mut table = Table::new(Kind::Blobs, &[4_000], 5, 7, 1);
        let n_right = table.n_right(&gpu, &[Way::Lloyd; 30]).unwrap();
        assert_eq!(gpu.faults_fired() > 0, fault.is_some());
        Some(n_right)
    };
    let (Some(right), Some(wrong)) = (fit(None), fit(Some(Fault::ShortTravel))) else {
        return;
    };
    assert_eq!(right, 30);
    assert!(wrong < 30, "the comparison must be able to fail");
}

#[test]
fn a_mistake_in_the_shader_is_noticed() {
    for (flaw, kind, n_rows, n_features) in [
        (Flaw::NoDoubt, Kind::Ties, 3_000, 3),
        (Flaw::NoCarry, Kind::Extremes, 65_536, 1),
    ] {
        let options = OpenOptions {
            fault: Some(Fault::WrongShaders(flaw)),
            ..always()
        };
        let (Some(gpu), Some(flawed)) = (open(always()), open(options)) else {
            return;
        };
        let table = |gpu| {
            let mut table = Table::new(kind, &[n_rows], n_features, 4, 2);
            // The first pass brings the rows over, and is a plain one.
            table.n_right(gpu, &[Way::Stay, Way::Lloyd, Way::Lloyd])
        };
        assert_eq!(table(&gpu), Ok(3));
        let wrong = table(&flawed);
        assert!(
            flawed.faults_fired() > 0 && wrong != Ok(3),
            "{flaw:?} went unnoticed"
        );
    }
}

#[test]
fn more_uncertain_rows_than_the_list_has_room_for_are_settled_all_the_same() {
    let Some(gpu) = open(OpenOptions {
        binding_limit_bytes: Some(1 << 16),
        ..always()
    }) else {
        return;
    };
    let mut table = Table::new(Kind::Ties, &[4_000, 3_000, 700], 2, 8, 9);
    assert_eq!(table.n_right(&gpu, &FIT), Ok(FIT.len()));
    assert!(gpu.remembered().n_passes > 5);
}

#[test]
fn checked_shaders_give_the_same_answer() {
    let Some(gpu) = open(OpenOptions {
        checked_shaders: true,
        ..always()
    }) else {
        return;
    };
    for n_features in [3, 80] {
        let mut table = Table::new(Kind::Blobs, &[1_500], n_features, 9, 4);
        assert_eq!(table.n_right(&gpu, &FIT), Ok(FIT.len()));
    }
    assert!(gpu.remembered().n_passes > 5);
}

#[test]
fn blocks_that_come_and_go_and_other_fits_in_between_change_nothing() {
    let Some(gpu) = open(always()) else { return };
    let mut table = Table::new(Kind::Blobs, &[900, 1_000, 300, 20], 4, 6, 8);
    let other = Table::new(Kind::Blobs, &[500], 4, 3, 8);
    let cpu = CpuBackend::new();
    let mut travel = cpu.travel(table.centroids.clone());
    for pass in 0..14 {
        // Another choice of blocks each time, as when the CPU takes some.
        let chosen: Vec<Block> = table
            .blocks
            .iter()
            .enumerate()
            .filter(|(idx, _)| (pass + idx) % 3 > 0)
            .map(|(_, block)| block.clone())
            .collect();
        let got = table.on(&gpu, &travel, &chosen).unwrap();
        let mut expected = Partial::zero(6, 4);
        for block in &chosen {
            let centroids = std::slice::from_ref(travel.centroids());
            expected.merge(&cpu.pass(block, centroids, None).unwrap()[0]);
        }
        assert_eq!(
            (&got.counts, &got.sums),
            (&expected.counts, &expected.sums),
            "pass {pass}"
        );
        if pass % 4 == 3 {
            let mut of_other = cpu.travel(other.centroids.clone());
            of_other.advance(&other.centroids, true);
            let got = other.on(&gpu, &of_other, &other.blocks).unwrap();
            assert_eq!((got.counts, got.sums), other.expected(&other.centroids));
        }
        if pass == 9 {
            gpu.forget_all_but(&table.blocks[..2].iter().map(Block::serial).collect());
        }
        let all = table.on(&gpu, &travel, &table.blocks).unwrap();
        let to = table.moved(Way::Lloyd, &travel.centroids().clone(), &all);
        travel.advance(&to, true);
    }
    assert!(gpu.remembered().n_rows_looked_at < gpu.remembered().n_rows);
}

#[test]
fn a_device_without_room_for_it_remembers_nothing_and_is_right() {
    let Some(gpu) = open(OpenOptions {
        resident_limit_bytes: Some(4 * 4 * 2_000 + 500),
        ..always()
    }) else {
        return;
    };
    let mut table = Table::new(Kind::Blobs, &[2_000], 4, 5, 8);
    assert_eq!(table.n_right(&gpu, &FIT), Ok(FIT.len()));
    assert!(gpu.resident_bytes() > 0);
    assert_eq!(gpu.remembered().n_passes, 0);
}

#[test]
fn a_device_lost_in_mid_fit_is_an_error_for_this_and_every_later_pass() {
    let Some(gpu) = open(OpenOptions {
        fault: Some(Fault::LoseDeviceAfter { passes: 4 }),
        ..always()
    }) else {
        return;
    };
    let mut table = Table::new(Kind::Blobs, &[2_000], 4, 5, 8);
    for _ in 0..2 {
        let lost = table.n_right(&gpu, &FIT);
        assert!(
            matches!(lost, Err(BackendError::DeviceLost { .. })),
            "{lost:?}"
        );
    }
    assert_eq!((gpu.remembered().n_passes, gpu.faults_fired()), (3, 1));
}

//! The sweep, and plain loops, compiled for AVX-512 and AVX2.

mod avx2;
mod avx512;

use super::Vectorised;
use super::assign::{Assignment, sweep};
use crate::Block;
use avx2::{Avx2, Avx2Shorts};
use avx512::{Avx512, Avx512Shorts};

/// Tiles of 3 vectors x 8 centroids: 24 of 32 registers hold scores, of 16-bit products as of `f32`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn sweep_avx512_vnni(block: &Block, assignments: &mut [Assignment<'_>]) {
    // SAFETY: this function is compiled with what `Avx512Shorts` needs, and its caller has seen that the processor has it.
    unsafe { sweep::<Avx512Shorts<true>, 3>(block, assignments) }
}

/// See [`sweep_avx512_vnni`].
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn sweep_avx512(block: &Block, assignments: &mut [Assignment<'_>]) {
    // SAFETY: as above.
    unsafe { sweep::<Avx512Shorts<false>, 3>(block, assignments) }
}

/// See [`sweep_avx512_vnni`]; a tile of one vector is two registers of 16.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn sweep_avx2(block: &Block, assignments: &mut [Assignment<'_>]) {
    // SAFETY: as above.
    unsafe { sweep::<Avx2Shorts, 1>(block, assignments) }
}

/// Plain loops, in vectors of 64 bytes.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn run_avx512<W: Vectorised>(work: W) -> W::Output {
    // SAFETY: this function is compiled with what `Avx512` needs, and its caller has seen that the processor has it.
    unsafe { work.run::<Avx512>() }
}

/// Plain loops, in vectors of 32 bytes.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run_avx2<W: Vectorised>(work: W) -> W::Output {
    // SAFETY: this function is compiled with what `Avx2` needs, and its caller has seen that the processor has it.
    unsafe { work.run::<Avx2>() }
}

#[cfg(test)]
mod tests {
    use super::super::Kernel;
    use super::super::lanes::{FEW_CLUSTERS, Lanes, OfClusters, Scalar};
    use super::super::shorts::PlainShorts;
    use super::super::shorts::tests::{numbers, outcomes};
    use super::super::sums::{join, tests::added_and_moved};
    use super::*;
    use crate::split::{ChunkRoom, CutTile};
    use crate::{LANES, Partial};

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn outcomes_vnni(numbers: &[[i32; LANES]]) -> Vec<[i32; LANES]> {
        // SAFETY: as for `sweep_avx512_vnni`.
        unsafe { outcomes::<Avx512Shorts<true>>(numbers) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn outcomes_avx512(numbers: &[[i32; LANES]]) -> Vec<[i32; LANES]> {
        // SAFETY: as for `sweep_avx512`.
        unsafe { outcomes::<Avx512Shorts<false>>(numbers) }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn outcomes_avx2(numbers: &[[i32; LANES]]) -> Vec<[i32; LANES]> {
        // SAFETY: as for `sweep_avx2`.
        unsafe { outcomes::<Avx2Shorts>(numbers) }
    }

    #[inline(always)]
    unsafe fn transposed<L: Lanes>(columns: &[[f32; LANES]; LANES]) -> [[i32; LANES]; LANES] {
        let mut rows = [[0; LANES]; LANES];
        // SAFETY: passed on to the caller.
        unsafe { L::transpose(columns, &mut rows, 1) };
        rows
    }

    /// What is made of tiles cut in two, of rows of every width: columns, rows, and where labels differ.
    #[inline(always)]
    unsafe fn put_together<L: Lanes>() -> (Vec<[f32; LANES]>, Vec<[i32; LANES]>, Vec<u32>) {
        let (mut all_columns, mut all_rows, mut all_differing) =
            (Vec::new(), Vec::new(), Vec::new());
        for (shift, n_features) in (0..=8u32).zip([2usize, 3, 8, 15, 16, 17, 31, 32, 50]) {
            let word = |at: usize| (at as i32 * 0x1234_5677).rotate_left(shift);
            let pairs: Vec<[i32; LANES]> = (0..n_features.div_ceil(2))
                .map(|pair| std::array::from_fn(|lane| word(pair * LANES + lane)))
                .collect();
            let lower: Vec<i32> = (0..LANES * n_features.div_ceil(4))
                .map(|at| word(at + 77).rotate_left(9))
                .collect();
            let mut origin = vec![[0; LANES]; n_features.div_ceil(LANES)];
            for (f, origin) in origin.as_flattened_mut()[..n_features]
                .iter_mut()
                .enumerate()
            {
                *origin = f as i32 * 90_001 - 70_001;
            }
            let tile = CutTile {
                pairs: &pairs,
                lower: &lower,
                origin: &origin,
                shift,
            };
            let mut columns = vec![[0.0; LANES]; n_features];
            let mut rows = vec![[0; LANES]; LANES * origin.len()];
            // SAFETY: passed on to the caller.
            unsafe {
                join::<L>(tile, &mut columns);
                for chunk_idx in 0..origin.len() {
                    let mut room = ChunkRoom::default();
                    let chunk = tile.chunk(chunk_idx, &mut room);
                    L::turn_cut(chunk, &mut rows[chunk_idx..], origin.len());
                }
                for bit in 0..LANES {
                    let (labels, mut other) = ([7; LANES], [7; LANES]);
                    other[bit] = 7 | 1 << bit;
                    other[LANES - 1 - bit] = 0x8007;
                    all_differing.push(L::differing(&labels, &other));
                }
            }
            for lane in 0..LANES {
                let row = rows[lane * origin.len()..][..origin.len()].as_flattened();
                assert!((0..n_features).all(|f| row[f] as f32 == columns[f][lane]));
            }
            all_columns.extend(columns);
            all_rows.extend(rows);
        }
        (all_columns, all_rows, all_differing)
    }

    /// What clusters have for labels, of few clusters and of many.
    #[inline(always)]
    unsafe fn looked_up<L: Lanes>() -> Vec<[u16; LANES]> {
        let mut all = Vec::new();
        for n_clusters in [1, 2, 33, FEW_CLUSTERS, FEW_CLUSTERS + 1, 700] {
            let of_clusters = OfClusters::new((0..n_clusters as u16).map(|c| c ^ 0xa5c3).collect());
            for first in 0..n_clusters {
                let labels = std::array::from_fn(|lane| ((first + lane * 7) % n_clusters) as u16);
                // SAFETY: passed on to the caller.
                let found = unsafe { of_clusters.of_labels::<L>(&labels) };
                assert_eq!(found, labels.map(|label| label ^ 0xa5c3), "{n_clusters}");
                all.push(found);
            }
        }
        all
    }

    type Everything = (
        [[i32; LANES]; LANES],
        (Vec<[f32; LANES]>, Vec<[i32; LANES]>, Vec<u32>),
        Vec<[u16; LANES]>,
        Vec<Partial>,
    );

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn on_avx512(columns: &[[f32; LANES]; LANES]) -> Everything {
        // SAFETY: as for `sweep_avx512`.
        unsafe {
            (
                transposed::<Avx512>(columns),
                put_together::<Avx512>(),
                looked_up::<Avx512>(),
                added_and_moved::<Avx512>(),
            )
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn on_avx2(columns: &[[f32; LANES]; LANES]) -> Everything {
        // SAFETY: as for `sweep_avx2`.
        unsafe {
            (
                transposed::<Avx2>(columns),
                put_together::<Avx2>(),
                looked_up::<Avx2>(),
                added_and_moved::<Avx2>(),
            )
        }
    }

    #[test]
    fn sixteen_bit_products_are_those_of_plain_rust() {
        type Outcomes = unsafe fn(&[[i32; LANES]]) -> Vec<[i32; LANES]>;
        let kernels: [(Kernel, Outcomes); 3] = [
            (Kernel::Avx512Vnni, outcomes_vnni),
            (Kernel::Avx512, outcomes_avx512),
            (Kernel::Avx2, outcomes_avx2),
        ];
        let numbers = numbers();
        // SAFETY: `Scalar` needs nothing.
        let plain = unsafe { outcomes::<PlainShorts<Scalar>>(&numbers) };
        for (kernel, outcomes) in kernels {
            if !Kernel::available().contains(&kernel) {
                eprintln!("not checked: this processor has no {kernel:?}");
                continue;
            }
            // SAFETY: just seen.
            let own = unsafe { outcomes(&numbers) };
            let first_wrong = own.iter().zip(&plain).position(|(own, plain)| own != plain);
            assert_eq!(first_wrong, None, "{kernel:?}");
        }
    }

    #[test]
    fn tiles_and_labels_become_what_plain_rust_makes_of_them() {
        let columns: [[f32; LANES]; LANES] =
            std::array::from_fn(|f| std::array::from_fn(|lane| (f * 100 + lane) as f32 - 777.0));
        let rows = std::array::from_fn(|lane| std::array::from_fn(|f| columns[f][lane] as i32));
        // SAFETY: `Scalar` needs nothing.
        let expected = unsafe {
            (
                rows,
                put_together::<Scalar>(),
                looked_up::<Scalar>(),
                added_and_moved::<Scalar>(),
            )
        };
        let available = Kernel::available();
        if available.contains(&Kernel::Avx2) {
            // SAFETY: just seen.
            assert_eq!(unsafe { on_avx2(&columns) }, expected);
        }
        if available.contains(&Kernel::Avx512) {
            // SAFETY: just seen.
            assert_eq!(unsafe { on_avx512(&columns) }, expected);
        }
    }
}

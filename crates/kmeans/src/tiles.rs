//! Memory for tiles: in cache lines, and in large pages where the system gives them.

use std::ops::{Deref, DerefMut};

use crate::LANES;

/// From this size on, memory comes from the system in pages of its own, so that it may ask for large ones: a table of 4 KiB pages costs
/// a fast kernel more time than the rows.
const OWN_PAGES_BYTES: usize = 1 << 20;

/// One feature of the rows of a tile: a cache line, and no load of it crosses one.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Column([f32; LANES]);

/// A zeroed array of `f32`, a multiple of [`LANES`] long, that begins at a cache line.
pub struct Tiles {
    /// For as many columns or more.
    memory: Memory,
    n_columns: usize,
}

enum Memory {
    Heap(Vec<Column>),
    Pages(memmap2::MmapMut),
}

impl Tiles {
    /// `n_columns` columns of [`LANES`] zeros.
    pub fn zeroed(n_columns: usize) -> Self {
        let n_bytes = n_columns * size_of::<Column>();
        if n_bytes >= OWN_PAGES_BYTES
            && let Ok(pages) = memmap2::MmapMut::map_anon(n_bytes)
        {
            // Small pages are slower, not wrong.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            let memory = Memory::Pages(pages);
            return Self { memory, n_columns };
        }
        let memory = Memory::Heap(vec![Column([0.0; LANES]); n_columns]);
        Self { memory, n_columns }
    }

    /// Becomes `n_columns` columns long, whatever is in them: in the memory that it has, if that is enough, and else in new one.
    pub fn refit(&mut self, n_columns: usize) {
        match n_columns <= self.memory.columns().len() {
            true => self.n_columns = n_columns,
            false => *self = Self::zeroed(n_columns),
        }
    }

    /// Keeps the first `n_columns` columns, where they are if the system takes back what lies behind them.
    ///
    /// # Panics
    /// When there are not as many.
    pub fn shorten(&mut self, n_columns: usize) {
        assert!(n_columns * LANES <= self.len(), "fewer columns, not more");
        let is_shorter = match &mut self.memory {
            Memory::Heap(columns) => {
                columns.truncate(n_columns);
                columns.shrink_to_fit();
                true
            }
            #[cfg(target_os = "linux")]
            Memory::Pages(pages) => {
                let n_bytes = n_columns * size_of::<Column>();
                // SAFETY: no file is behind these pages, and there are fewer of them afterwards.
                unsafe { pages.remap(n_bytes, memmap2::RemapOptions::new()) }.is_ok()
            }
            #[cfg(not(target_os = "linux"))]
            Memory::Pages(_) => false,
        };
        if is_shorter {
            self.n_columns = n_columns;
        } else {
            let mut shorter = Self::zeroed(n_columns);
            shorter.copy_from_slice(&self[..n_columns * LANES]);
            *self = shorter;
        }
    }
}

impl Memory {
    fn columns(&self) -> &[Column] {
        match self {
            Self::Heap(columns) => columns,
            Self::Pages(pages) => bytemuck::cast_slice(pages),
        }
    }
}

impl Default for Tiles {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl Deref for Tiles {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        bytemuck::cast_slice(&self.memory.columns()[..self.n_columns])
    }
}

impl DerefMut for Tiles {
    fn deref_mut(&mut self) -> &mut [f32] {
        let columns: &mut [Column] = match &mut self.memory {
            Memory::Heap(columns) => columns,
            Memory::Pages(pages) => bytemuck::cast_slice_mut(pages),
        };
        bytemuck::cast_slice_mut(&mut columns[..self.n_columns])
    }
}

impl Clone for Tiles {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len() / LANES);
        copy.copy_from_slice(self);
        copy
    }
}

impl PartialEq for Tiles {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl std::fmt::Debug for Tiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_shortened_memory_is_as_it_was() {
        for n_columns in [1, 100, OWN_PAGES_BYTES / 64, 70_000] {
            let mut tiles = Tiles::zeroed(n_columns);
            (0..)
                .zip(tiles.iter_mut())
                .for_each(|(at, value)| *value = at as f32);
            for n_left in [n_columns, n_columns * 3 / 4, n_columns / 70, 0] {
                tiles.shorten(n_left);
                assert_eq!(tiles.len(), n_left * LANES);
                assert!(
                    (0..)
                        .zip(tiles.iter())
                        .all(|(at, value)| *value == at as f32)
                );
                assert_eq!(tiles.as_ptr().addr() % 64, 0);
            }
        }
    }

    #[test]
    fn memory_that_is_enough_serves_again() {
        for n_columns in [100, 70_000] {
            let mut tiles = Tiles::zeroed(n_columns);
            let place = tiles.as_ptr();
            for n_wanted in [n_columns / 3, 0, n_columns] {
                tiles.refit(n_wanted);
                assert_eq!((tiles.as_ptr(), tiles.len()), (place, n_wanted * LANES));
                assert_eq!(tiles.clone(), tiles);
            }
            tiles.refit(n_columns / 2);
            tiles.shorten(n_columns / 4);
            assert_eq!(tiles.len(), n_columns / 4 * LANES);
            tiles.refit(n_columns + 1);
            assert_eq!(tiles.len(), (n_columns + 1) * LANES);
        }
    }

    #[test]
    fn memory_is_zeroed_aligned_and_its_own_whatever_its_size() {
        for n_columns in [0, 1, 100, OWN_PAGES_BYTES / 64, 70_000] {
            let mut tiles = Tiles::zeroed(n_columns);
            assert_eq!(tiles.len(), n_columns * LANES);
            assert!(tiles.iter().all(|value| *value == 0.0));
            assert_eq!(tiles.as_ptr().addr() % 64, 0);
            let copy = tiles.clone();
            if let Some(last) = tiles.last_mut() {
                *last = 3.0;
                assert_ne!(copy, tiles);
            }
            tiles.fill(0.0);
            assert_eq!(copy, tiles);
        }
    }
}

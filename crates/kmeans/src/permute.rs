//! Rows in another order, a segment at a time: what [`crate::Block::reorder`] is made of.

use crate::LANES;

/// Rows that change places with each other only: few enough for the second-level cache, enough to find like with like.
pub(crate) const SEGMENT_ROWS: usize = 4_096;
pub(crate) const SEGMENT_TILES: usize = SEGMENT_ROWS / LANES;

/// Tiles of a segment whose rows change places with each other.
pub(crate) struct Moves {
    /// Which, in the segment and in order.
    pub(crate) tiles: Vec<usize>,
    /// [tiles] where the row in each lane comes from: its place in these tiles. Lanes beyond the last row keep what they have.
    pub(crate) from: Vec<[u16; LANES]>,
}

impl Moves {
    /// Of a segment, whose rows are to be those of `order`.
    ///
    /// # Panics
    /// When a row of `order` is not of segment `segment_idx`, or a row is given up for another that stays.
    pub(crate) fn new(segment_idx: usize, order: &[u16]) -> Self {
        let first = segment_idx * SEGMENT_ROWS;
        let place_of = |row: u16| {
            let place = usize::from(row).wrapping_sub(first);
            assert!(place < SEGMENT_ROWS, "rows stay in their segment");
            place
        };
        let moves = |tile: usize, rows: &[u16]| {
            let mut places = (tile * LANES..).zip(rows);
            places.any(|(place, row)| place_of(*row) != place)
        };
        let all = order.chunks(LANES).enumerate();
        let (tiles, orders): (Vec<usize>, Vec<&[u16]>) =
            all.filter(|(tile, rows)| moves(*tile, rows)).unzip();
        let mut nth_of = [None; SEGMENT_TILES];
        for (nth, tile) in tiles.iter().enumerate() {
            nth_of[*tile] = Some(nth * LANES);
        }
        let from = orders.into_iter().enumerate().map(|(nth, rows)| {
            let mut from = [0; LANES];
            for (lane, from) in from.iter_mut().enumerate() {
                *from = match rows.get(lane).map(|row| place_of(*row)) {
                    Some(place) => {
                        let first =
                            nth_of[place / LANES].expect("rows change places with each other");
                        (first + place % LANES) as u16
                    }
                    None => (nth * LANES + lane) as u16,
                };
            }
            from
        });
        let from = from.collect();
        Self { tiles, from }
    }

    /// Makes these changes in `columns` [tiles of the segment x n_columns].
    ///
    /// Column by column: then what is picked from lies in the first-level cache.
    #[inline(always)]
    pub(crate) fn permute<T: Copy + Default>(&self, columns: &mut [[T; LANES]], n_columns: usize) {
        let mut given = [[T::default(); LANES]; SEGMENT_TILES];
        for column_idx in 0..n_columns {
            for (given, tile) in given.iter_mut().zip(&self.tiles) {
                *given = columns[tile * n_columns + column_idx];
            }
            for (from, tile) in self.from.iter().zip(&self.tiles) {
                columns[tile * n_columns + column_idx] = pick(&given, from);
            }
        }
    }

    /// Makes these changes in `rows` [rows of the segment x width].
    pub(crate) fn permute_rows(&self, rows: &mut [i32], width: usize) {
        let n_words = LANES * width;
        let tiles = self.tiles.iter();
        let mut given = Vec::with_capacity(tiles.len() * n_words);
        tiles.for_each(|tile| given.extend_from_slice(&rows[tile * n_words..][..n_words]));
        for (from, tile) in self.from.iter().zip(&self.tiles) {
            let rows = rows[tile * n_words..][..n_words].chunks_exact_mut(width);
            for (row, &place) in rows.zip(from) {
                row.copy_from_slice(&given[usize::from(place) * width..][..width]);
            }
        }
    }
}

/// The values of the rows `from` of a segment.
#[inline(always)]
pub(crate) fn pick<T: Copy + Default>(
    column: &[[T; LANES]; SEGMENT_TILES],
    from: &[u16; LANES],
) -> [T; LANES] {
    let rows = column.as_flattened();
    let mut picked = [T::default(); LANES];
    for lane in 0..LANES {
        // Masked, an index needs no check: a segment is a power of two of rows.
        picked[lane] = rows[usize::from(from[lane]) % SEGMENT_ROWS];
    }
    picked
}

/// Room for a number of each row of a segment.
pub(crate) type OfRows<T> = [[T; LANES]; SEGMENT_TILES];

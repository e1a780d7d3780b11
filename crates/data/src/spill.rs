//! Blocks as bytes on disk: compact, and with a sum that notices damage.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytemuck::{Pod, cast_slice, cast_slice_mut};
use clientele_kmeans::{Block, CutRows, Fragment, Frame, LANES, Outline, TileRoom, Tiles};

use crate::DataError;
use crate::checksum::{Checksum, Sum, sum_of};
use crate::ingest::GridBlock;
use crate::manifest::BlockId;
use crate::positioned::{read_exact_at, write_all_at};
use crate::vectors::{self, Vectorised};

/// Grid values take 23 bits; those that are not cut in two are stored as 24: for each [`LANES`] of them the low 16 bits, then the high 8.
const LANE_BYTES: usize = LANES * 3;
/// Lanes read at a time, so that the bytes are summed up and unpacked while they are in cache: 192 KiB.
const CHUNK_LANES: usize = 4_096;
/// Adding 1.5 x 2^23 to a grid value puts it, plus 2^22, into the low 23 bits of the float.
const LIFT: f32 = 12_582_912.0;
const LIFTED_HIGH_BITS: u32 = 0x4b00_0000;
/// Tiles that are summed up together are at least this long; disks read no less at a time.
const UNIT_BYTES: usize = 4 << 10;
/// What it costs to read bytes elsewhere, in bytes that are read meanwhile.
const SEEK_BYTES: usize = 8 << 10;
/// Where more than this share of a block would be read in pieces, all of it is read in one.
const MOST_IN_PIECES: f64 = 0.5;

/// Where a block lies in the file of a store, and its shape.
#[derive(Debug)]
pub(crate) struct Spilled {
    pub(crate) file: Arc<File>,
    offset: u64,
    shape: Shape,
}

/// What the bytes of a block are.
#[derive(Debug)]
pub(crate) struct Shape {
    n_bytes: u64,
    checksum: Checksum,
    n_rows: usize,
    n_features: usize,
    /// Of rows that are kept as they lie, since they are cut in two; others are packed.
    cut: Option<CutShape>,
    has_values: bool,
    has_source_rows: bool,
}

/// What the bytes of rows are that are kept as they lie, and how to tell of some of them that they are those that were written.
#[derive(Debug)]
struct CutShape {
    frame: Frame,
    unit_tiles: usize,
    /// Of each so many tiles, in order.
    unit_sums: Vec<u64>,
    norms_sum: u64,
}

/// What a block is read into.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(crate) tiles: Tiles,
    pub(crate) keys: Vec<u64>,
}

/// The bytes of a block in pieces, one after the other, and their shape. They are this machine's: nobody else reads them.
pub(crate) fn encode(block: &GridBlock) -> (Vec<Cow<'_, [u8]>>, Shape) {
    let grid = &block.block;
    let mut given = None;
    let (rows, cut): (Vec<Cow<'_, [u8]>>, _) = match grid.cut_rows() {
        Some(cut) => {
            let [norms, short_norms] = cut.norms.map(cast_slice);
            let pieces = [cast_slice(cut.lines), norms, short_norms];
            given = Some(cut.given);
            (pieces.map(Cow::Borrowed).into(), Some(CutShape::of(cut)))
        }
        None => (vec![Cow::Owned(packed(grid))], None),
    };
    let others: [&[u8]; 3] = [
        cast_slice(grid.keys()),
        cast_slice(block.values.as_deref().unwrap_or_default()),
        cast_slice(block.source_rows.as_deref().unwrap_or_default()),
    ];
    let mut pieces = rows;
    pieces.extend(others.map(Cow::Borrowed));
    pieces.push(Cow::Borrowed(cast_slice(given.unwrap_or_default())));
    let mut checksum = Checksum::default();
    for piece in &pieces {
        vectors::run(Sum {
            bytes: piece,
            checksum: &mut checksum,
        });
    }
    // Rows that change places later need no more of the disk than now.
    if given.is_some_and(<[u16]>::is_empty) {
        pieces.push(Cow::Owned(vec![0; grid.n_rows() * size_of::<u16>()]));
    }
    let shape = Shape {
        n_bytes: pieces.iter().map(|piece| piece.len() as u64).sum(),
        checksum,
        n_rows: grid.n_rows(),
        n_features: grid.n_features(),
        cut,
        has_values: block.values.is_some(),
        has_source_rows: block.source_rows.is_some(),
    };
    (pieces, shape)
}

fn packed(block: &Block) -> Vec<u8> {
    let n_tiles = block.n_rows().div_ceil(LANES);
    let mut bytes = vec![0; n_tiles * block.n_features() * LANE_BYTES];
    vectors::run(Encode {
        block,
        out: &mut bytes,
    });
    bytes
}

/// Packs grid values.
struct Encode<'a> {
    block: &'a Block,
    out: &'a mut [u8],
}

impl Vectorised for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut room = TileRoom::default();
        let (packed, _) = self.out.as_chunks_mut::<LANE_BYTES>();
        let packed = packed.chunks_exact_mut(self.block.n_features());
        for (tile_idx, packed) in packed.enumerate() {
            for (lanes, packed) in self.block.tile(tile_idx, &mut room).iter().zip(packed) {
                let (low, high) = packed.split_at_mut(LANES * 2);
                let (low, _) = low.as_chunks_mut::<2>();
                for lane in 0..LANES {
                    let bits = (lanes[lane] + LIFT).to_bits();
                    low[lane] = (bits as u16).to_le_bytes();
                    high[lane] = (bits >> 16) as u8;
                }
            }
        }
    }
}

/// Unpacks and sums up what was read, while it is in cache.
struct Decode<'a> {
    bytes: &'a [u8],
    out: &'a mut [f32],
    checksum: &'a mut Checksum,
}

impl Vectorised for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.checksum.update(self.bytes);
        let (packed, _) = self.bytes.as_chunks::<LANE_BYTES>();
        let (lanes, _) = self.out.as_chunks_mut::<LANES>();
        for (packed, lanes) in packed.iter().zip(lanes) {
            let (low, high) = packed.split_at(LANES * 2);
            let (low, _) = low.as_chunks::<2>();
            for lane in 0..LANES {
                let low = u32::from(u16::from_le_bytes(low[lane]));
                let bits = low | u32::from(high[lane]) << 16 | LIFTED_HIGH_BITS;
                lanes[lane] = f32::from_bits(bits) - LIFT;
            }
        }
    }
}

impl Shape {
    /// Bytes on disk.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }
}

impl CutShape {
    fn of(cut: CutRows<'_>) -> Self {
        let frame = cut.frame;
        let n_tiles = frame.n_tiles();
        let tile_bytes = size_of_val(cut.lines) / n_tiles.max(1);
        let unit_tiles = UNIT_BYTES.div_ceil(tile_bytes.max(1)).next_power_of_two();
        let [norms, short_norms] = cut.norms.map(cast_slice);
        let mut this = Self {
            frame,
            unit_tiles,
            unit_sums: Vec::new(),
            norms_sum: sum_of([norms, short_norms]),
        };
        let units = 0..n_tiles.div_ceil(unit_tiles);
        this.unit_sums = units
            .map(|unit| this.sum_of_unit(unit, cut.lines))
            .collect();
        this
    }

    fn tiles_of(&self, units: Range<usize>) -> Range<usize> {
        units.start * self.unit_tiles..(units.end * self.unit_tiles).min(self.frame.n_tiles())
    }

    fn sum_of_unit(&self, unit: usize, lines: &[f32]) -> u64 {
        let places = self.frame.words_of(self.tiles_of(unit..unit + 1));
        sum_of(places.map(|words| cast_slice(&lines[words])))
    }

    /// Runs of units that have all of `tiles`, as it is quickest to read them; `None` if that is all at once.
    fn runs_with(&self, tiles: &[usize]) -> Option<Vec<Range<usize>>> {
        let unit_bytes =
            size_of::<f32>() * self.frame.n_columns() * LANES / self.unit_sums.len().max(1);
        let mut runs: Vec<Range<usize>> = Vec::new();
        for &tile_idx in tiles {
            let unit = tile_idx / self.unit_tiles;
            match runs.last_mut() {
                // Both halves are found anew after a gap.
                Some(run) if unit.saturating_sub(run.end) * unit_bytes <= 2 * SEEK_BYTES => {
                    run.end = run.end.max(unit + 1);
                }
                _ => runs.push(unit..unit + 1),
            }
        }
        let bytes_read: usize = runs
            .iter()
            .map(|run| run.len() * unit_bytes + 2 * SEEK_BYTES)
            .sum();
        let most_bytes = MOST_IN_PIECES * (self.unit_sums.len() * unit_bytes) as f64;
        (bytes_read as f64 <= most_bytes).then_some(runs)
    }
}

impl Spilled {
    /// Writes a block at `offset` of `file`, `pieces` and `shape` as [`encode`] gives them.
    pub(crate) fn write(
        file: Arc<File>,
        offset: u64,
        (pieces, shape): (Vec<Cow<'_, [u8]>>, Shape),
    ) -> io::Result<Self> {
        let mut end = offset;
        for piece in pieces {
            write_all_at(&file, &piece, end)?;
            end += piece.len() as u64;
        }
        Ok(Self {
            file,
            offset,
            shape,
        })
    }

    /// The same block, whose rows have changed places, where it was.
    pub(crate) fn rewrite(&self, block: &GridBlock) -> io::Result<Self> {
        let encoded = encode(block);
        assert_eq!(encoded.1.n_bytes, self.shape.n_bytes, "as long as it was");
        Self::write(self.file.clone(), self.offset, encoded)
    }

    /// What a pass must know of the rows, if parts of them can be read.
    pub(crate) fn outline(&self) -> Option<Outline> {
        self.shape.cut.as_ref().map(|cut| cut.frame.outline())
    }

    /// Reads the block into `room`.
    pub(crate) fn read(
        &self,
        id: BlockId,
        room: Room,
        spill_dir: &Path,
    ) -> Result<GridBlock, DataError> {
        let shape = &self.shape;
        let mut reader = Reader {
            spilled: self,
            offset: self.offset,
            checksum: Checksum::default(),
        };
        let unreadable = |error| DataError::io("read spilled rows from", spill_dir, error);
        let Room {
            mut tiles,
            mut keys,
        } = room;
        let frame = shape.cut.as_ref().map(|cut| &cut.frame);
        let n_columns = match frame {
            Some(frame) => frame.n_columns(),
            None => shape.n_rows.div_ceil(LANES) * shape.n_features,
        };
        tiles.refit(n_columns);
        let mut norms = vec![0f32; frame.map_or(0, Frame::n_norms)];
        match frame {
            Some(_) => reader.words(&mut tiles),
            None => reader.packed(&mut tiles),
        }
        .map_err(unreadable)?;
        // The two kinds were summed up apart.
        let n_tiles = norms.len() / 2;
        let (tile_norms, short_norms) = norms.split_at_mut(n_tiles);
        reader.words(tile_norms).map_err(unreadable)?;
        reader.words(short_norms).map_err(unreadable)?;
        keys.resize(shape.n_rows, 0);
        reader.words(&mut keys).map_err(unreadable)?;
        let values = reader.numbers(shape.has_values).map_err(unreadable)?;
        let source_rows = reader.numbers(shape.has_source_rows).map_err(unreadable)?;
        let mut given = vec![0u16; frame.map_or(0, Frame::n_given)];
        reader.words(&mut given).map_err(unreadable)?;
        let damaged = DataError::SpillDamaged { block: id };
        if reader.checksum != shape.checksum {
            return Err(damaged);
        }
        let block = match frame {
            Some(frame) => frame.block(tiles, norms, given, keys),
            None => Block::from_tiles(u64::from(id.0), shape.n_features, tiles, keys)
                .map_err(|_| damaged)?,
        };
        Ok(GridBlock {
            block,
            values,
            source_rows,
        })
    }

    /// Reads some tiles of the block, given in order, into `room`, unless it would be quicker to read all. How many were read with them, and what it
    /// did not need of the room.
    pub(crate) fn read_tiles(
        &self,
        id: BlockId,
        tiles: &[usize],
        room: Room,
        spill_dir: &Path,
    ) -> Result<(Option<Fragment>, usize, Room), DataError> {
        let cut = self.shape.cut.as_ref();
        let Some((cut, runs)) = cut.and_then(|cut| Some((cut, cut.runs_with(tiles)?))) else {
            return Ok((None, 0, room));
        };
        let frame = &cut.frame;
        let Room {
            tiles: mut lines,
            keys,
        } = room;
        lines.refit(frame.n_columns());
        let mut norms = vec![0f32; frame.n_norms()];
        let pieces = runs
            .iter()
            .flat_map(|run| frame.words_of(cut.tiles_of(run.clone())));
        let pieces: Vec<Range<usize>> = pieces.collect();
        let norms_at = self.offset + size_of_val(&*lines) as u64;
        // All are asked for before the first is waited for.
        advise(&self.file, norms_at, size_of_val(&*norms));
        for words in &pieces {
            self.advise_words(words);
        }
        let unreadable = |error| DataError::io("read spilled rows from", spill_dir, error);
        read_exact_at(&self.file, cast_slice_mut(&mut norms), norms_at).map_err(unreadable)?;
        for words in pieces {
            let at = self.offset + (words.start * size_of::<f32>()) as u64;
            let bytes = cast_slice_mut(&mut lines[words]);
            read_exact_at(&self.file, bytes, at).map_err(unreadable)?;
        }
        let [tile_norms, short_norms] = {
            let (of_tiles, short) = norms.split_at(frame.n_tiles());
            [of_tiles, short].map(cast_slice)
        };
        let mut units = runs.iter().cloned().flatten();
        let is_damaged = sum_of([tile_norms, short_norms]) != cut.norms_sum
            || units.any(|unit| cut.sum_of_unit(unit, &lines) != cut.unit_sums[unit]);
        if is_damaged {
            return Err(DataError::SpillDamaged { block: id });
        }
        let fragment = frame.fragment(lines, norms, tiles.to_vec());
        let tiles = Tiles::default();
        let n_tiles_read = runs.iter().map(|run| cut.tiles_of(run.clone()).len()).sum();
        Ok((Some(fragment), n_tiles_read, Room { tiles, keys }))
    }

    fn advise_words(&self, words: &Range<usize>) {
        let at = self.offset + (words.start * size_of::<f32>()) as u64;
        advise(&self.file, at, words.len() * size_of::<f32>());
    }
}

/// Tells the system that a block will be read.
pub(crate) fn will_need(spilled: &Spilled) {
    advise(
        &spilled.file,
        spilled.offset,
        spilled.shape.n_bytes as usize,
    );
}

/// Tells the system that bytes will be read.
fn advise(file: &File, offset: u64, n_bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        let n_bytes = std::num::NonZeroU64::new(n_bytes as u64);
        // Advice that is not taken changes nothing.
        let advice = rustix::fs::Advice::WillNeed;
        let _ = rustix::fs::fadvise(file, offset, n_bytes, advice);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, n_bytes);
}

/// Reads one spilled block from front to back.
struct Reader<'a> {
    spilled: &'a Spilled,
    offset: u64,
    checksum: Checksum,
}

impl Reader<'_> {
    /// Packed tiles.
    fn packed(&mut self, tiles: &mut [f32]) -> io::Result<()> {
        let mut chunk = vec![0; (CHUNK_LANES * LANE_BYTES).min(tiles.len() / LANES * LANE_BYTES)];
        for lanes in tiles.chunks_mut(CHUNK_LANES * LANES) {
            let bytes = &mut chunk[..lanes.len() / LANES * LANE_BYTES];
            read_exact_at(&self.spilled.file, bytes, self.offset)?;
            self.offset += bytes.len() as u64;
            vectors::run(Decode {
                bytes,
                out: lanes,
                checksum: &mut self.checksum,
            });
        }
        Ok(())
    }

    /// Words as they were.
    fn words<T: Pod>(&mut self, words: &mut [T]) -> io::Result<()> {
        for bytes in cast_slice_mut::<T, u8>(words).chunks_mut(CHUNK_LANES * LANE_BYTES) {
            read_exact_at(&self.spilled.file, bytes, self.offset)?;
            self.offset += bytes.len() as u64;
            vectors::run(Sum {
                bytes,
                checksum: &mut self.checksum,
            });
        }
        Ok(())
    }

    /// One number a row, if there are any.
    fn numbers<T: Pod>(&mut self, are_there: bool) -> io::Result<Option<Vec<T>>> {
        if !are_there {
            return Ok(None);
        }
        let mut numbers = vec![T::zeroed(); self.spilled.shape.n_rows];
        self.words(&mut numbers)?;
        Ok(Some(numbers))
    }
}

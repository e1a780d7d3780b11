//! Blocks as bytes on disk: compact, and with a sum that notices damage.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytemuck::{Pod, cast_slice, cast_slice_mut};
use clientele_kmeans::{Block, Frame, LANES, TileRoom, Tiles};

use crate::DataError;
use crate::ingest::GridBlock;
use crate::manifest::BlockId;
use crate::positioned::read_exact_at;
use crate::vectors::{self, Vectorised};

/// Grid values take 23 bits; those that are not cut in two are stored as 24: for each [`LANES`] of them the low 16 bits, then the high 8.
const LANE_BYTES: usize = LANES * 3;
/// Lanes read at a time, so that the bytes are summed up and unpacked while they are in cache: 192 KiB.
const CHUNK_LANES: usize = 4_096;
/// Adding 1.5 x 2^23 to a grid value puts it, plus 2^22, into the low 23 bits of the float.
const LIFT: f32 = 12_582_912.0;
const LIFTED_HIGH_BITS: u32 = 0x4b00_0000;

/// Where a block lies in the file of a store, and its shape.
#[derive(Debug)]
pub(crate) struct Spilled {
    pub(crate) file: Arc<File>,
    pub(crate) offset: u64,
    pub(crate) shape: Shape,
}

/// What the bytes of a block are.
#[derive(Debug)]
pub(crate) struct Shape {
    n_bytes: u64,
    checksum: Checksum,
    n_rows: usize,
    n_features: usize,
    /// Of rows that are kept as they lie, since they are cut in two; others are packed.
    frame: Option<Frame>,
    has_values: bool,
    has_source_rows: bool,
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
    let (rows, frame): (Vec<Cow<'_, [u8]>>, _) = match grid.cut_rows() {
        Some(cut) => {
            let [norms, short_norms] = cut.norms.map(cast_slice);
            let pieces = [cast_slice(cut.lines), norms, short_norms];
            (pieces.map(Cow::Borrowed).into(), Some(cut.frame))
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
    let mut checksum = Checksum::default();
    for piece in &pieces {
        vectors::run(Sum {
            bytes: piece,
            checksum: &mut checksum,
        });
    }
    let shape = Shape {
        n_bytes: pieces.iter().map(|piece| piece.len() as u64).sum(),
        checksum,
        n_rows: grid.n_rows(),
        n_features: grid.n_features(),
        frame,
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

impl Spilled {
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
        let n_columns = match &shape.frame {
            Some(frame) => frame.n_columns(),
            None => shape.n_rows.div_ceil(LANES) * shape.n_features,
        };
        if tiles.len() != n_columns * LANES {
            tiles = Tiles::zeroed(n_columns);
        }
        let mut norms = vec![0f32; shape.frame.as_ref().map_or(0, Frame::n_norms)];
        match &shape.frame {
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
        let damaged = DataError::SpillDamaged { block: id };
        if reader.checksum != shape.checksum {
            return Err(damaged);
        }
        let block = match &shape.frame {
            Some(frame) => frame.block(tiles, norms, keys),
            None => Block::from_tiles(u64::from(id.0), shape.n_features, tiles, keys)
                .map_err(|_| damaged)?,
        };
        Ok(GridBlock {
            block,
            values,
            source_rows,
        })
    }
}

/// Tells the system that a block will be read.
pub(crate) fn will_need(spilled: &Spilled) {
    #[cfg(target_os = "linux")]
    {
        let n_bytes = std::num::NonZeroU64::new(spilled.shape.n_bytes);
        // Advice that is not taken changes nothing.
        let advice = rustix::fs::Advice::WillNeed;
        let _ = rustix::fs::fadvise(&*spilled.file, spilled.offset, n_bytes, advice);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = spilled;
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

/// Lanes of a checksum, and the bytes that they take together.
const SUM_LANES: usize = 32;
const SUM_BYTES: usize = SUM_LANES * size_of::<u32>();

/// Tells damaged bytes from those that were written; no defence against somebody who damages them on purpose.
///
/// Each lane goes through `state -> rotate((state ^ word) * odd)`, which is one-to-one in the state and in the word: one changed word
/// always changes the sum, more than one in a lane but for one case in 2^32. It runs at the speed of memory, where a cryptographic
/// hash takes longer than decoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksum([u32; SUM_LANES]);

/// Adds a part to a checksum.
struct Sum<'a> {
    bytes: &'a [u8],
    checksum: &'a mut Checksum,
}

impl Vectorised for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.checksum.update(self.bytes);
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self(std::array::from_fn(|lane| lane as u32))
    }
}

impl Checksum {
    /// Adds a part, in pieces that [`SUM_BYTES`] divides but for the last.
    #[inline(always)]
    fn update(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<SUM_BYTES>();
        // A loop and no closure, which would be compiled for the narrowest vectors.
        for chunk in chunks {
            self.add(chunk);
        }
        if !rest.is_empty() {
            let mut padded = [0; SUM_BYTES];
            padded[..rest.len()].copy_from_slice(rest);
            self.add(&padded);
        }
    }

    #[inline(always)]
    fn add(&mut self, chunk: &[u8; SUM_BYTES]) {
        const ODD: u32 = 0x9e37_79b1;
        let (words, _) = chunk.as_chunks::<4>();
        for (state, word) in self.0.iter_mut().zip(words) {
            let mixed = (*state ^ u32::from_le_bytes(*word)).wrapping_mul(ODD);
            *state = mixed.rotate_left(15);
        }
    }
}

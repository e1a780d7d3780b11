//! Blocks as bytes on disk: compact, and with a sum that notices damage.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use clientele_kmeans::{Block, LANES, TileRoom, Tiles};

use crate::DataError;
use crate::ingest::GridBlock;
use crate::manifest::BlockId;
use crate::positioned::read_exact_at;
use crate::vectors::{self, Vectorised};

/// Grid values take 23 bits; they are stored as 24: for each [`LANES`] of them the low 16 bits, then the high 8.
const LANE_BYTES: usize = LANES * 3;
/// Lanes decoded at a time, so that the bytes are hashed and unpacked while they are in cache: 192 KiB.
const CHUNK_LANES: usize = 4_096;
/// Adding 1.5 x 2^23 to a grid value puts it, plus 2^22, into the low 23 bits of the float.
const LIFT: f32 = 12_582_912.0;
const LIFTED_HIGH_BITS: u32 = 0x4b00_0000;

/// Where a block lies in the file of a store, and its shape.
#[derive(Debug, Clone)]
pub(crate) struct Spilled {
    pub(crate) file: Arc<File>,
    pub(crate) offset: u64,
    pub(crate) checksum: Checksum,
    pub(crate) n_rows: usize,
    pub(crate) n_features: usize,
    pub(crate) has_values: bool,
    pub(crate) has_source_rows: bool,
}

/// What a block is read into.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(crate) tiles: Tiles,
    pub(crate) keys: Vec<u64>,
}

/// The bytes of a block, and their checksum.
pub(crate) fn encode(block: &GridBlock) -> (Vec<u8>, Checksum) {
    let mut checksum = Checksum::default();
    let n_tiles = block.block.n_rows().div_ceil(LANES);
    let mut bytes = vec![0; n_tiles * block.block.n_features() * LANE_BYTES];
    vectors::run(Encode {
        block: &block.block,
        out: &mut bytes,
    });
    vectors::run(Sum {
        bytes: &bytes,
        checksum: &mut checksum,
    });
    let keys = block.block.keys().iter().map(|key| key.to_le_bytes());
    append(keys, &mut bytes, &mut checksum);
    let values = block.values.iter().flatten().map(|v| v.to_le_bytes());
    append(values, &mut bytes, &mut checksum);
    let source_rows = block.source_rows.iter().flatten().map(|r| r.to_le_bytes());
    append(source_rows, &mut bytes, &mut checksum);
    (bytes, checksum)
}

fn append<const N: usize>(
    numbers: impl Iterator<Item = [u8; N]>,
    bytes: &mut Vec<u8>,
    checksum: &mut Checksum,
) {
    let start = bytes.len();
    bytes.extend(numbers.flatten());
    vectors::run(Sum {
        bytes: &bytes[start..],
        checksum,
    });
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

impl Spilled {
    /// Reads the block into `room`.
    pub(crate) fn read(
        &self,
        id: BlockId,
        room: Room,
        spill_dir: &Path,
    ) -> Result<GridBlock, DataError> {
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
        let n_columns = self.n_rows.div_ceil(LANES) * self.n_features;
        if tiles.len() != n_columns * LANES {
            tiles = Tiles::zeroed(n_columns);
        }
        reader.lanes(&mut tiles).map_err(unreadable)?;
        keys.clear();
        let numbers = reader
            .numbers(true, u64::from_le_bytes)
            .map_err(unreadable)?;
        keys.extend(numbers.into_iter().flatten());
        let values = reader
            .numbers(self.has_values, i64::from_le_bytes)
            .map_err(unreadable)?;
        let source_rows = reader
            .numbers(self.has_source_rows, u32::from_le_bytes)
            .map_err(unreadable)?;
        let damaged = DataError::SpillDamaged { block: id };
        if reader.checksum != self.checksum {
            return Err(damaged);
        }
        let block = Block::from_tiles(u64::from(id.0), self.n_features, tiles, keys);
        Ok(GridBlock {
            block: block.map_err(|_| damaged)?,
            values,
            source_rows,
        })
    }
}

/// Tells the system that a block will be read.
pub(crate) fn will_need(spilled: &Spilled) {
    #[cfg(target_os = "linux")]
    {
        let row_bytes = spilled.n_features * LANE_BYTES / LANES + size_of::<u64>();
        let n_bytes = std::num::NonZeroU64::new((spilled.n_rows * row_bytes) as u64);
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
    fn lanes(&mut self, tiles: &mut [f32]) -> std::io::Result<()> {
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

    /// One number a row, if there are any.
    fn numbers<T, const N: usize>(
        &mut self,
        are_there: bool,
        from_bytes: fn([u8; N]) -> T,
    ) -> std::io::Result<Option<Vec<T>>> {
        if !are_there {
            return Ok(None);
        }
        let mut bytes = vec![0; self.spilled.n_rows * N];
        read_exact_at(&self.spilled.file, &mut bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        vectors::run(Sum {
            bytes: &bytes,
            checksum: &mut self.checksum,
        });
        let (numbers, _) = bytes.as_chunks::<N>();
        Ok(Some(
            numbers.iter().map(|bytes| from_bytes(*bytes)).collect(),
        ))
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
    /// Adds a part: tiles in pieces that [`SUM_BYTES`] divides but for the last, all else at once.
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

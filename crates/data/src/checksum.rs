//! A checksum at the speed of memory, for what only this process reads again.

use crate::vectors::{self, Vectorised};

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
pub(crate) struct Sum<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) checksum: &'a mut Checksum,
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
    /// Two numbers of each lane, mixed like the words of a lane: other lanes are another number but for one case in 2^64.
    fn folded(&self) -> u64 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let (pairs, _) = self.0.as_chunks::<2>();
        pairs.iter().fold(0, |sum, [low, high]| {
            let pair = u64::from(*low) | u64::from(*high) << 32;
            (sum ^ pair).wrapping_mul(ODD).rotate_left(29)
        })
    }

    /// Adds a part, in pieces that [`SUM_BYTES`] divides but for the last.
    #[inline(always)]
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<SUM_BYTES>();
        // A loop and no closure, which would be compiled for the narrowest vectors, and lanes that nothing else can see meanwhile.
        let mut lanes = self.0;
        for chunk in chunks {
            add(&mut lanes, chunk);
        }
        if !rest.is_empty() {
            let mut padded = [0; SUM_BYTES];
            padded[..rest.len()].copy_from_slice(rest);
            add(&mut lanes, &padded);
        }
        self.0 = lanes;
    }
}

/// In steps that vectorise, each for all lanes.
#[inline(always)]
fn add(lanes: &mut [u32; SUM_LANES], chunk: &[u8; SUM_BYTES]) {
    const ODD: u32 = 0x9e37_79b1;
    let mut words = [0; SUM_LANES];
    for (word, bytes) in words.iter_mut().zip(chunk.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    for lane in 0..SUM_LANES {
        words[lane] = (words[lane] ^ lanes[lane]).wrapping_mul(ODD);
    }
    for lane in 0..SUM_LANES {
        lanes[lane] = words[lane].rotate_left(15);
    }
}

/// A [`Checksum`] of bytes in two places, in one number.
pub(crate) fn sum_of(places: [&[u8]; 2]) -> u64 {
    let mut checksum = Checksum::default();
    for bytes in places {
        vectors::run(Sum {
            bytes,
            checksum: &mut checksum,
        });
    }
    checksum.folded()
}

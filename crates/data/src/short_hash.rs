//! BLAKE3 of many short inputs at once.
//!
//! An input of up to 64 bytes is one compression; the `blake3` crate does them one after the other, here sixteen lie in the lanes of
//! vectors. The definition is the BLAKE3 paper's, section 2; every test compares with the crate.

use crate::vectors::{self, Vectorised};

/// Inputs hashed together.
pub const HASH_LANES: usize = 16;
/// Bytes of an input, at most.
pub const SHORT_BYTES: usize = 64;

const N_WORDS: usize = 16;
/// The first eight words of the fractional part of square roots of primes, as in SHA-256.
const IV: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
/// The only block of the only chunk: its start, its end, and the root.
const FLAGS: u32 = 1 | 2 | 8;
/// Which word of the message each half of a step takes, by round.
const SCHEDULE: [[usize; N_WORDS]; 7] = schedule();

const fn schedule() -> [[usize; N_WORDS]; 7] {
    const PERMUTATION: [usize; N_WORDS] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
    let mut rounds = [[0; N_WORDS]; 7];
    let (mut round, mut at) = (0, 0);
    while round < 7 {
        while at < N_WORDS {
            rounds[round][at] = match round {
                0 => at,
                _ => rounds[round - 1][PERMUTATION[at]],
            };
            at += 1;
        }
        (round, at) = (round + 1, 0);
    }
    rounds
}

type Lanes = [u32; HASH_LANES];

/// Inputs of up to [`SHORT_BYTES`] bytes, collected until there are enough of them.
#[derive(Debug, Clone)]
pub struct ShortHasher {
    /// [N_WORDS][HASH_LANES]
    words: [Lanes; N_WORDS],
    lengths: Lanes,
    n_inputs: usize,
}

impl Default for ShortHasher {
    fn default() -> Self {
        Self {
            words: [[0; HASH_LANES]; N_WORDS],
            lengths: [0; HASH_LANES],
            n_inputs: 0,
        }
    }
}

impl ShortHasher {
    /// Takes an input; calls `each` with the hashes of the last [`HASH_LANES`] when it is the last of them, in their order.
    ///
    /// # Panics
    /// When it is longer than [`SHORT_BYTES`].
    #[inline]
    pub fn push(&mut self, input: &[u8], each: &mut impl FnMut([u8; 32])) {
        let mut block = [0; SHORT_BYTES];
        block[..input.len()].copy_from_slice(input);
        self.push_block(&block, input.len(), each);
    }

    /// As [`ShortHasher::push`], of the first `n_bytes` of a block whose other bytes are zero.
    #[inline]
    pub fn push_block(
        &mut self,
        block: &[u8; SHORT_BYTES],
        n_bytes: usize,
        each: &mut impl FnMut([u8; 32]),
    ) {
        let (words, _) = block.as_chunks::<4>();
        for (lanes, word) in self.words.iter_mut().zip(words) {
            lanes[self.n_inputs] = u32::from_le_bytes(*word);
        }
        self.lengths[self.n_inputs] = n_bytes as u32;
        self.n_inputs += 1;
        if self.n_inputs == HASH_LANES {
            self.finish(each);
        }
    }

    /// Calls `each` with the hashes of the inputs that are left.
    pub fn finish(&mut self, each: &mut impl FnMut([u8; 32])) {
        if self.n_inputs == 0 {
            return;
        }
        let hashes = vectors::run(Compress {
            words: &self.words,
            lengths: &self.lengths,
        });
        for lane in 0..self.n_inputs {
            let mut hash = [0; 32];
            let (bytes, _) = hash.as_chunks_mut::<4>();
            for (bytes, word) in bytes.iter_mut().zip(&hashes) {
                *bytes = word[lane].to_le_bytes();
            }
            each(hash);
        }
        self.n_inputs = 0;
    }
}

struct Compress<'a> {
    words: &'a [Lanes; N_WORDS],
    lengths: &'a Lanes,
}

impl Vectorised for Compress<'_> {
    type Output = [Lanes; 8];

    #[inline(always)]
    fn run(self) -> Self::Output {
        let mut state = [[0; HASH_LANES]; N_WORDS];
        for (word, iv) in state.iter_mut().zip(IV.iter().chain(&IV[..4])) {
            *word = [*iv; HASH_LANES];
        }
        // The counter of chunks is zero.
        state[14] = *self.lengths;
        state[15] = [FLAGS; HASH_LANES];
        // Not a loop: the state stays in registers only where every index is a constant.
        round::<0>(&mut state, self.words);
        round::<1>(&mut state, self.words);
        round::<2>(&mut state, self.words);
        round::<3>(&mut state, self.words);
        round::<4>(&mut state, self.words);
        round::<5>(&mut state, self.words);
        round::<6>(&mut state, self.words);
        let mut hash = [[0; HASH_LANES]; 8];
        for (word_idx, word) in hash.iter_mut().enumerate() {
            for (lane, word) in word.iter_mut().enumerate() {
                *word = state[word_idx][lane] ^ state[word_idx + 8][lane];
            }
        }
        hash
    }
}

/// Mixes the columns, then the diagonals.
#[inline(always)]
fn round<const ROUND: usize>(state: &mut [Lanes; N_WORDS], words: &[Lanes; N_WORDS]) {
    let word = |at: usize| &words[SCHEDULE[ROUND][at]];
    mix::<0, 4, 8, 12>(state, word(0), word(1));
    mix::<1, 5, 9, 13>(state, word(2), word(3));
    mix::<2, 6, 10, 14>(state, word(4), word(5));
    mix::<3, 7, 11, 15>(state, word(6), word(7));
    mix::<0, 5, 10, 15>(state, word(8), word(9));
    mix::<1, 6, 11, 12>(state, word(10), word(11));
    mix::<2, 7, 8, 13>(state, word(12), word(13));
    mix::<3, 4, 9, 14>(state, word(14), word(15));
}

#[inline(always)]
fn mix<const A: usize, const B: usize, const C: usize, const D: usize>(
    state: &mut [Lanes; N_WORDS],
    x: &Lanes,
    y: &Lanes,
) {
    let [mut a, mut b, mut c, mut d] = [state[A], state[B], state[C], state[D]];
    for lane in 0..HASH_LANES {
        a[lane] = a[lane].wrapping_add(b[lane]).wrapping_add(x[lane]);
        d[lane] = (d[lane] ^ a[lane]).rotate_right(16);
        c[lane] = c[lane].wrapping_add(d[lane]);
        b[lane] = (b[lane] ^ c[lane]).rotate_right(12);
        a[lane] = a[lane].wrapping_add(b[lane]).wrapping_add(y[lane]);
        d[lane] = (d[lane] ^ a[lane]).rotate_right(8);
        c[lane] = c[lane].wrapping_add(d[lane]);
        b[lane] = (b[lane] ^ c[lane]).rotate_right(7);
    }
    (state[A], state[B], state[C], state[D]) = (a, b, c, d);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Vec<Vec<u8>> {
        let lengths = (0..=SHORT_BYTES).chain((0..100).map(|i| i * 37 % 65));
        lengths
            .enumerate()
            .map(|(nth, length)| (0..length).map(|i| (i * 31 + nth * 7) as u8).collect())
            .collect()
    }

    fn hashes(inputs: &[Vec<u8>]) -> Vec<[u8; 32]> {
        let (mut hasher, mut found) = (ShortHasher::default(), Vec::new());
        inputs
            .iter()
            .for_each(|input| hasher.push(input, &mut |hash| found.push(hash)));
        hasher.finish(&mut |hash| found.push(hash));
        found
    }

    #[test]
    fn hashes_are_those_of_the_crate() {
        let mut inputs = inputs();
        let expected: Vec<[u8; 32]> = inputs
            .iter()
            .map(|input| *blake3::hash(input).as_bytes())
            .collect();
        assert_eq!(hashes(&inputs), expected);
        inputs[77][1] ^= 1;
        let changed = hashes(&inputs);
        let differ: Vec<usize> = (0..inputs.len())
            .filter(|i| changed[*i] != expected[*i])
            .collect();
        assert_eq!(differ, [77], "one flipped bit, one other hash");
    }

    #[test]
    fn what_was_finished_leaves_nothing_behind() {
        let mut hasher = ShortHasher::default();
        let mut last = [0; 32];
        for input in [&b"a longer input"[..], b"b", b""] {
            hasher.push(input, &mut |_| panic!("not full yet"));
            hasher.finish(&mut |hash| last = hash);
            assert_eq!(last, *blake3::hash(input).as_bytes());
        }
    }
}

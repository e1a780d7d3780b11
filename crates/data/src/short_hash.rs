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

/// One word of each input.
pub type Lanes = [u32; HASH_LANES];

/// The words of hashes, one hash a lane.
pub type HashWords = [Lanes; 8];

/// Inputs of up to [`SHORT_BYTES`] bytes, collected until there are enough of them.
#[derive(Debug, Clone)]
pub struct ShortHasher {
    /// [N_WORDS][HASH_LANES]
    words: [Lanes; N_WORDS],
    lengths: Lanes,
    n_inputs: usize,
    /// All words from here on are zero.
    n_used: usize,
}

impl Default for ShortHasher {
    fn default() -> Self {
        Self {
            words: [[0; HASH_LANES]; N_WORDS],
            lengths: [0; HASH_LANES],
            n_inputs: 0,
            n_used: 0,
        }
    }
}

impl ShortHasher {
    /// Takes an input; calls `each` with the hashes of the last [`HASH_LANES`] when it is the last of them, and how many there are.
    ///
    /// # Panics
    /// When it is longer than [`SHORT_BYTES`].
    #[inline]
    pub fn push_bytes(&mut self, input: &[u8], each: &mut impl FnMut(&HashWords, usize)) {
        let mut block = [0; SHORT_BYTES];
        block[..input.len()].copy_from_slice(input);
        let words = block.as_chunks::<4>().0;
        let words: [u32; N_WORDS] = std::array::from_fn(|at| u32::from_le_bytes(words[at]));
        self.push_words(words, input.len(), each);
    }

    /// As [`ShortHasher::push_bytes`], of an input of `n_bytes` as the first words of its block.
    #[inline]
    pub fn push_words<const N: usize>(
        &mut self,
        words: [u32; N],
        n_bytes: usize,
        each: &mut impl FnMut(&HashWords, usize),
    ) {
        for (lanes, word) in self.words.iter_mut().zip(words) {
            lanes[self.n_inputs] = word;
        }
        // Longer inputs have left their ends here.
        for lanes in self.words.iter_mut().take(self.n_used).skip(N) {
            lanes[self.n_inputs] = 0;
        }
        self.n_used = self.n_used.max(N);
        self.lengths[self.n_inputs] = n_bytes as u32;
        self.n_inputs += 1;
        if self.n_inputs == HASH_LANES {
            self.finish(each);
        }
    }

    /// Calls `each` with the hashes of the inputs that are left.
    pub fn finish(&mut self, each: &mut impl FnMut(&HashWords, usize)) {
        if self.n_inputs == 0 {
            return;
        }
        let hashes = vectors::run(Compress {
            words: &self.words,
            lengths: &self.lengths,
        });
        each(&hashes, self.n_inputs);
        self.n_inputs = 0;
    }
}

/// The sum of up to 2^32 hashes, each a number of 256 bits, least significant byte first: lanes and words apart until the end.
#[derive(Debug, Clone, Default)]
pub struct SumOfHashes([[u64; HASH_LANES]; 8]);

impl SumOfHashes {
    /// Adds the first `n_hashes`.
    #[inline]
    pub fn add(&mut self, hashes: &HashWords, n_hashes: usize) {
        for (sums, words) in self.0.iter_mut().zip(hashes) {
            match n_hashes {
                // A length that is known becomes one addition of vectors.
                HASH_LANES => (0..HASH_LANES).for_each(|lane| sums[lane] += u64::from(words[lane])),
                n => (0..n).for_each(|lane| sums[lane] += u64::from(words[lane])),
            }
        }
    }

    /// Modulo 2^256, least significant byte first.
    pub fn to_le_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let mut carry = 0_u128;
        for (bytes, sums) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(&self.0) {
            carry += sums.iter().map(|sum| u128::from(*sum)).sum::<u128>();
            *bytes = (carry as u32).to_le_bytes();
            carry >>= 32;
        }
        bytes
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
        // Not a loop either: it would be turned around, and gather words one by one.
        [
            fold::<0>(&state),
            fold::<1>(&state),
            fold::<2>(&state),
            fold::<3>(&state),
            fold::<4>(&state),
            fold::<5>(&state),
            fold::<6>(&state),
            fold::<7>(&state),
        ]
    }
}

/// A word of the hash.
#[inline(always)]
fn fold<const WORD: usize>(state: &[Lanes; N_WORDS]) -> Lanes {
    let (a, b) = (state[WORD], state[WORD + 8]);
    std::array::from_fn(|lane| a[lane] ^ b[lane])
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

    fn each_hash(hashes: &HashWords, n_hashes: usize, each: &mut impl FnMut([u8; 32])) {
        for lane in 0..n_hashes {
            let mut hash = [0; 32];
            let (bytes, _) = hash.as_chunks_mut::<4>();
            for (bytes, word) in bytes.iter_mut().zip(hashes) {
                *bytes = word[lane].to_le_bytes();
            }
            each(hash);
        }
    }

    fn hashes(inputs: &[Vec<u8>]) -> Vec<[u8; 32]> {
        let (mut hasher, mut found) = (ShortHasher::default(), Vec::new());
        let mut take = |hashes: &HashWords, n: usize| each_hash(hashes, n, &mut |h| found.push(h));
        inputs
            .iter()
            .for_each(|input| hasher.push_bytes(input, &mut take));
        hasher.finish(&mut take);
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
    fn a_sum_of_hashes_is_theirs_with_every_carry() {
        let inputs = inputs();
        let add = |sum: [u8; 32], hash: &[u8; 32]| {
            let mut carry = 0;
            std::array::from_fn(|at| {
                carry = carry / 256 + u16::from(sum[at]) + u16::from(hash[at]);
                carry as u8
            })
        };
        let expected = hashes(&inputs).iter().fold([0; 32], add);
        let (mut hasher, mut sum) = (ShortHasher::default(), SumOfHashes::default());
        let mut take = |hashes: &HashWords, n: usize| sum.add(hashes, n);
        inputs
            .iter()
            .for_each(|input| hasher.push_bytes(input, &mut take));
        hasher.finish(&mut take);
        assert_eq!(sum.to_le_bytes(), expected);
        let another = [1; 8].map(|word| [word; HASH_LANES]);
        sum.add(&another, 1);
        assert_ne!(sum.to_le_bytes(), expected);
    }

    #[test]
    fn a_short_input_after_a_long_one_ends_where_it_ends() {
        let (mut hasher, mut found) = (ShortHasher::default(), Vec::new());
        let mut take = |hashes: &HashWords, n: usize| each_hash(hashes, n, &mut |h| found.push(h));
        hasher.push_words([u32::MAX; 9], 36, &mut take);
        hasher.finish(&mut take);
        hasher.push_words([7], 4, &mut take);
        hasher.finish(&mut take);
        assert_eq!(found[0], *blake3::hash(&[255; 36]).as_bytes());
        assert_eq!(found[1], *blake3::hash(&[7, 0, 0, 0]).as_bytes());
    }

    #[test]
    fn what_was_finished_leaves_nothing_behind() {
        let mut hasher = ShortHasher::default();
        let mut last = [0; 32];
        for input in [&b"a longer input"[..], b"b", b""] {
            hasher.push_bytes(input, &mut |_, _| panic!("not full yet"));
            hasher.finish(&mut |hashes, n| each_hash(hashes, n, &mut |hash| last = hash));
            assert_eq!(last, *blake3::hash(input).as_bytes());
        }
    }
}

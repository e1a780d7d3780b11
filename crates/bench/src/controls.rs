//! What a processor can do at most: bytes and multiply-adds a second, on all threads of a pool.

use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clientele_kmeans::cpu::Kernel;
use multiversion::multiversion;
use rayon::ThreadPool;

use crate::Controls;

/// Bytes of the two sides of the copy, over all threads: larger than most caches, and no burden to a laptop.
const COPY_BYTES: usize = 256 << 20;

/// Bytes of one side that a thread has at least.
const LEAST_BYTES: usize = 4 << 20;

/// The best of so many counts: a limit is what the machine can do when nobody disturbs it.
const N_TIMES: usize = 5;

/// How long a thread multiplies for one measurement.
const MULTIPLY_FOR: Duration = Duration::from_millis(12);

/// About half a second.
pub(crate) fn measure(pool: &ThreadPool) -> Controls {
    let (copy, read) = bandwidth(pool);
    Controls {
        copy_bytes_per_s: Some(copy),
        read_bytes_per_s: Some(read),
        multiply_adds_per_s: Some(multiply_adds(pool) * products_a_lane()),
    }
}

/// Bytes a second of copying, both sides counted, and of reading.
fn bandwidth(pool: &ThreadPool) -> (f64, f64) {
    let n_threads = pool.current_num_threads();
    let n_words = (COPY_BYTES / 2 / n_threads).max(LEAST_BYTES) / size_of::<u64>();
    let sides: Vec<Mutex<(Vec<u64>, Vec<u64>)>> =
        (0..n_threads).map(|_| Mutex::default()).collect();
    let on_each = |work: &(dyn Fn(&mut Vec<u64>, &mut Vec<u64>) + Sync)| {
        let started = Instant::now();
        pool.broadcast(|thread| {
            let mut sides = sides[thread.index()]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let (from, to) = &mut *sides;
            work(from, to);
        });
        started.elapsed().as_secs_f64()
    };
    // Each thread touches its own memory first, so that it lies near.
    on_each(&|from, to| {
        from.resize(n_words, 1);
        to.resize(n_words, 2);
    });
    let fastest = |work: &(dyn Fn(&mut Vec<u64>, &mut Vec<u64>) + Sync)| {
        (0..N_TIMES)
            .map(|_| on_each(work))
            .fold(f64::INFINITY, f64::min)
    };
    let side_bytes = (n_threads * n_words * size_of::<u64>()) as f64;
    let copy = fastest(&|from, to| {
        to.copy_from_slice(black_box(from));
        black_box(to);
    });
    let read = fastest(&|from, _| {
        black_box(checksum(black_box(from)));
    });
    (2.0 * side_bytes / copy, side_bytes / read)
}

/// Reads everything; eight sums, so that none waits for the one before.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2", "aarch64+neon"))]
fn checksum(words: &[u64]) -> u64 {
    let mut sums = [0u64; 64];
    for chunk in words.as_chunks::<64>().0 {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

/// Where there is an instruction for pairs of 16-bit products (VNNI), it takes the place of one `f32` multiply-add a lane and does two.
/// Counted, not measured: no code that a compiler would make for it is sure to be made of this instruction.
fn products_a_lane() -> f64 {
    match Kernel::available()[0] {
        Kernel::Avx512Vnni => 2.0,
        _ => 1.0,
    }
}

/// `f32` multiply-adds a second, with the instructions that give most.
fn multiply_adds(pool: &ThreadPool) -> f64 {
    let kernels: [fn(u32) -> u64; 4] = [fused_16, fused_8, fused_4, separate];
    let rate = |kernel: fn(u32) -> u64| {
        let started = Instant::now();
        let n_done: u64 = pool.broadcast(|_| repeat(kernel)).into_iter().sum();
        n_done as f64 / started.elapsed().as_secs_f64()
    };
    // A first round finds the kernel, the others its best time; one made for another processor is slow and drops out.
    let first: Vec<f64> = kernels.iter().map(|kernel| rate(*kernel)).collect();
    let fastest = (0..kernels.len())
        .max_by(|a, b| first[*a].total_cmp(&first[*b]))
        .unwrap_or(0);
    (1..N_TIMES)
        .map(|_| rate(kernels[fastest]))
        .fold(first[fastest], f64::max)
}

fn repeat(kernel: fn(u32) -> u64) -> u64 {
    let started = Instant::now();
    let mut n_done = 0;
    while started.elapsed() < MULTIPLY_FOR {
        n_done += kernel(black_box(1_000));
    }
    n_done
}

/// Independent sums of a vector each: enough that every multiply-add finds its operand ready (latency 4, two a cycle, some spare).
const N_SUMS: usize = 12;

/// All lanes of all sums in one flat array: the compiler keeps it in registers then, which it does not with an array of arrays.
macro_rules! kernel {
    ($name:ident, $lanes:literal, $targets:literal, $doc:literal) => {
        #[doc = $doc]
        #[multiversion(targets($targets))]
        fn $name(n_rounds: u32) -> u64 {
            let mut lanes = [1.0f32; $lanes * N_SUMS];
            // Unknown to the compiler, and such that no lane grows or becomes a denormal number.
            let (factor, term) = (black_box(0.999_9f32), black_box(0.000_1f32));
            for _ in 0..n_rounds {
                for lane in &mut lanes {
                    *lane = lane.mul_add(factor, term);
                }
            }
            black_box(&lanes);
            u64::from(n_rounds) * ($lanes * N_SUMS) as u64
        }
    };
}

kernel!(fused_16, 16, "x86_64+avx512f", "Vectors of 512 bits.");
kernel!(fused_8, 8, "x86_64+avx2+fma", "Vectors of 256 bits.");
kernel!(fused_4, 4, "aarch64+neon", "Vectors of 128 bits.");

/// Multiplications and additions one by one, where nothing better is known.
fn separate(n_rounds: u32) -> u64 {
    let mut lanes = [1.0f32; 4 * N_SUMS];
    let (factor, term) = (black_box(0.999_9f32), black_box(0.000_1f32));
    for _ in 0..n_rounds {
        for lane in &mut lanes {
            *lane = *lane * factor + term;
        }
    }
    black_box(&lanes);
    u64::from(n_rounds) * (4 * N_SUMS) as u64
}

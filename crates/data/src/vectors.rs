//! Loops over numbers, compiled for the widest vectors that this processor has.
//!
//! The arithmetic is that of IEEE whatever the width (nothing is fused or reordered), so the bits are the same on every machine.

/// A loop over independent lanes; `run` must be `#[inline(always)]` to be compiled anew for each width.
pub trait Vectorised {
    /// What it answers.
    type Output;
    /// Does it.
    fn run(self) -> Self::Output;
}

/// Runs `work`, compiled for this processor.
#[inline]
pub fn run<W: Vectorised>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { run_avx512(work) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { run_avx2(work) };
        }
    }
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn run_avx512<W: Vectorised>(work: W) -> W::Output {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2<W: Vectorised>(work: W) -> W::Output {
    work.run()
}

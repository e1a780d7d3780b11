//! Memory for rows, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory for blocks, shared by the stores of one process.
#[derive(Debug)]
pub struct Budget {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
}

impl Budget {
    /// `limit_bytes` of memory.
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
        })
    }

    /// Bytes that nobody has taken.
    pub fn free_bytes(&self) -> usize {
        self.limit_bytes
            .saturating_sub(self.used_bytes.load(Ordering::Relaxed))
    }

    pub(crate) fn take(&self, n_bytes: usize) -> bool {
        let taken = |used: usize| {
            let used = used.checked_add(n_bytes)?;
            (used <= self.limit_bytes).then_some(used)
        };
        self.used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .is_ok()
    }

    pub(crate) fn give_back(&self, n_bytes: usize) {
        self.used_bytes.fetch_sub(n_bytes, Ordering::Relaxed);
    }

    /// Takes memory for something else than a block, if there is as much.
    pub fn lease(self: &Arc<Self>, n_bytes: usize) -> Option<Lease> {
        self.take(n_bytes).then(|| Lease {
            budget: self.clone(),
            n_bytes,
        })
    }
}

/// Memory of a [`Budget`], until dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Arc<Budget>,
    n_bytes: usize,
}

impl Lease {
    /// Bytes taken.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Takes up to `n_bytes` out of it.
    pub fn split(&mut self, n_bytes: usize) -> Self {
        let n_bytes = n_bytes.min(self.n_bytes);
        self.n_bytes -= n_bytes;
        Self {
            budget: self.budget.clone(),
            n_bytes,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.give_back(self.n_bytes);
    }
}

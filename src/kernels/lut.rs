//! The product with a few rows by lookup tables.
//!
//! For every block of eight inputs, the dot products with all centroids make a table of 256 exact
//! integers; an output is the sum of the entries that its codes name. A table is kept as three
//! planes of bytes, so that looking up 64 codes takes two byte permutations and a blend a plane.
//! The sums are the same integers as those of [`gemm`](super::gemm), bit for bit.

use std::cell::RefCell;

use bytemuck::Zeroable;

use super::finish::{Constants, Finish, Int8};
use super::shared::Shared;
use super::x86::vbmi::{Avx512Vbmi, Table};
use super::{Codes, QuantizedRows, Threads, Weights};
use crate::layout::{TILE, Tile};

/// Inputs of a block.
const BLOCK: usize = 8;
/// The most rows: looking up costs the same for each row, looking up weights only once for all.
const ROWS: usize = 3;
/// The fewest outputs: they share the cost of the tables.
const OUTPUTS: usize = 256;
/// Tiles that are multiplied together, [`BLOCKS`] blocks of the input at a time.
const TILES: usize = 4;
/// Blocks whose tables are used together: they fill three quarters of a first-level cache of
/// 32 KiB.
const BLOCKS: usize = 32;

thread_local! {
    /// Of the thread that calls; taken while it waits for others.
    static TABLES: RefCell<Vec<Table>> = RefCell::default();
}

/// Whether to use tables. The limits come from counting instructions and were not measured on a
/// processor with VBMI.
pub(super) fn suits(weights: &Weights, rows: usize) -> bool {
    let Codes::Pq { book, .. } = weights.codes else {
        return false;
    };
    book.block == BLOCK
        && book.looks_up()
        && (1..=ROWS).contains(&rows)
        && weights.out_features >= OUTPUTS
}

/// Fills `y` (`[rows][out_features]`), where [`suits`] said yes. `rate` is about how many products are
/// added in a nanosecond.
pub(super) fn linear(
    token: Avx512Vbmi,
    (threads, rate): (Threads, usize),
    weights: &Weights,
    x: &QuantizedRows,
    y: &mut [f32],
) {
    let Codes::Pq { codes, book } = weights.codes else {
        unreachable!("lookup tables are for codes");
    };
    let (rows, columns) = (x.rows(), x.columns());
    let blocks = columns.div_ceil(BLOCK);
    let centroids = token.centroids(&book.int8);
    let mut buffer = TABLES.take();
    if buffer.len() < rows * blocks {
        buffer.resize(rows * blocks, Table::zeroed());
    }
    let of_rows = x.values().chunks_exact(columns).take(rows);
    for (row, tables) in of_rows.zip(buffer.chunks_exact_mut(blocks)) {
        token.tables(&centroids, row, tables);
    }

    let tables = &buffer[..rows * blocks];
    let output = Shared::new(y);
    let tiles = Tile::count(weights.out_features);
    let work = rows * weights.out_features * columns;
    let finish = Int8::new(x, 0);
    threads.each_for(tiles.div_ceil(TILES), work / rate, |group| {
        let mut sums = [[[0; TILE]; ROWS]; TILES];
        let tiles = (group * TILES..((group + 1) * TILES).min(tiles))
            .map(|tile| Tile::nth(tile, weights.out_features));
        for from in (0..blocks).step_by(BLOCKS) {
            let to = (from + BLOCKS).min(blocks);
            for (tile, sums) in tiles.clone().zip(&mut sums) {
                let codes = &codes[tile.range(blocks)][from * tile.width..to * tile.width];
                for (tables, sums) in tables.chunks_exact(blocks).zip(sums) {
                    token.look_up(codes, tile.width, &tables[from..to], sums);
                }
            }
        }
        for (tile, sums) in tiles.zip(&sums) {
            let constants = Constants::new(weights, tile);
            for (row, sums) in sums[..rows].iter().enumerate() {
                let start = row * weights.out_features + tile.first;
                // SAFETY: a tile is handed to one thread.
                let out = unsafe { output.part(start..start + tile.width) };
                finish.row(&constants, row, sums, out);
            }
        }
    });
    TABLES.set(buffer);
}

//! The product with a few rows by lookup tables.
//!
//! For every block of eight inputs, the dot products with all centroids make a table of 256 exact
//! integers; an output is the sum of the entries that its codes name. A table is kept as planes of bytes
//! (two where dot products fit 16 bits, else three), so that looking up 64 codes takes two byte
//! permutations and a blend a plane.
//! The sums are the same integers as those of [`gemm`](super::gemm), bit for bit.

use std::cell::RefCell;

use super::buffer::Buffer;
use super::finish::{Constants, Finish, Int8};
use super::shared::Shared;
use super::x86::vbmi::{Avx512Vbmi, Table};
use super::{Codes, QuantizedRows, Threads, Weights, work};
use crate::layout::{TILE, Tile};

/// Inputs of a block.
const BLOCK: usize = 8;
/// The most rows; fewer where there are fewer than [`WIDE`] outputs to share the cost of the tables.
const ROWS: usize = 5;
const NARROW_ROWS: usize = 3;
const WIDE: usize = 1024;
/// Rows that are multiplied with weights that are looked up once, and the most that go by tables beside them: 2
/// below [`WIDE`] outputs, 1 below [`HALF_WIDE`].
const BESIDE: usize = 8;
pub(super) const MORE: usize = 3;
const HALF_WIDE: usize = 512;
/// The fewest outputs: they share the cost of the tables.
const OUTPUTS: usize = 256;
/// Tiles of a job.
const TILES: usize = 4;
/// Blocks of the input that are added up in 16 bits.
const BLOCKS: usize = 128;

thread_local! {
    /// Of the thread that calls; taken while it waits for others.
    static TABLES: RefCell<Buffer> = RefCell::default();
}

/// How many of the last of `rows` rows to multiply by tables: all of a few, or what is left beside the
/// [`BESIDE`] rows whose weights are looked up at once.
///
/// From times on a Zen 4, in cycles a code: 0.14 and 55 / `out_features` a row; and for looking up
/// weights 0.75 for one row, 0.88 for four, 1.1 for six, 1.2 for eight, and then, in two goes, 1.75 for nine.
pub(super) fn rows(weights: &Weights, rows: usize) -> usize {
    let Codes::Pq { book, .. } = weights.codes else {
        return 0;
    };
    if book.block != BLOCK || !book.looks_up() || weights.out_features < OUTPUTS {
        return 0;
    }
    let (most, more) = match weights.out_features {
        WIDE.. => (ROWS, MORE),
        HALF_WIDE.. => (NARROW_ROWS, 2),
        _ => (NARROW_ROWS, 1),
    };
    match rows {
        rows if rows <= most => rows,
        rows if rows > BESIDE && rows <= BESIDE + more => rows - BESIDE,
        _ => 0,
    }
}

/// Fills rows `first..` of `y` (`[rows of x][out_features]`), as many as [`rows`] says. `rate` is about how
/// many products are added in a nanosecond.
pub(super) fn linear(
    token: Avx512Vbmi,
    threads: (Threads, usize),
    weights: &Weights,
    x: &QuantizedRows,
    first: usize,
    y: &mut [f32],
) {
    if first == x.rows() {
        return;
    }
    let Codes::Pq { book, .. } = weights.codes else {
        unreachable!("lookup tables are for codes");
    };
    // Registers hold a table of three planes, and the sums of two tiles, or of two planes, and four.
    if book.sums >= 1 {
        with_planes::<2, 4>(token, threads, weights, x, first, y);
    } else {
        with_planes::<3, 2>(token, threads, weights, x, first, y);
    }
}

fn with_planes<const PLANES: usize, const AT_ONCE: usize>(
    token: Avx512Vbmi,
    (threads, rate): (Threads, usize),
    weights: &Weights,
    x: &QuantizedRows,
    first: usize,
    y: &mut [f32],
) {
    let Codes::Pq { codes, book } = weights.codes else {
        unreachable!("lookup tables are for codes");
    };
    let (rows, columns) = (x.rows() - first, x.columns());
    let blocks = columns.div_ceil(BLOCK);
    let centroids = token.centroids(&book.int8);
    let mut buffer = TABLES.take();
    let planes = buffer.of::<[u8; 256]>(rows * blocks * PLANES);
    let tables: &mut [Table<PLANES>] = planes.as_chunks_mut().0;
    let of_rows = x.values().chunks_exact(columns).skip(first);
    for (row, tables) in of_rows.zip(tables.chunks_exact_mut(blocks)) {
        token.tables(&centroids, row, tables);
    }

    let tables = &*tables;
    let output = Shared::new(y);
    let tiles = Tile::count(weights.out_features);
    let work = work([rows, weights.out_features, columns]);
    let finish = Int8::new(x, 0);
    threads.each_for(tiles.div_ceil(TILES), work / rate as u64, |job| {
        let mut tile = job * TILES;
        let end = (tile + TILES).min(tiles);
        while tile < end {
            let nth = |t: usize| Tile::nth(tile + t, weights.out_features);
            let whole = tile + AT_ONCE <= end && nth(AT_ONCE - 1).width == TILE;
            let count = if whole { AT_ONCE } else { 1 };
            for (row, tables) in (first..).zip(tables.chunks_exact(blocks)) {
                let mut sums = [[0; TILE]; AT_ONCE];
                for from in (0..blocks).step_by(BLOCKS) {
                    let to = (from + BLOCKS).min(blocks);
                    let codes = |t: usize| {
                        let tile = nth(t);
                        &codes[tile.range(blocks)][from * tile.width..to * tile.width]
                    };
                    let tables = &tables[from..to];
                    if whole {
                        token.look_up(std::array::from_fn(codes), TILE, tables, &mut sums);
                    } else {
                        let sums = sums.first_chunk_mut::<1>().expect("a tile");
                        token.look_up([codes(0)], nth(0).width, tables, sums);
                    }
                }
                for (t, sums) in sums[..count].iter().enumerate() {
                    let constants = Constants::new(weights, nth(t));
                    let start = row * weights.out_features + nth(t).first;
                    // SAFETY: a tile is handed to one thread.
                    let out = unsafe { output.part(start..start + nth(t).width) };
                    finish.row(&constants, row, sums, out);
                }
            }
            tile += count;
        }
    });
    TABLES.set(buffer);
}

//! The product by tables of dot products, sixteen rows at a time.
//!
//! Codes share dot products: however many outputs there are, a block of eight inputs of a row has no
//! more than 256 different ones. They are computed once, into a table whose entries hold those of
//! sixteen rows side by side, and an output adds up the entries that its codes name. For 768 outputs
//! that is a third of the multiplications of a product, for 3072 a twelfth.
//!
//! Entries are `i16`. Two of them are added as such, where the codebook's values allow that
//! ([`Codebook::sums`](super::Codebook::sums)); then they are added to sums in `i32`. (Adding four brought
//! nothing.) All of it is exact: the sums are those of
//! [`gemm`](super::gemm), bit for bit.

use std::cell::RefCell;

use bytemuck::Zeroable;

use super::finish::{Constants, Finish, Int8};
use super::shared::Shared;
use super::x86::avx2::Avx2;
use super::x86::avx2_lut::{BLOCK, Centroid, ROWS, Rows, Sums, TABLES, Table};
use super::{Codes, QuantizedRows, Threads, Weights};
use crate::layout::{TILE, Tile};

/// The fewest outputs: they share the cost of the tables.
const OUTPUTS: usize = 512;

#[derive(Default)]
struct Scratch {
    tables: Vec<Table>,
    sums: Vec<Sums>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    /// Of the thread that calls; taken while it waits for others.
    static CENTROIDS: RefCell<Vec<Centroid>> = RefCell::default();
}

/// The fewest rows of a group that are faster so than by looking up weights. From times on a Zen 3, in
/// cycles a code: 0.5 and 0.26 a row for looking up weights; 2 for a group of rows whatever they are, and
/// 900 / `out_features` as a code's share in making the tables.
fn fewest(out_features: usize) -> usize {
    7 + 3500 / out_features
}

/// How many of the first rows to multiply with tables: groups of sixteen, and a rest that is worth one.
pub(super) fn suits(weights: &Weights, rows: usize) -> usize {
    let Codes::Pq { book, .. } = weights.codes else {
        return 0;
    };
    let fits = book.block == BLOCK
        && book.looks_up()
        && book.sums >= 2
        && weights.out_features >= OUTPUTS
        && weights.out_features.is_multiple_of(TILE);
    match rows % ROWS {
        _ if !fits => 0,
        rest if rest >= fewest(weights.out_features) => rows,
        rest => rows - rest,
    }
}

/// Fills the first `rows` rows of `y` (`[rows][out_features]`), for which [`suits`] said yes. `rate` is
/// about how many products are added in a nanosecond.
pub(super) fn linear(
    token: Avx2,
    (threads, rate): (Threads, usize),
    weights: &Weights,
    x: &QuantizedRows,
    rows: usize,
    y: &mut [f32],
) {
    let Codes::Pq { codes, book } = weights.codes else {
        unreachable!("tables are for codes");
    };
    let (columns, out_features) = (x.columns(), weights.out_features);
    let blocks = columns.div_ceil(BLOCK);
    let mut centroids = CENTROIDS.take();
    centroids.clear();
    centroids.extend(book.int8.chunks_exact(BLOCK).map(Centroid::new));
    let of_codes: &[Centroid; 256] = centroids[..].try_into().expect("a row for every code");

    let tiles = Tile::count(out_features);
    let groups = rows.div_ceil(ROWS);
    // Groups alone, if threads get about as many each: parts of the outputs need tables of their own.
    let parts = match threads.0 {
        threads if groups.is_multiple_of(threads) || groups >= 4 * threads => 1,
        threads => threads.min(tiles),
    };
    let output = Shared::new(y);
    let finish = Int8::new(x, 0);
    let work = rows * out_features * columns;
    threads.each_for(groups * parts, work / rate, |item| {
        let (group, part) = (item / parts, item % parts);
        let tiles = part * tiles / parts..(part + 1) * tiles / parts;
        // As even as they come.
        let rows = group * rows / groups..(group + 1) * rows / groups;
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.tables.is_empty() {
                scratch.tables.resize(TABLES, Table::zeroed());
            }
            let outputs = tiles.len() * TILE;
            if scratch.sums.len() < outputs {
                scratch.sums.resize(outputs, Sums::zeroed());
            }
            let tables: &mut [Table; TABLES] = (&mut scratch.tables[..])
                .try_into()
                .expect("as many as that");
            let (sums, _) = scratch.sums[..outputs].as_chunks_mut::<TILE>();
            sums.as_flattened_mut().fill(Sums::zeroed());
            for from in (0..blocks).step_by(TABLES) {
                let to = (from + TABLES).min(blocks);
                for (block, table) in (from..to).zip(&mut *tables) {
                    let inputs = block * BLOCK..((block + 1) * BLOCK).min(columns);
                    let row = |row: usize| {
                        let values = &x.values()[row * columns..][inputs.clone()];
                        values.try_into().unwrap_or_else(|_| {
                            let mut block = [0; BLOCK];
                            block[..values.len()].copy_from_slice(values);
                            block
                        })
                    };
                    token.table(of_codes, &Rows::new(rows.clone().map(row)), table);
                }
                for (tile, sums) in tiles.clone().zip(&mut *sums) {
                    let start = (tile * blocks + from) * TILE;
                    let (codes, _) = codes[start..start + (to - from) * TILE].as_chunks::<TILE>();
                    look_up(token, codes, tables, sums);
                }
            }
            for (tile, sums) in tiles.clone().zip(&*sums) {
                let tile = Tile::nth(tile, out_features);
                let constants = Constants::new(weights, tile);
                for (r, row) in rows.clone().enumerate() {
                    let mut of_row = [0; TILE];
                    for (to, sums) in of_row.iter_mut().zip(sums) {
                        *to = sums.0[r % 2][r / 2];
                    }
                    let start = row * out_features + tile.first;
                    // SAFETY: a tile and a group of rows are handed to one thread.
                    let out = unsafe { output.part(start..start + TILE) };
                    finish.row(&constants, row, &of_row, out);
                }
            }
        });
    });
    CENTROIDS.set(centroids);
}

/// Adds up to [`TABLES`] codes of each output.
fn look_up(token: Avx2, codes: &[[u8; TILE]], tables: &[Table; TABLES], sums: &mut [Sums; TILE]) {
    fn of<const G: usize>(codes: &[[u8; TILE]]) -> &[[u8; TILE]; G] {
        codes.try_into().expect("so many")
    }
    match codes.len() {
        1 => token.look_up::<1>(of(codes), tables, sums),
        2 => token.look_up::<2>(of(codes), tables, sums),
        3 => token.look_up::<3>(of(codes), tables, sums),
        _ => token.look_up::<4>(of(codes), tables, sums),
    }
}

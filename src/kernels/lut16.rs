//! The product by tables of dot products, for a group of rows at a time.
//!
//! Codes share dot products: however many outputs there are, a block of eight inputs of a row has no
//! more than 256 different ones. They are computed once, into a table whose entries hold those of
//! the group's rows side by side, and an output adds up the entries that its codes name. For 768 outputs
//! that is a third of the multiplications of a product, for 3072 a twelfth; and looking up a code costs
//! nearly the same for eight rows as for one.
//!
//! Entries are `i16`. Two of them are added as such, where the codebook's values allow that
//! ([`Codebook::sums`](super::Codebook::sums)); then they are added to sums in `i32`. (Adding four brought
//! nothing.) All of it is exact: the sums are those of [`gemm`](super::gemm), bit for bit.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::Zeroable;

#[cfg(target_arch = "aarch64")]
use super::aarch64::neon_lut;
use super::buffer::Buffer;
use super::finish::{Constants, Finish, Int8};
use super::lanes::{BLOCK, Lanes, LanesOp, LookUp};
#[cfg(target_arch = "x86_64")]
use super::lut;
use super::shared::Shared;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::wasm32::lut as wasm32_lut;
#[cfg(target_arch = "x86_64")]
use super::x86::{avx2, avx2_lut, vnni::Avx512Vnni, vnni_lut};
use super::{Codes, Isa, QuantizedRows, Threads, Weights, prefetch, work};
use crate::layout::{TILE, Tile};

/// The fewest outputs: they share the cost of the tables.
const OUTPUTS: usize = 512;
/// With VNNI groups of sixteen rows gain nothing below so many.
#[cfg(target_arch = "x86_64")]
const WIDE: usize = 1024;
/// The most rows of a group.
const MOST: usize = 32;
/// The most threads that share a group: each has sums of its own.
const PARTS: usize = 8;
/// Fewer groups than this may be shared.
const GROUPS: usize = 64;

#[derive(Default)]
struct Scratch {
    tables: Buffer,
    sums: Buffer,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    /// Centroids, and sums that threads share: of the thread that calls; taken while it waits for others.
    static SHARED: RefCell<[Buffer; 2]> = RefCell::default();
}

/// Whether to use tables at all.
fn suits(weights: &Weights) -> bool {
    let Codes::Pq { book, .. } = weights.codes else {
        return false;
    };
    book.block == BLOCK
        && book.looks_up()
        // Pairs of products with activations up to 255 fit an `i16`, and two entries.
        && book.room >= 1
        && book.sums >= 2
        && weights.out_features >= OUTPUTS
        && weights.out_features.is_multiple_of(TILE)
}

/// Fills the first rows of `y` (`[rows][out_features]`), as many as are faster so than by looking up
/// weights, and returns how many. `rate` is about how many products are added in a nanosecond.
///
/// From times on a Zen 3, in cycles a code: 0.5 and 0.26 a row for looking up weights; 1.2 and
/// 600 / `out_features` for eight rows, and 1.9 and 900 / `out_features` for sixteen, however many of
/// them there are. The second number of those is a code's share in making the tables.
pub(super) fn linear(
    isa: Isa,
    threads: (Threads, usize),
    weights: &Weights,
    x: &QuantizedRows,
    y: &mut [f32],
) -> usize {
    if !suits(weights) {
        return 0;
    }
    let (rows, out_features) = (x.rows(), weights.out_features);
    // Groups of `of`, and one more of a rest that has at least `fewest`.
    let whole = |of: usize, fewest: usize| match rows % of {
        rest if rest >= fewest => rows,
        rest => rows - rest,
    };
    #[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
    let fewest = 4 + 1900 / out_features;
    #[cfg(target_arch = "x86_64")]
    let by_both = (whole(16, 9), whole(8, fewest));
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(token) => avx2(token, threads, weights, x, by_both, y),
        // A product of bytes takes as many instructions for 64 as with AVX2 for 32.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(token) => avx2(token.avx2(), threads, weights, x, by_both, y),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni(token) => vnni(token, threads, weights, x, 9, y),
        // A few more than eight have tables of their own.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vbmi(token) => vnni(token.vnni(), threads, weights, x, 9 + lut::MORE, y),
        // These two from counting instructions. With `i8mm`, a product takes as few as tables.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(token) => {
            let rows = whole(8, 2 + 2000 / out_features);
            groups(neon_lut::Eight(token), threads, weights, x, 0..rows, y);
            rows
        }
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod(token) => {
            let rows = whole(8, fewest);
            groups(neon_lut::Eight(token), threads, weights, x, 0..rows, y);
            rows
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Isa::Portable(_) => {
            let rows = whole(8, 2 + 2000 / out_features);
            groups(wasm32_lut::Eight, threads, weights, x, 0..rows, y);
            rows
        }
        #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
        _ => 0,
    }
}

/// The first rows in groups of sixteen, and then up to `to` in groups of eight.
#[cfg(target_arch = "x86_64")]
fn avx2(
    token: avx2::Avx2,
    threads: (Threads, usize),
    weights: &Weights,
    x: &QuantizedRows,
    (sixteen, eight): (usize, usize),
    y: &mut [f32],
) -> usize {
    let to = eight.max(sixteen);
    groups(avx2_lut::Sixteen(token), threads, weights, x, 0..sixteen, y);
    groups(avx2_lut::Eight(token), threads, weights, x, sixteen..to, y);
    to
}

/// The first rows in groups of thirty-two, and then of sixteen, of at least `fewest`.
///
/// From times on a Zen 4, in cycles a code: 1.55 and 700 / `out_features` for sixteen rows, and 2.6 and
/// 1200 / `out_features` for thirty-two; for looking up weights 1.2 for eight rows, 2.0 for twelve, 2.5 for
/// sixteen and 4.6 for thirty-two.
#[cfg(target_arch = "x86_64")]
fn vnni(
    token: Avx512Vnni,
    threads: (Threads, usize),
    weights: &Weights,
    x: &QuantizedRows,
    fewest: usize,
    y: &mut [f32],
) -> usize {
    let (rows, out_features) = (x.rows(), weights.out_features);
    // The end of the groups of `of` from row `from` on, of which the last one has at least `fewest`. As
    // many groups for each thread: two threads that share one gain next to nothing, while looking up
    // weights is shared out as one likes.
    let whole = |from: usize, of: usize, fewest: usize| {
        let rows = rows - from;
        let groups = rows / of + usize::from(rows % of >= fewest);
        let uneven = match threads.0.0 {
            threads if groups < 4 * threads => groups % threads,
            _ => 0,
        };
        from + rows.min((groups - uneven) * of)
    };
    let two = whole(0, 32, 22 + 4600 / out_features);
    groups(vnni_lut::ThirtyTwo(token), threads, weights, x, 0..two, y);
    if out_features < WIDE {
        return two;
    }
    let one = whole(two, 16, fewest);
    groups(vnni_lut::Sixteen(token), threads, weights, x, two..one, y);
    one
}

/// Fills rows `rows` of `y` (`[rows of x][out_features]`).
fn groups<L: Lanes>(
    lanes: L,
    (threads, rate): (Threads, usize),
    weights: &Weights,
    x: &QuantizedRows,
    rows: Range<usize>,
    y: &mut [f32],
) {
    if rows.is_empty() {
        return;
    }
    let Codes::Pq { codes, book } = weights.codes else {
        unreachable!("tables are for codes");
    };
    let (columns, out_features) = (x.columns(), weights.out_features);
    let [mut centroids, mut shared] = SHARED.take();
    let of_codes = centroids.of::<L::Centroids>(256 / L::EACH);
    L::centroids(&book.int8, of_codes);
    let groups = rows.len().div_ceil(L::ROWS);
    let product = Product::<L> {
        weights,
        codes,
        centroids: of_codes,
        x,
        rows,
        groups,
        blocks: columns.div_ceil(BLOCK),
        output: Shared::new(y),
    };
    // If threads do not get about as many groups each, they share groups.
    let parts = match threads.0 {
        threads if groups.is_multiple_of(threads) || groups >= GROUPS.min(4 * threads) => 1,
        threads => threads.min(PARTS).min(product.blocks.div_ceil(L::TABLES)),
    };
    let work = work([product.rows.len(), out_features, columns]);
    let tiles = out_features / TILE;
    if parts == 1 {
        threads.each_for(groups, work / rate as u64, |group| {
            SCRATCH.with_borrow_mut(|Scratch { tables, sums }| {
                let sums = sums.of(out_features);
                product.add(lanes, group, &AtomicUsize::new(0), tables, sums);
                for (tile, sums) in sums.as_chunks().0.iter().enumerate() {
                    product.finish(lanes, group, tile, sums);
                }
            });
        });
    } else {
        let sums = Shared::new(shared.of::<L::Sums>(groups * parts * out_features));
        let next = [const { AtomicUsize::new(0) }; GROUPS];
        threads.each_for(groups * parts, work / rate as u64, |item| {
            // SAFETY: each item has sums of its own.
            let sums = unsafe { sums.part(item * out_features..(item + 1) * out_features) };
            let group = item / parts;
            SCRATCH.with_borrow_mut(|Scratch { tables, .. }| {
                product.add(lanes, group, &next[group], tables, sums);
            });
        });
        // A product adds up a few numbers here for each hundred above.
        threads.each_for(groups * tiles, work / rate as u64, |item| {
            let (group, tile) = (item / tiles, item % tiles);
            let mut parts = (0..parts).map(|part| {
                let start = (group * parts + part) * out_features + tile * TILE;
                // SAFETY: each item has a tile of a group to itself, in all parts.
                unsafe { sums.part(start..start + TILE) }
            });
            let all = parts.next().expect("at least two parts");
            for sums in parts {
                let sums: &[i32] = bytemuck::cast_slice(sums);
                let all: &mut [i32] = bytemuck::cast_slice_mut(all);
                all.iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
            }
            product.finish(
                lanes,
                group,
                tile,
                all.as_chunks().0.first().expect("a tile"),
            );
        });
    }
    SHARED.set([centroids, shared]);
}

struct Product<'a, L: Lanes> {
    weights: &'a Weights<'a>,
    codes: &'a [u8],
    centroids: &'a [L::Centroids],
    x: &'a QuantizedRows,
    rows: Range<usize>,
    groups: usize,
    blocks: usize,
    /// `[rows of x][out_features]`
    output: Shared<'a, f32>,
}

impl<L: Lanes> Product<'_, L> {
    /// The rows of a group: as even as they come.
    fn group(&self, index: usize) -> Range<usize> {
        let start = |index: usize| self.rows.start + index * self.rows.len() / self.groups;
        start(index)..start(index + 1)
    }

    /// Sets the sums of all outputs to those of the blocks from `next` on that no other thread takes:
    /// as integers they are the same, whoever adds which.
    fn add(
        &self,
        lanes: L,
        group: usize,
        next: &AtomicUsize,
        tables: &mut Buffer,
        sums: &mut [L::Sums],
    ) {
        let rows = self.group(group);
        let (tables, _) = tables
            .of::<L::Entry>(L::TABLES * 256)
            .as_chunks_mut::<256>();
        let (sums, _) = sums.as_chunks_mut::<TILE>();
        sums.as_flattened_mut().fill(L::Sums::zeroed());
        loop {
            let from = next.fetch_add(L::TABLES, Ordering::Relaxed);
            if from >= self.blocks {
                break;
            }
            let to = (from + L::TABLES).min(self.blocks);
            for (block, table) in (from..to).zip(&mut *tables) {
                let mut inputs = [[0; BLOCK]; MOST];
                for (row, inputs) in rows.clone().zip(&mut inputs) {
                    *inputs = self.block(row, block);
                }
                let inputs = L::inputs(&inputs[..rows.len()]);
                lanes.table(self.centroids, &inputs, table);
            }
            let tiles = sums.len();
            for (tile, sums) in sums.iter_mut().enumerate() {
                let codes = |tile: usize| {
                    let start = (tile * self.blocks + from) * TILE;
                    &self.codes[start..start + (to - from) * TILE]
                };
                if tile + 1 < tiles {
                    prefetch::soon(codes(tile + 1));
                }
                let codes = codes(tile);
                look_up(lanes, codes.as_chunks().0, tables, sums);
            }
        }
    }

    /// A block of a row's inputs, with zeros after the last one.
    fn block(&self, row: usize, block: usize) -> [i8; BLOCK] {
        let columns = self.x.columns();
        let inputs = block * BLOCK..((block + 1) * BLOCK).min(columns);
        let values = &self.x.values()[row * columns..][inputs];
        values.try_into().unwrap_or_else(|_| {
            let mut block = [0; BLOCK];
            block[..values.len()].copy_from_slice(values);
            block
        })
    }

    /// The outputs of a tile and a group, from their sums.
    fn finish(&self, lanes: L, group: usize, tile: usize, sums: &[L::Sums; TILE]) {
        lanes.run(Outputs {
            product: self,
            rows: self.group(group),
            tile: Tile::nth(tile, self.weights.out_features),
            sums,
        });
    }
}

struct Outputs<'a, L: Lanes> {
    product: &'a Product<'a, L>,
    rows: Range<usize>,
    tile: Tile,
    sums: &'a [L::Sums; TILE],
}

impl<L: Lanes> LanesOp<L> for Outputs<'_, L> {
    #[inline(always)]
    fn eval(self, lanes: L) {
        let Product {
            weights, x, output, ..
        } = self.product;
        let constants = Constants::new(weights, self.tile);
        let finish = Int8::new(x, 0);
        let mut turned = [[0; TILE]; MOST];
        let turned = &mut turned[..L::ROWS];
        lanes.turn(self.sums, turned);
        for (row, sums) in self.rows.zip(&*turned) {
            let start = row * weights.out_features + self.tile.first;
            // SAFETY: a tile and a group of rows are handed to one thread.
            let out = unsafe { output.part(start..start + TILE) };
            finish.row(&constants, row, sums, out);
        }
    }
}

/// Adds codes of each output, as many as there are tables.
fn look_up<L: Lanes>(
    lanes: L,
    mut codes: &[[u8; TILE]],
    mut tables: &[[L::Entry; 256]],
    sums: &mut [L::Sums; TILE],
) {
    fn first<L: Lanes, const G: usize>(
        lanes: L,
        codes: &mut &[[u8; TILE]],
        tables: &mut &[[L::Entry; 256]],
        sums: &mut [L::Sums; TILE],
    ) {
        lanes.run(LookUp::<L, G> {
            codes: codes.split_first_chunk().expect("as many codes").0,
            tables: tables.split_first_chunk().expect("as many tables").0,
            sums,
        });
        (*codes, *tables) = (&codes[G..], &tables[G..]);
    }
    while !codes.is_empty() {
        match codes.len() {
            16.. if L::TABLES >= 16 => first::<L, 16>(lanes, &mut codes, &mut tables, sums),
            8.. if L::TABLES >= 8 => first::<L, 8>(lanes, &mut codes, &mut tables, sums),
            4.. => first::<L, 4>(lanes, &mut codes, &mut tables, sums),
            3 => first::<L, 3>(lanes, &mut codes, &mut tables, sums),
            2 => first::<L, 2>(lanes, &mut codes, &mut tables, sums),
            _ => first::<L, 1>(lanes, &mut codes, &mut tables, sums),
        }
    }
}

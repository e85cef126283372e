//! What stands between two products, row by row: the embedding, the residual, the norm or the
//! activation, and the quantizing of the result, while the row is in the L1 cache.
//!
//! Rows are shared out among threads where there is enough work. Each is computed alone, so a result
//! depends neither on the other rows nor on the number of threads.

use std::cell::RefCell;

use super::buffer::Buffer;
use super::elementwise::{self, Activation, Affine};
use super::rows::Places;
use super::shared::Shared;
use super::simd::{Op, Simd};
use super::tables::TableRow;
use super::{Isa, QuantizedRows, Threads};

/// What a row goes through, in the order of the fields.
#[derive(Clone, Copy, Default)]
struct Steps<'a> {
    /// Rows of tables whose sum takes the place of what was there.
    tables: Option<[TableRow<'a>; 3]>,
    /// A row that is added.
    added: Option<&'a [f32]>,
    /// Factors of the columns.
    factors: Option<&'a [f32]>,
    norm: Option<Affine<'a>>,
    activation: Option<Activation>,
}

/// Fills every row of `x` with `norm(a + b + c)`, for the table rows `[a, b, c]` that `rows` gives,
/// and quantizes the result if that is asked for.
pub(crate) fn embed<'a>(
    (isa, threads): (Isa, Threads),
    rows: impl Fn(usize) -> [TableRow<'a>; 3] + Sync,
    x: &mut [f32],
    norm: Affine,
    quantized: Option<&mut QuantizedRows>,
) {
    let steps = |row| Steps {
        tables: Some(rows(row)),
        norm: Some(norm),
        ..Steps::default()
    };
    each_row((isa, threads), steps, x, norm.weight.len(), quantized);
}

/// `x = norm(x + added)` for every row, and the same quantized if it is asked for.
pub(crate) fn norm(
    (isa, threads): (Isa, Threads),
    x: &mut [f32],
    added: Option<&[f32]>,
    norm: Affine,
    quantized: Option<&mut QuantizedRows>,
) {
    let columns = norm.weight.len();
    assert!(added.is_none_or(|added| added.len() == x.len()));
    let steps = |row| Steps {
        added: added.map(|added| &added[row * columns..][..columns]),
        norm: Some(norm),
        ..Steps::default()
    };
    each_row((isa, threads), steps, x, columns, quantized);
}

/// Applies an activation to every row; quantizes the result if that is asked for.
pub(crate) fn activate(
    (isa, threads): (Isa, Threads),
    activation: Activation,
    x: &mut [f32],
    columns: usize,
    quantized: Option<&mut QuantizedRows>,
) {
    let steps = |_| Steps {
        activation: Some(activation),
        ..Steps::default()
    };
    each_row((isa, threads), steps, x, columns, quantized);
}

/// Multiplies every row of `x` with `factors`, column by column.
pub(crate) fn scale((isa, threads): (Isa, Threads), x: &mut [f32], factors: &[f32]) {
    let steps = |_| Steps {
        factors: Some(factors),
        ..Steps::default()
    };
    each_row((isa, threads), steps, x, factors.len(), None);
}

/// Quantizes `x` (`[rows][columns]`).
pub(crate) fn quantize(
    machine: (Isa, Threads),
    x: &[f32],
    columns: usize,
    quantized: &mut QuantizedRows,
) {
    quantize_rows(machine, x, columns, None, quantized);
}

/// Quantizes the rows of `x` times `factors`, column by column.
pub(crate) fn quantize_scaled(
    machine: (Isa, Threads),
    x: &[f32],
    factors: &[f32],
    quantized: &mut QuantizedRows,
) {
    quantize_rows(machine, x, factors.len(), Some(factors), quantized);
}

fn quantize_rows(
    (isa, threads): (Isa, Threads),
    x: &[f32],
    columns: usize,
    factors: Option<&[f32]>,
    quantized: &mut QuantizedRows,
) {
    /// Rows of a part, which need not wait for each other.
    const PART: usize = 16;
    assert_eq!(x.len() % columns, 0);
    let rows = x.len() / columns;
    quantized.reset(rows, columns);
    let places = quantized.places();
    threads.each_for(rows.div_ceil(PART), x.len() as u64 / 2, |part| {
        PRODUCTS.with_borrow_mut(|products| {
            let rows = part * PART..((part + 1) * PART).min(rows);
            isa.run(Quantize {
                x: &x[rows.start * columns..rows.end * columns],
                columns,
                factors: factors.map(|factors| (factors, products.of(columns))),
                // Nothing else is at work on these rows.
                places: &places,
                first: rows.start,
            });
        });
    });
}

thread_local! {
    /// A row times factors.
    static PRODUCTS: RefCell<Buffer> = RefCell::default();
}

/// Rows to be quantized, or their products with factors.
struct Quantize<'a> {
    x: &'a [f32],
    columns: usize,
    /// And room for the products of a row.
    factors: Option<(&'a [f32], &'a mut [f32])>,
    places: &'a Places<'a>,
    first: usize,
}

impl Op for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(mut self, simd: S) {
        for (row, x) in self.x.chunks_exact(self.columns).enumerate() {
            let (x, largest) = match &mut self.factors {
                None => (x, elementwise::largest_in(simd, x)),
                Some((factors, products)) => {
                    let largest = elementwise::product_row(simd, x, factors, products);
                    (&**products, largest)
                }
            };
            // SAFETY: `quantize_rows` hands every row to one of these.
            unsafe { self.places.put(simd, self.first + row, x, largest) };
        }
    }
}

fn each_row<'a>(
    (isa, threads): (Isa, Threads),
    steps: impl Fn(usize) -> Steps<'a> + Sync,
    x: &mut [f32],
    columns: usize,
    quantized: Option<&mut QuantizedRows>,
) {
    assert_eq!(x.len() % columns, 0);
    let rows = x.len() / columns;
    let places = quantized.map(|quantized| {
        quantized.reset(rows, columns);
        quantized.places()
    });
    // About 1 ns a value.
    let nanoseconds = x.len() as u64;
    let x = Shared::new(x);
    threads.each_for(rows, nanoseconds, |row| {
        let range = row * columns..(row + 1) * columns;
        isa.run(Row {
            steps: steps(row),
            // SAFETY: every row is handed out once.
            x: unsafe { x.part(range) },
            place: places.as_ref().map(|places| (places, row)),
        });
    });
}

/// One row and where it goes.
struct Row<'a> {
    steps: Steps<'a>,
    x: &'a mut [f32],
    /// Nothing else is at work on this row.
    place: Option<(&'a Places<'a>, usize)>,
}

impl Op for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        if let Some(tables) = self.steps.tables {
            self.x.fill(0.0);
            for table in tables {
                table.add(self.x);
            }
        }
        if let Some(added) = self.steps.added {
            elementwise::add_row(simd, self.x, added);
        }
        if let Some(factors) = self.steps.factors {
            elementwise::scale_row(simd, self.x, factors);
        }
        let mut largest = None;
        if let Some(norm) = self.steps.norm {
            largest = Some(elementwise::norm_row(simd, self.x, norm));
        }
        if let Some(activation) = self.steps.activation {
            largest = Some(elementwise::activate_row(simd, activation, self.x));
        }
        if let Some((places, row)) = self.place {
            let largest = match largest {
                Some(largest) => largest,
                None => elementwise::largest_in(simd, self.x),
            };
            // SAFETY: `each_row` makes one of these for each row.
            unsafe { places.put(simd, row, self.x, largest) };
        }
    }
}

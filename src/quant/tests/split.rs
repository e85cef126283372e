use super::*;
use crate::error::ErrorKind;
use crate::quant::rng::Rng;

const ROWS: usize = 700;
const COLS: usize = 22; // the last block of 4 is short

/// Blocks that are near one of 16 vectors, others in each place of a row; rows differ in size.
fn weights() -> Vec<f32> {
    let mut rng = Rng::new(3);
    let known: Vec<f32> = (0..16 * COLS).map(|_| rng.normal()).collect();
    let mut data = Vec::with_capacity(ROWS * COLS);
    for r in 0..ROWS {
        let size = 2f32.powi(r as i32 % 3);
        for block in 0..COLS.div_ceil(4) {
            let one = rng.below(16);
            for c in 4 * block..COLS.min(4 * block + 4) {
                data.push(size * (known[one * COLS + c] + 0.2 * rng.normal()));
            }
        }
    }
    data
}

/// Of inputs that move together.
fn hessian() -> Vec<f32> {
    let mut rng = Rng::new(4);
    let mut h = vec![0.0; COLS * COLS];
    for _ in 0..200 {
        let shared = rng.normal();
        let x: Vec<f32> = (0..COLS)
            .map(|c| shared * (c % 3) as f32 + 0.5 * rng.normal())
            .collect();
        for (h, i) in h.chunks_exact_mut(COLS).zip(&x) {
            h.iter_mut().zip(&x).for_each(|(h, j)| *h += i * j);
        }
    }
    h
}

fn loss(w: &[f32], pq: &Pq, h: &[f32]) -> f64 {
    let decoded = pq.dequantize();
    let errors: Vec<f32> = w.iter().zip(&decoded).map(|(a, b)| a - b).collect();
    let row = |e: &[f32]| -> f64 {
        let products = (0..COLS * COLS).map(|at| f64::from(e[at / COLS] * h[at] * e[at % COLS]));
        products.sum()
    };
    errors.chunks_exact(COLS).map(row).sum()
}

fn options(codebooks: usize) -> PqOptions {
    let mut options = PqOptions::new(4);
    options.centroids = 16;
    options.codebooks = codebooks;
    options
}

#[test]
fn more_codebooks_leave_less_error() {
    let (data, h) = (weights(), hessian());
    let w = Matrix::new(&data, ROWS, COLS).unwrap();
    for row_scale in [false, true] {
        let run = |codebooks: usize| {
            let options = PqOptions {
                row_scale,
                ..options(codebooks)
            };
            let plain = pq::quantize(w, Importance::default(), &options, &|_| ()).unwrap();
            let informed = pq::quantize_with_hessian(w, &h, None, &options, &|_| ()).unwrap();
            assert_eq!(plain.codebooks, codebooks);
            assert_eq!(plain.row_scale.is_some(), row_scale);
            assert_eq!(plain.codebook.len(), codebooks * plain.k * 4);
            (
                plain.relative_error(w),
                loss(&data, &informed, &h),
                loss(&data, &plain, &h),
            )
        };
        let found = [1, 2, 3, 6].map(run);
        for pair in found.windows(2) {
            assert!(pair[1].0 < pair[0].0 && pair[1].1 < pair[0].1, "{found:?}");
        }
        // Blocks that differ are what it is for; and errors make up for each other.
        println!("{found:?}");
        assert!(found[3].0 < 0.8 * found[0].0, "{found:?}");
        assert!(found[3].1 < 0.7 * found[3].2, "{found:?}");
    }
}

#[test]
fn each_part_has_its_own_codebook() {
    // Blocks of the first half are all (1, 2, 3, 4), of the second (5, 6).
    let row = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let data = row.repeat(8);
    let w = Matrix::new(&data, 8, 6).unwrap();
    let mut options = options(2);
    options.centroid_type = CentroidType::F16;
    options.centroids = 2;
    let found = pq::quantize(w, Importance::default(), &options, &|_| ()).unwrap();
    assert_eq!(found.dequantize(), data);
    let mut out = [0.0; 6];
    found.dequantize_row(3, &mut out);
    assert_eq!(out, row);
    assert_eq!(found.relative_error(w), 0.0);
}

#[test]
fn codebooks_divide_the_blocks_of_a_row() {
    let data = weights();
    let w = Matrix::new(&data, ROWS, COLS).unwrap();
    for codebooks in [0, 4, 7] {
        let options = options(codebooks);
        let plain = pq::quantize(w, Importance::default(), &options, &|_| ());
        let informed = pq::quantize_with_hessian(w, &hessian(), None, &options, &|_| ());
        for error in [plain.unwrap_err(), informed.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(
                error.to_string().contains("do not divide the 6 blocks"),
                "{error}"
            );
        }
    }
}

#[test]
fn progress_adds_up() {
    let data = weights();
    let w = Matrix::new(&data, ROWS, COLS).unwrap();
    let done = std::sync::atomic::AtomicU64::new(0);
    let count = |n| {
        done.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
    };
    pq::quantize_with_hessian(w, &hessian(), None, &options(3), &count).unwrap();
    assert_eq!(done.into_inner(), (ROWS * COLS) as u64);
}

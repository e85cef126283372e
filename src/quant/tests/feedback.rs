use super::*;
use crate::quant::pq::quantize;
use crate::quant::rng::Rng;

const ROWS: usize = 96;
const COLS: usize = 75; // odd: the last block is short

/// The Hessian of inputs that move together, some much larger than others, and one never used.
fn hessian(samples: usize) -> Vec<f32> {
    let mut rng = Rng::new(1);
    let mix: Vec<f32> = (0..12 * COLS).map(|_| rng.normal()).collect();
    let mut h = vec![0.0; COLS * COLS];
    for _ in 0..samples {
        let mut x: Vec<f32> = (0..COLS).map(|_| 0.3 * rng.normal()).collect();
        for mix in mix.chunks_exact(COLS) {
            add_scaled(&mut x, rng.normal(), mix);
        }
        for (i, x) in x.iter_mut().enumerate() {
            *x *= if i == 10 {
                0.0
            } else {
                2f32.powi(i as i32 % 5 - 2)
            };
        }
        for i in 0..COLS {
            add_scaled(&mut h[i * COLS..(i + 1) * COLS], x[i], &x);
        }
    }
    h
}

fn weights() -> Vec<f32> {
    let mut rng = Rng::new(2);
    (0..ROWS)
        .flat_map(|r| {
            let factor = 2f32.powi(r as i32 % 3);
            (0..COLS).map(|_| factor * rng.normal()).collect::<Vec<_>>()
        })
        .collect()
}

/// `trace(E H E^T)`, by its definition.
fn loss(w: &[f32], pq: &Pq, h: &[f32]) -> f64 {
    let decoded = pq.dequantize();
    let e: Vec<f64> = w
        .iter()
        .zip(&decoded)
        .map(|(a, b)| f64::from(a - b))
        .collect();
    let mut sum = 0.0;
    for e in e.chunks_exact(COLS) {
        for i in 0..COLS {
            for j in 0..COLS {
                sum += e[i] * f64::from(h[i * COLS + j]) * e[j];
            }
        }
    }
    sum
}

#[test]
fn beats_plain_and_diagonal_kmeans_by_far_on_correlated_inputs() {
    let h = hessian(500);
    let data = weights();
    let w = Matrix::new(&data, ROWS, COLS).unwrap();
    let diagonal: Vec<f32> = (0..COLS).map(|i| h[i * COLS + i]).collect();
    for (block, row_scale) in [(2, true), (4, false), (4, true), (8, false)] {
        let mut options = PqOptions::new(block);
        options.row_scale = row_scale;
        options.centroids = 64;
        let plain = quantize(w, Importance::default(), &options, &|_| ()).unwrap();
        let weighted = quantize(
            w,
            Importance {
                columns: Some(&diagonal),
                rows: None,
            },
            &options,
            &|_| (),
        )
        .unwrap();
        options.refinements = 0;
        let first = quantize_with_hessian(w, &h, None, &options, &|_| ()).unwrap();
        options.refinements = 3;
        let refined = quantize_with_hessian(w, &h, None, &options, &|_| ()).unwrap();
        let of = |pq: &Pq| loss(&data, pq, &h);
        assert!(
            of(&refined) < of(&plain) / 5.0,
            "{} {}",
            of(&refined),
            of(&plain)
        );
        assert!(of(&refined) < of(&weighted) / 3.0);
        assert!(of(&refined) < 0.8 * of(&first));
    }
}

#[test]
fn feedback_chooses_the_least_block_of_the_triangular_error() {
    let h = hessian(200);
    let data = weights();
    let geometry = Geometry::new(&h, COLS, 4).unwrap();
    let mut rng = Rng::new(3);
    let codebook: Vec<f32> = (0..32 * 4).map(|_| 2.0 * rng.normal()).collect();
    let mut codes = vec![0; ROWS * geometry.per_row()];
    geometry.feedback(&data, &codebook, &mut codes);
    for (w, codes) in data
        .chunks_exact(COLS)
        .zip(codes.chunks_exact(geometry.per_row()))
    {
        let mut e: Vec<f64> = Vec::new();
        for (j, &code) in codes.iter().enumerate() {
            let columns = geometry.columns(j);
            // The block of `e R` that centroid k would leave.
            let size = |k: usize, e: &mut Vec<f64>| -> f64 {
                e.truncate(columns.start);
                let c = &codebook[k * 4..];
                e.extend(
                    w[columns.clone()]
                        .iter()
                        .zip(c)
                        .map(|(w, c)| f64::from(w - c)),
                );
                let block = columns.clone().map(|o| -> f64 {
                    let r = |i: usize| f64::from(geometry.r[i * COLS + o]);
                    e.iter().enumerate().map(|(i, e)| e * r(i)).sum()
                });
                block.map(|z| z * z).sum()
            };
            let least = (0..32)
                .map(|k| size(k, &mut e))
                .fold(f64::INFINITY, f64::min);
            let chosen = size(usize::from(code), &mut e);
            assert!(chosen <= least * 1.001 + 1e-3, "{chosen} {least}");
        }
    }
}

#[test]
fn a_sweep_and_a_codebook_each_lower_the_error() {
    let h = hessian(200);
    let data = weights();
    let w = Matrix::new(&data, ROWS, COLS).unwrap();
    let mut options = PqOptions::new(4);
    options.centroids = 32;
    let geometry = Geometry::new(&h, COLS, 4).unwrap();
    let damped = geometry.h.clone();
    let mut progress = Progress::new(1, 1, &|_| ());
    let mut fit = Fit::new(w, Importance::default(), &options, &mut progress).unwrap();
    let mut codebook = fit.codebook.decode();
    let error = |codes: &[u8], codebook: &[f32]| -> f64 {
        let e = geometry.errors(&data, codebook, codes);
        let mut g = vec![0.0; e.len()];
        Right::new(&damped, COLS).unwrap().multiply(&e, &mut g);
        e.iter().zip(&g).map(|(e, g)| f64::from(e * g)).sum()
    };
    let start = error(&fit.codes, &codebook);
    geometry.sweep(&data, &codebook, &mut fit.codes);
    let swept = error(&fit.codes, &codebook);
    assert!(swept < 0.7 * start, "{start} {swept}");
    geometry.fit_codebook(&fit, &mut codebook);
    let fitted = error(&fit.codes, &codebook);
    assert!(fitted < 0.98 * swept, "{swept} {fitted}");
}

#[test]
fn the_same_on_any_number_of_threads() {
    let h = hessian(100);
    let data = weights();
    let w = Matrix::new(&data, ROWS, COLS).unwrap();
    let mut options = PqOptions::new(2);
    options.row_scale = true;
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| quantize_with_hessian(w, &h, None, &options, &|_| ()).unwrap())
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn degenerate_hessians() {
    let data = weights();
    let w = Matrix::new(&data, ROWS, COLS).unwrap();
    let options = PqOptions::new(4);
    let run = |h: &[f32]| quantize_with_hessian(w, h, None, &options, &|_| ());
    // No input is ever used, or a single sample: the damping decides.
    assert!(run(&vec![0.0; COLS * COLS]).unwrap().relative_error(w) < 0.6);
    assert!(run(&hessian(1)).is_ok());
    let mut negative = hessian(10);
    negative[0] = -1e6;
    let mut indefinite = hessian(10);
    indefinite[1] = 1e6;
    for bad in [
        vec![1.0; 4],
        vec![f32::NAN; COLS * COLS],
        negative,
        indefinite,
    ] {
        let error = run(&bad).expect_err("a bad Hessian is refused");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

#[test]
fn centroids_go_to_the_rows_that_count() {
    let h = hessian(300);
    let data = weights();
    let w = Matrix::new(&data, ROWS, COLS).unwrap();
    let counts: Vec<f32> = (0..ROWS).map(|r| if r < 16 { 20.0 } else { 0.1 }).collect();
    for row_scale in [false, true] {
        let mut options = PqOptions::new(4);
        options.row_scale = row_scale;
        options.centroids = 32;
        let run = |counts| quantize_with_hessian(w, &h, counts, &options, &|_| ());
        let of_first = |pq: &Pq| {
            let first = Pq {
                rows: 16,
                codes: pq.codes[..16 * pq.codes.len() / ROWS].to_vec(),
                row_scale: pq.row_scale.clone(),
                ..pq.clone()
            };
            loss(&data[..16 * COLS], &first, &h)
        };
        let [plain, counted] = [None, Some(&counts[..])].map(|c| of_first(&run(c).unwrap()));
        assert!(counted < 0.7 * plain, "{counted} {plain}");
        for bad in [&counts[1..], &[-1.0; ROWS], &[f32::NAN; ROWS]] {
            let error = run(Some(bad)).expect_err("bad counts are refused");
            assert_eq!(error.kind(), ErrorKind::Config);
        }
    }
}

use super::*;
use crate::quant::rng::Rng;
use proptest::prelude::*;

fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| rng.normal()).collect()
}

fn columns(columns: &[f32]) -> Importance<'_> {
    Importance {
        columns: Some(columns),
        rows: None,
    }
}

fn run(w: Matrix<'_>, options: &PqOptions) -> Pq {
    quantize(w, Importance::default(), options, &|_| ()).unwrap()
}

/// What every result must satisfy.
fn check(pq: &Pq, w: Matrix<'_>, options: &PqOptions) {
    assert_eq!((pq.rows, pq.cols), (w.rows(), w.cols()));
    assert_eq!(pq.codes.len(), options.vectors(w.rows(), w.cols()));
    assert!((2..=options.centroids).contains(&pq.k));
    assert_eq!(pq.codebook.len(), pq.k * pq.block);
    assert!(pq.codes.iter().all(|&code| usize::from(code) < pq.k));
    match &pq.codebook {
        Codebook::Int8 { values, scale } => {
            assert!(values.iter().all(|&v| v >= -127));
            assert!(scale.is_finite() && *scale > 0.0);
        }
        Codebook::F16(values) => assert!(values.iter().all(|v| v.is_finite())),
    }
    assert_eq!(pq.row_scale.is_some(), options.row_scale);
    for factor in pq.row_scale.iter().flat_map(|s| &s.factors) {
        assert!(factor.is_finite() && *factor >= f16::ZERO);
    }
    assert!(pq.dequantize().iter().all(|x| x.is_finite()));
}

#[test]
fn bad_options_and_importances_are_errors() {
    let data = [1.0; 8];
    let w = Matrix::new(&data, 2, 4).unwrap();
    for (block, centroids) in [(0, 256), (MAX_BLOCK + 1, 256), (2, 1), (2, 257)] {
        let mut options = PqOptions::new(block);
        options.centroids = centroids;
        let error = quantize(w, Importance::default(), &options, &|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    for importance in [&[1.0; 3][..], &[1.0, 1.0, 1.0, -1.0]] {
        assert!(quantize(w, columns(importance), &PqOptions::new(2), &|_| ()).is_err());
    }
    for rows in [&[1.0; 3][..], &[1.0, f32::INFINITY]] {
        let importance = Importance {
            columns: None,
            rows: Some(rows),
        };
        assert!(quantize(w, importance, &PqOptions::new(2), &|_| ()).is_err());
    }
    let large = [1e6; 8];
    let mut options = PqOptions::new(2);
    options.centroid_type = CentroidType::F16;
    let error = quantize(
        Matrix::new(&large, 2, 4).unwrap(),
        Importance::default(),
        &options,
        &|_| (),
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
}

#[test]
fn codes_are_the_nearest_stored_centroids() {
    let data = normal(200 * 13, 1);
    let w = Matrix::new(&data, 200, 13).unwrap();
    for centroid_type in [CentroidType::Int8, CentroidType::F16] {
        let mut options = PqOptions::new(4);
        options.centroid_type = centroid_type;
        options.centroids = 64;
        let pq = run(w, &options);
        check(&pq, w, &options);
        let codebook = pq.codebook.decode();
        for r in 0..200 {
            for (j, x) in w.row(r).chunks(4).enumerate() {
                let distance = |k: usize| -> f32 {
                    let c = &codebook[k * 4..];
                    x.iter().zip(c).map(|(x, c)| (x - c) * (x - c)).sum()
                };
                let least = (0..pq.k).map(distance).fold(f32::INFINITY, f32::min);
                assert!(distance(usize::from(pq.codes[r * 4 + j])) <= least + 1e-5);
            }
        }
    }
}

#[test]
fn the_same_on_any_number_of_threads_and_different_for_another_seed() {
    let data = normal(900 * 34, 2);
    let w = Matrix::new(&data, 900, 34).unwrap();
    let mut options = PqOptions::new(4);
    options.row_scale = true;
    options.centroids = 16; // few enough for sampling to take place
    options.iterations = 4;
    let on = |threads: usize, options: &PqOptions| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| run(w, options))
    };
    let one = on(1, &options);
    assert_eq!(one, on(2, &options));
    assert_eq!(one, on(5, &options));
    options.seed = 1;
    assert_ne!(one, on(1, &options));
}

#[test]
fn a_constant_matrix_has_two_equal_centroids() {
    for value in [0.0, 0.3, -1e-30] {
        for row_scale in [false, true] {
            let data = [value; 24];
            let w = Matrix::new(&data, 4, 6).unwrap();
            let mut options = PqOptions::new(4);
            options.row_scale = row_scale;
            let pq = run(w, &options);
            check(&pq, w, &options);
            // Two distinct patterns at most: the short block leaves its tail free.
            assert!(pq.k <= 2);
            assert!(pq.relative_error(w) <= 1e-3, "{}", pq.relative_error(w));
            if value == 0.0 {
                assert!(matches!(pq.codebook, Codebook::Int8 { scale: 1.0, .. }));
            }
        }
    }
}

#[test]
fn row_scales_serve_rows_of_different_magnitude() {
    let mut data = normal(128 * 64, 3);
    for (r, row) in data.chunks_exact_mut(64).enumerate() {
        let factor = if r == 5 { 0.0 } else { 2f32.powi(r as i32 % 8) };
        row.iter_mut().for_each(|x| *x *= factor);
    }
    let w = Matrix::new(&data, 128, 64).unwrap();
    let mut options = PqOptions::new(4);
    let plain = run(w, &options).relative_error(w);
    options.row_scale = true;
    let scaled = run(w, &options);
    check(&scaled, w, &options);
    assert!(scaled.relative_error(w) < 0.95 * plain);
    assert_eq!(scaled.row_scale.as_ref().unwrap().factors[5], f16::ZERO);
    let mut out = [1.0; 64];
    scaled.dequantize_row(5, &mut out);
    assert_eq!(out, [0.0; 64]);
    // A small row keeps its own relative precision.
    let error_of = |pq: &Pq, r: usize| -> f32 {
        let mut out = [0.0; 64];
        pq.dequantize_row(r, &mut out);
        out.iter()
            .zip(w.row(r))
            .map(|(a, b)| (a - b) * (a - b))
            .sum()
    };
    options.row_scale = false;
    assert!(error_of(&scaled, 8) < 0.5 * error_of(&run(w, &options), 8));
}

#[test]
fn importance_moves_error_to_unimportant_columns() {
    let data = normal(500 * 16, 4);
    let w = Matrix::new(&data, 500, 16).unwrap();
    let mut importance = [1.0; 16];
    importance[1..]
        .iter_mut()
        .step_by(4)
        .for_each(|h| *h = 50.0);
    importance[3] = 0.0;
    let weighted_error = |pq: &Pq| -> f64 {
        let decoded = pq.dequantize();
        let pairs = decoded.iter().zip(&data).enumerate();
        pairs
            .map(|(at, (a, b))| f64::from(importance[at % 16] * (a - b).powi(2)))
            .sum()
    };
    let options = PqOptions::new(4);
    let plain = run(w, &options);
    let weighted = quantize(w, columns(&importance), &options, &|_| ()).unwrap();
    assert!(weighted_error(&weighted) < 0.5 * weighted_error(&plain));
}

#[test]
fn importance_moves_error_to_unimportant_rows() {
    let data = normal(6000 * 16, 7);
    let w = Matrix::new(&data, 6000, 16).unwrap();
    // Like words: a few are most of a text.
    let counts: Vec<f32> = (0..6000).map(|r| 1000.0 / (r + 1) as f32).collect();
    let weighted_error = |pq: &Pq| -> f64 {
        let decoded = pq.dequantize();
        let rows = decoded.chunks_exact(16).zip(data.chunks_exact(16));
        let square = |(a, b): (&f32, &f32)| f64::from((a - b).powi(2));
        rows.zip(&counts)
            .map(|((a, b), &count)| f64::from(count) * a.iter().zip(b).map(square).sum::<f64>())
            .sum()
    };
    for row_scale in [false, true] {
        let mut options = PqOptions::new(4);
        options.row_scale = row_scale;
        let plain = run(w, &options);
        let importance = Importance {
            columns: None,
            rows: Some(&counts),
        };
        let weighted = quantize(w, importance, &options, &|_| ()).unwrap();
        let (weighted, plain) = (weighted_error(&weighted), weighted_error(&plain));
        assert!(weighted < 0.7 * plain, "{weighted} {plain}");
    }
}

#[test]
fn progress_adds_up_to_all_weights() {
    let data = normal(300 * 10, 5);
    let total = std::sync::atomic::AtomicU64::new(0);
    let sink = |n: u64| {
        total.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
    };
    let w = Matrix::new(&data, 300, 10).unwrap();
    quantize(w, Importance::default(), &PqOptions::new(4), &sink).unwrap();
    assert_eq!(total.into_inner(), 3000);
}

#[test]
fn too_small_means_under_four_vectors_a_centroid() {
    let options = PqOptions::new(8);
    assert!(options.is_too_small(3, 768));
    assert!(!options.is_too_small(768, 768));
    assert_eq!(options.vectors(2, 9), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_finite_matrix_is_quantized(
        rows in 1usize..12, cols in 1usize..12, block in 1usize..10,
        centroids in 2usize..20, levels in 1u32..1000, exponent in -60i32..30,
        row_scale: bool, seed: u64,
    ) {
        let mut rng = Rng::new(seed);
        let data: Vec<f32> = (0..rows * cols)
            .map(|_| rng.below(levels as usize) as f32 * 2f32.powi(exponent))
            .collect();
        let w = Matrix::new(&data, rows, cols).unwrap();
        let mut options = PqOptions::new(block);
        options.centroids = centroids;
        options.row_scale = row_scale;
        options.seed = seed;
        let pq = run(w, &options);
        check(&pq, w, &options);
        prop_assert!(pq.relative_error(w) <= 1.01);
        prop_assert_eq!(&pq, &run(w, &options));
    }
}

/// Halfway to another centroid a block stays, and beyond it, too, until its squared distance is halved.
#[cfg(feature = "train")]
#[test]
fn codes_change_where_another_centroid_is_much_nearer() {
    let centroids = [0.0, 0.0, 1.0, 0.0];
    let values = vec![0.4, 0.0, 0.55, 0.0, 0.65, 0.0, 1.0, 0.0];
    let codes = |present: &[u8], factors: Option<&[f32]>, values: Vec<f32>| {
        crate::quant::codes::nearer_codes(
            (4, 2),
            (2, 1),
            values,
            factors,
            &centroids,
            (present, 0.5),
        )
        .unwrap()
    };
    assert_eq!(codes(&[0; 4], None, values.clone()), [0, 0, 1, 1]);
    assert_eq!(codes(&[1; 4], None, values.clone()), [0, 1, 1, 1]);
    // Rows are compared without their factors.
    let halved = values.iter().map(|v| v / 2.0).collect();
    assert_eq!(codes(&[0; 4], Some(&[0.5; 4]), halved), [0, 0, 1, 1]);
}

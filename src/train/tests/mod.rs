//! Weights, steps and layers in torch.

use tch::{Device, Kind, Tensor};

use super::coded::Coded;
use super::log::Log;
use super::optimizer::{AdamW, Rates};
use super::recipe::Distill;
use super::stage::{Clock, divergence_of, taught_by};
use super::weights::{Parameter, Role, leaf, to_vec};
use crate::quant::CentroidType;

fn parameter(values: &[f32], shape: &[i64], role: Role) -> Parameter {
    Parameter {
        name: "w".into(),
        tensor: leaf(values, shape, Device::Cpu),
        role,
    }
}

const RATES: Rates = Rates {
    weights: 0.1,
    centroids: 0.1,
    decay: 0.01,
    clip: 1e9,
};

/// Against AdamW as its paper writes it, value by value in f64.
#[test]
fn steps_are_those_of_adamw() {
    let start = [1.0f32, -2.0, 0.5, 3.0];
    let gradients = [
        [0.1f32, -0.2, 0.3, 0.0],
        [0.5, 0.2, -0.3, 1e-3],
        [-0.4, 0.0, 0.1, 2.0],
    ];
    let mut optimizer = AdamW::new(vec![parameter(&start, &[2, 2], Role::Matrix)]);
    let mut expected = start.map(f64::from);
    let (mut mean, mut square) = ([0.0f64; 4], [0.0f64; 4]);
    for (step, gradient) in (1i32..).zip(gradients) {
        optimizer.forget();
        let (_, tensor) = optimizer.state().next().unwrap();
        let product = tensor * Tensor::from_slice(&gradient).view([2, 2]);
        product.sum(Kind::Float).backward();
        optimizer.step(RATES).unwrap();
        for i in 0..4 {
            let g = f64::from(gradient[i]);
            mean[i] = 0.9 * mean[i] + 0.1 * g;
            square[i] = 0.999 * square[i] + 0.001 * g * g;
            let m = mean[i] / (1.0 - 0.9f64.powi(step));
            let v = square[i] / (1.0 - 0.999f64.powi(step));
            expected[i] -= 0.1 * 0.01 * expected[i] + 0.1 * m / (v.sqrt() + 1e-8);
        }
        for (got, expected) in to_vec(&optimizer.weights()[0].1).iter().zip(expected) {
            assert!(
                (f64::from(*got) - expected).abs() < 1e-5,
                "{got} {expected}"
            );
        }
    }
}

#[test]
fn gradients_are_clipped_together_and_centroids_by_their_means() {
    // Four blocks of the first centroid and one of the second: 4 and 1 are their gradients' sums.
    let counts = Tensor::from_slice(&[4f32, 1.0]).view([2, 1]);
    let role = Role::Centroids(counts);
    let mut optimizer = AdamW::new(vec![parameter(&[0.0, 0.0], &[2, 1], role)]);
    let codes = Tensor::from_slice(&[0i64, 0, 0, 0, 1]);
    let (_, centroids) = optimizer.state().next().unwrap();
    centroids
        .index_select(0, &codes)
        .sum(Kind::Float)
        .backward();
    // Both have a mean gradient of 1.
    let norm = optimizer.step(RATES).unwrap();
    assert!((norm - 2f64.sqrt()).abs() < 1e-6, "{norm}");
    let mean = optimizer
        .state()
        .find(|(name, _)| name == "mean/w")
        .unwrap();
    for value in to_vec(mean.1) {
        assert!((value - 0.1).abs() < 1e-6, "{value}");
    }

    let mut optimizer = AdamW::new(vec![parameter(&[3.0, 4.0], &[2], Role::Vector)]);
    let (_, tensor) = optimizer.state().next().unwrap();
    (tensor.square() * 0.5).sum(Kind::Float).backward();
    let norm = optimizer.step(Rates { clip: 1.0, ..RATES }).unwrap();
    assert!((norm - 5.0).abs() < 1e-6, "{norm}");
    let mean = optimizer
        .state()
        .find(|(name, _)| name == "mean/w")
        .unwrap();
    let mean = to_vec(mean.1);
    assert!(
        (mean[0] - 0.06).abs() < 1e-6 && (mean[1] - 0.08).abs() < 1e-6,
        "{mean:?}"
    );
}

#[test]
fn gradients_that_are_not_finite_change_nothing() {
    let mut optimizer = AdamW::new(vec![parameter(&[1.0, 2.0], &[2], Role::Vector)]);
    let (_, tensor) = optimizer.state().next().unwrap();
    (tensor * f64::NAN).sum(Kind::Float).backward();
    let error = optimizer.step(RATES).unwrap_err();
    assert_eq!(error.to_string(), "tensor w: the gradient is not finite");
    assert_eq!(to_vec(&optimizer.weights()[0].1), [1.0, 2.0]);
    assert_eq!(optimizer.steps, 0);
}

#[test]
fn learning_rates_rise_and_fall() {
    let share = |step| {
        Clock {
            stage: 0,
            step,
            steps: 10,
        }
        .share(0.2)
    };
    assert_eq!(share(0), 0.5);
    assert_eq!(share(1), 1.0);
    assert_eq!(share(2), 1.0);
    assert_eq!(share(6), 0.5);
    assert_eq!(share(9), 0.125);
    let constant = Clock {
        stage: 0,
        step: 0,
        steps: 4,
    };
    assert_eq!(constant.share(0.0), 1.0);
}

#[test]
fn layers_learn_from_layers_evenly_spread() {
    let distill = Distill::default();
    assert_eq!(taught_by(&distill, 4, 7).unwrap(), [0, 2, 4, 6]);
    assert_eq!(taught_by(&distill, 3, 3).unwrap(), [0, 1, 2]);
    let with = |layers: &[usize]| Distill {
        layers: Some(layers.to_vec()),
        ..Distill::default()
    };
    assert_eq!(taught_by(&with(&[0, 6]), 2, 7).unwrap(), [0, 6]);
    assert!(taught_by(&with(&[0, 7]), 2, 7).is_err());
    assert!(taught_by(&with(&[0]), 2, 7).is_err());
}

#[test]
fn the_divergence_is_that_of_the_softmax() {
    // Shares 1/4 and 3/4 of the teacher, 1/2 and 1/2 of ours; a constant changes nothing.
    let taught = [5.0, 5.0 + 3f32.ln()];
    let expected = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln();
    assert!((divergence_of(&[-2.0, -2.0], &taught) - expected).abs() < 1e-6);
    assert!(divergence_of(&taught, &taught).abs() < 1e-12);
    // Far apart, it is large and finite.
    let far = divergence_of(&[0.0, 300.0], &[300.0, 0.0]);
    assert!((far - 300.0).abs() < 1e-3, "{far}");
}

/// A centroid that no block has may be far out: the others are rounded without a thought of it, in training as in
/// what is stored.
#[test]
fn what_is_trained_is_what_is_stored() {
    let codes = [0, 1, 2, 2, 1, 0, 0, 2];
    let centroids = [0.31, -0.22, 0.5, 0.07, -0.4, 0.33, 9.0, -7.0];
    let new = |codes: &[u8], device| {
        let shape = ((4, 4), (2, 1));
        Coded::new(
            shape.0,
            shape.1,
            codes,
            &centroids,
            None,
            CentroidType::Int8,
            device,
        )
    };
    let coded = new(&codes, Device::Cpu);
    let trained = to_vec(&coded.rows(None, false).unwrap());
    assert_eq!(trained, coded.to_pq().unwrap().dequantize());
    // Codes that change take that with them.
    let mut other = new(&[3; 8], Device::Cpu);
    other.set_codes(&codes);
    assert_eq!(to_vec(&other.rows(None, false).unwrap()), trained);
}

/// A state may know of lines that a power cut took from the log.
#[test]
fn a_log_goes_on_after_its_last_whole_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let whole = "{\"step\":1}\n";
    for (text, bytes, kept) in [
        // What came after the state was saved is not the state's.
        ("{\"step\":1}\n{\"step\":2}\n", whole.len(), whole),
        ("{\"step\":1}\n{\"st", 100, whole),
        (whole, 100, whole),
        ("{\"st", 100, ""),
        ("", 100, ""),
    ] {
        std::fs::write(&path, text).unwrap();
        let mut log = Log::open(&path, bytes as u64).unwrap();
        assert_eq!(log.bytes(), kept.len() as u64, "{text:?}");
        log.line(&serde_json::json!({"step": 3})).unwrap();
        let found = std::fs::read_to_string(&path).unwrap();
        assert_eq!(found, format!("{kept}{{\"step\":3}}\n"), "{text:?}");
        assert_eq!(log.bytes(), found.len() as u64);
    }
}

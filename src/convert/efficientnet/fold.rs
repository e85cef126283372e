//! A layer under our names, with its batch norm folded in; weights that fairseq's iPQ has quantized
//! (`fairseq/modules/quantization/pq/modules/qconv.py`) stay codes, whose rows get factors.

use super::super::checkpoint::Checkpoint;
use super::missing;
use super::names::Part;
use crate::error::{Error, ErrorKind, Result};

/// Whether a layer's weight is centroids and assignments.
pub(super) fn is_coded(checkpoint: &Checkpoint, conv: &str) -> bool {
    let there = |ending: &str| checkpoint.shape(&format!("{conv}.{ending}")).is_some();
    there("centroids") && there("assignments")
}

/// Whether a layer's weight is of a shape, as far as its codes tell.
pub(super) fn fits(checkpoint: &Checkpoint, conv: &str, shape: &[usize]) -> bool {
    let of = |ending: &str| checkpoint.shape(&format!("{conv}.{ending}"));
    if !is_coded(checkpoint, conv) {
        return of("weight") == Some(shape);
    }
    let (Some(&[_, block]), Some(&[codes])) = (of("centroids"), of("assignments")) else {
        return false;
    };
    let columns: usize = shape[1..].iter().product();
    block > 0 && columns.is_multiple_of(block) && codes == shape[0] * (columns / block)
}

/// Puts a layer under our names: its weight as a matrix, times what its batch norm multiplies with, and what is
/// added in the end.
pub(super) fn fold(
    checkpoint: &mut Checkpoint,
    (conv, norm): (String, Option<String>),
    (part, shape): (Part, &[usize]),
    eps: f64,
) -> Result<()> {
    let weight = format!("{conv}.weight");
    let (rows, columns) = (shape[0], shape[1..].iter().product());
    let coded = is_coded(checkpoint, &conv);
    if coded {
        let parts = ["centroids", "assignments"].map(|part| format!("{conv}.{part}"));
        checkpoint.join((&parts[0], &parts[1]), weight.clone(), Some(rows))?;
    }
    let wanted = match coded {
        true => &[rows, columns][..],
        false => shape,
    };
    match checkpoint.shape(&weight) {
        None => return Err(missing(&weight)),
        Some(found) if found == wanted => {}
        Some(found) => {
            let message = format!("shape {found:?} where the network has {wanted:?}");
            return Err(Error::new(ErrorKind::Checkpoint, message).in_tensor(&weight));
        }
    }
    let added = format!("{}.bias", norm.as_ref().unwrap_or(&conv));
    let (factors, bias) = match norm {
        None => (None, vector(checkpoint, &added, rows)?),
        Some(norm) => {
            let (factors, bias) = normed(checkpoint, &norm, rows, eps)?;
            (Some(factors), bias)
        }
    };
    let name = part.name();
    let new = format!("{name}.weight");
    // The stem's windows have their colors last here, and what was a block is spread over them.
    if coded && !matches!(part, Part::Stem) {
        checkpoint.scale_codes(&weight, new, factors.as_deref());
    } else {
        let mut values = checkpoint.values(&weight)?;
        if let Some(factors) = factors {
            for (row, factor) in values.chunks_exact_mut(columns).zip(factors) {
                for value in row {
                    *value = (f64::from(*value) * factor) as f32;
                }
            }
        }
        if let Part::Stem = part {
            values = colors_last(&values, shape);
        }
        checkpoint.put(&new, Some(&weight), &[rows, columns], &values)?;
    }
    let new = format!("{name}.bias");
    checkpoint.put(&new, Some(&added), &[rows], &bias)
}

fn vector(checkpoint: &Checkpoint, name: &str, rows: usize) -> Result<Vec<f32>> {
    match checkpoint.shape(name) {
        Some(&[n]) if n == rows => checkpoint.values(name),
        Some(found) => {
            let message = format!("shape {found:?} where the network has [{rows}]");
            Err(Error::new(ErrorKind::Checkpoint, message).in_tensor(name))
        }
        None => Err(missing(name)),
    }
}

/// What a batch norm multiplies a layer's outputs with, and what it adds then.
fn normed(
    checkpoint: &Checkpoint,
    norm: &str,
    rows: usize,
    eps: f64,
) -> Result<(Vec<f64>, Vec<f32>)> {
    let of = |ending: &str| vector(checkpoint, &format!("{norm}.{ending}"), rows);
    let (gain, shift) = (of("weight")?, of("bias")?);
    let (mean, variance) = (of("running_mean")?, of("running_var")?);
    let (mut factors, mut bias) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    for row in 0..rows {
        let variance = f64::from(variance[row]) + eps;
        let factor = f64::from(gain[row]) / variance.sqrt();
        if !factor.is_finite() {
            let message = format!("the variance of channel {row} is not above 0");
            return Err(Error::new(ErrorKind::Checkpoint, message).in_tensor(norm));
        }
        factors.push(factor);
        bias.push((f64::from(shift[row]) - f64::from(mean[row]) * factor) as f32);
    }
    Ok((factors, bias))
}

/// From `[out][in][height][width]` to `[out][height][width][in]`, the order of a window's pixels.
fn colors_last(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let (inputs, taps) = (shape[1], shape[2] * shape[3]);
    let row = |row: &[f32]| -> Vec<f32> {
        let places = (0..taps).flat_map(|tap| (0..inputs).map(move |input| input * taps + tap));
        places.map(|at| row[at]).collect()
    };
    values.chunks_exact(inputs * taps).flat_map(row).collect()
}

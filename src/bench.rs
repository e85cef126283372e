//! Inner parts laid open for the benchmarks: products for `benches/matmul.rs`, tokenizing for
//! `benches/tokenizer.rs`. Not part of the public interface.

use crate::Mode;
use crate::error::Result;
use crate::kernels::{Codebook, Codes, Isa, Offsets, QuantizedRows, Threads, Weights, Zero, peak};
use crate::nn::{watch, watched};

/// A weight `[out_features, in_features]` of generated codes, and inputs for it.
pub struct Matmul {
    isa: Isa,
    shape: [usize; 2],
    codes: Vec<u8>,
    book: Codebook,
    offsets: Offsets,
    x: Vec<f32>,
    quantized: QuantizedRows,
    y: Vec<f32>,
}

impl Matmul {
    /// One thread, the instruction set of `CENTROID_ISA` or the fastest. The values of the codebook are
    /// at most `largest`: up to 16, 32 and 64 there are ever faster kernels on some processors.
    ///
    /// # Errors
    /// If that instruction set is not there.
    pub fn new(shape: [usize; 2], block: usize, rows: usize, largest: i8) -> Result<Self> {
        let [out_features, in_features] = shape;
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let codes = (0..out_features * in_features.div_ceil(block)).map(|_| next());
        let codes = codes.collect();
        let mut centroid = || (next() as i8).clamp(-largest, largest);
        let centroids: Vec<i8> = (0..256 * block).map(|_| centroid()).collect();
        let x: Vec<f32> = (0..rows * in_features)
            .map(|_| f32::from(next()) - 128.0)
            .collect();
        let mut matmul = Self {
            isa: Isa::detect()?,
            shape,
            codes,
            book: Codebook::from_int8(&centroids, block, 0.01),
            offsets: Offsets::new(),
            quantized: QuantizedRows::quantize(&vec![0.0; 4 * in_features], in_features),
            x: Vec::new(),
            y: vec![0.0; 4 * out_features],
        };
        // What a model in use has found out in its first calls.
        matmul.int8();
        Ok(Self {
            quantized: QuantizedRows::quantize(&x, in_features),
            x,
            y: vec![0.0; rows * out_features],
            ..matmul
        })
    }

    /// Multiply-accumulates of one call.
    pub fn work(&self) -> u64 {
        (self.quantized.rows() * self.shape[0] * self.shape[1]) as u64
    }

    /// With `int8` activations.
    pub fn int8(&mut self) -> f32 {
        let weights = weights(self.shape, &self.codes, &self.book, &self.offsets);
        let x = &self.quantized;
        crate::kernels::linear_int8(self.isa, Threads(1), &weights, x, &mut self.y);
        self.y[0]
    }

    /// With `f32` activations.
    pub fn exact(&mut self) -> f32 {
        let weights = weights(self.shape, &self.codes, &self.book, &self.offsets);
        crate::kernels::linear_f32(self.isa, Threads(1), &weights, &self.x, &mut self.y);
        self.y[0]
    }
}

fn weights<'a>(
    shape: [usize; 2],
    codes: &'a [u8],
    book: &'a Codebook,
    offsets: &'a Offsets,
) -> Weights<'a> {
    Weights {
        out_features: shape[0],
        in_features: shape[1],
        codes: Codes::Pq { codes, book },
        scale: book.f32_scale,
        row_scale: None,
        zero: Zero::Tensor(0),
        bias: None,
        offsets: Some(offsets),
    }
}

/// Multiply-accumulates a second that one core reaches in `mode` by multiplying, on the instruction set
/// called `isa`: those of the microkernel alone.
///
/// # Errors
/// If that instruction set is not there.
pub fn peak(isa: &str, mode: Mode) -> Result<f64> {
    let isa = Isa::by_name(isa)?;
    Ok(match mode {
        Mode::Int8 => peak::int8(isa),
        Mode::Exact => peak::f32(isa),
    })
}

/// Multiply-accumulates of the linear layers that `run` runs, by any thread of this process, and the
/// seconds that they took.
pub fn linear_layers(run: impl FnOnce() -> Result<()>) -> Result<(f64, f64)> {
    watch(true);
    let result = run();
    let (products, nanoseconds) = watched();
    watch(false);
    result.map(|()| (products as f64, nanoseconds as f64 / 1e9))
}

/// The tokenizer of an artifact.
#[cfg(feature = "convert")]
pub struct Words(crate::text::Tokenizer);

#[cfg(feature = "convert")]
impl Words {
    pub fn open(artifact: &crate::Artifact) -> Result<Self> {
        let missing = || crate::Error::format("the tokenizer is missing");
        let stored = artifact.tokenizer().ok_or_else(missing)?;
        crate::text::Tokenizer::from_stored(stored).map(Self)
    }

    pub fn from_json(json: &[u8]) -> Result<Self> {
        crate::text::Tokenizer::from_json(json).map(Self)
    }

    /// The ids of a text, special tokens included.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let policy = crate::Truncation::Error;
        Ok(self.0.encode(text, None, usize::MAX, policy)?.ids)
    }
}

/// The `tokenizer.json` of a directory in RoBERTa's form, or of generated RoBERTa.
#[cfg(feature = "convert")]
pub fn roberta_json(directory: Option<&std::path::Path>) -> Result<Vec<u8>> {
    use crate::convert::{random_tokenizer, tokenizer};
    use crate::models::encoder::Family;
    match directory {
        Some(directory) => Ok(tokenizer::collect(directory, Family::Roberta)?.json),
        None => random_tokenizer::byte_level_bpe(random_tokenizer::ROBERTA_SIZE),
    }
}

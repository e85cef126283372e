//! The header of format version 1, as `format-spec.md` gives it byte by byte.
//!
//! **Frozen.** These structs are never edited, not even by adding a field at the end: bincode has
//! no field tags, so any change makes old files unreadable. A new version gets a new file beside
//! this one, and the reader keeps both.
//!
//! Everything that may grow is a [`Record`]: a numeric id and a length-prefixed body. A reader
//! that does not know the id can name it, or skip it where the format says so.

use bincode::{Decode, Encode};

use crate::error::{Error, Result};

pub(crate) const MAGIC: [u8; 8] = *b"CENTROID";
pub(crate) const VERSION: u32 = 1;
pub(crate) const PREAMBLE: usize = 64;
/// "No section" in a scheme's section fields.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct Header {
    pub(crate) model: Record,
    pub(crate) tensors: Vec<TensorEntry>,
    pub(crate) sections: Vec<SectionEntry>,
    pub(crate) records: Vec<FlaggedRecord>,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct Record {
    pub(crate) id: u32,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct FlaggedRecord {
    pub(crate) id: u32,
    pub(crate) flags: u32,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct TensorEntry {
    pub(crate) name: String,
    pub(crate) group: u32,
    pub(crate) shape: Vec<u64>,
    pub(crate) layout: Record,
    pub(crate) scheme: Record,
}

#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
pub(crate) struct SectionEntry {
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) checksum: u64,
}

/// Bit 0 of a section's or a record's flags: a reader that does not know the id may skip it.
pub(crate) const OPTIONAL: u32 = 1;

/// Body of the schemes `f32` and `f16`.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
pub(crate) struct DenseBody {
    pub(crate) values: u32,
}

/// Body of the scheme `pq`.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
pub(crate) struct PqBody {
    pub(crate) block: u32,
    pub(crate) centroids: u32,
    pub(crate) codes: u32,
    pub(crate) codebook: u32,
    pub(crate) codebook_scale: f32,
    pub(crate) row_scale: u32,
}

/// Body of `pq` with several codebooks.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
pub(crate) struct SplitPqBody {
    pub(crate) block: u32,
    pub(crate) codebooks: u32,
    pub(crate) centroids: u32,
    pub(crate) codes: u32,
    pub(crate) codebook: u32,
    pub(crate) codebook_scale: f32,
    pub(crate) row_scale: u32,
}

/// Scheme id of `pq` with several codebooks, which is [`Scheme::Pq`] everywhere else.
pub(crate) const SPLIT_PQ: u32 = 6;

/// Body of the schemes `int8` and `int4`.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
pub(crate) struct ScalarBody {
    pub(crate) values: u32,
    pub(crate) scale: f32,
    pub(crate) row_scale: u32,
    pub(crate) zero_point: i32,
    pub(crate) zero_points: u32,
}

/// Body of the model kind `encoder`.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
pub(crate) struct EncoderBody {
    pub(crate) family: u32,
    pub(crate) vocab_size: u32,
    pub(crate) hidden: u32,
    pub(crate) layers: u32,
    pub(crate) heads: u32,
    pub(crate) intermediate: u32,
    pub(crate) positions: u32,
    pub(crate) position_offset: u32,
    pub(crate) type_vocab: u32,
    pub(crate) activation: u32,
    pub(crate) layer_norm_eps: f64,
    pub(crate) max_tokens: u32,
    pub(crate) task: u32,
    pub(crate) pooling: u32,
    pub(crate) normalize: u32,
    pub(crate) labels: u32,
    pub(crate) problem: u32,
}

/// Body of the model kind `efficientnet`.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct EfficientNetBody {
    pub(crate) activation: u32,
    pub(crate) padding: u32,
    pub(crate) stem: u32,
    pub(crate) blocks: Vec<BlockBody>,
    pub(crate) features: u32,
    pub(crate) labels: u32,
    pub(crate) size: u32,
    pub(crate) resize: u32,
    pub(crate) crop: u32,
    pub(crate) filter: u32,
    pub(crate) mean: [f32; 3],
    pub(crate) deviation: [f32; 3],
}

/// One block of an EfficientNet.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
pub(crate) struct BlockBody {
    pub(crate) kernel: u32,
    pub(crate) stride: u32,
    pub(crate) expanded: u32,
    pub(crate) squeezed: u32,
    pub(crate) channels: u32,
}

macro_rules! ids {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $id:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* $variant = $id),* }

        #[allow(dead_code)]
        impl $name {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),*];

            pub(crate) fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }

            pub(crate) fn id(self) -> u32 { self as u32 }

            /// The name used in output, flags and the format specification.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}
pub(crate) use ids;

ids! {
    /// How a tensor's values are stored (`format-spec.md`, "Schemes").
    Scheme {
        /// 32-bit floats.
        F32 = 1, "f32";
        /// 16-bit floats.
        F16 = 2, "f16";
        /// Product quantization: one-byte codes into a codebook.
        Pq = 3, "pq";
        /// 8-bit integers with a scale and an optional zero point.
        Int8 = 4, "int8";
        /// 4-bit integers with a scale and an optional zero point.
        Int4 = 5, "int4";
    }
}

ids! {
    /// The order in which a tensor's values are stored.
    Layout {
        /// One row of values, shape `[n]`.
        Vector = 1, "vector";
        /// Row after row, shape `[rows, columns]`: embedding tables.
        Rows = 2, "rows";
        /// Tiles of 64 outputs, shape `[out_features, in_features]`: linear weights.
        Tiles = 3, "tiles";
    }
}

ids! {
    /// What a section holds.
    SectionKind {
        /// `f32` values.
        F32 = 1, "f32 values";
        /// `f16` values.
        F16 = 2, "f16 values";
        /// One-byte PQ codes.
        Codes = 3, "codes";
        /// An `int8` codebook.
        CodebookInt8 = 4, "int8 codebook";
        /// An `f16` codebook.
        CodebookF16 = 5, "f16 codebook";
        /// `f16` factors, one a row.
        RowScales = 6, "row scales";
        /// `int8` values.
        Int8 = 7, "int8 values";
        /// `int4` values, two a byte.
        Int4 = 8, "int4 values";
        /// `int8` zero points, one a row.
        ZeroPoints = 9, "zero points";
        /// A Hugging Face `tokenizer.json`.
        TokenizerJson = 16, "tokenizer.json";
        /// The labels of a classifier.
        Labels = 17, "labels";
        /// A tokenizer as tables that are used in place.
        TokenizerTables = 18, "tokenizer tables";
    }
}

ids! {
    /// What part of a model a tensor belongs to; quantization plans and size tables go by it.
    Group {
        /// Feed-forward matrices.
        Ffn = 1, "ffn";
        /// Query, key, value and output matrices.
        Attention = 2, "attention";
        /// The token embedding table.
        Embedding = 3, "embedding";
        /// The position embedding table.
        Position = 4, "position";
        /// The classification head's dense layer.
        Head = 5, "head";
        /// Layer norms, biases, token types and the label projection.
        Other = 6, "other";
        /// Pointwise convolutions.
        Pointwise = 7, "pointwise";
        /// Depthwise convolutions.
        Depthwise = 8, "depthwise";
        /// Squeeze-and-excitation.
        Squeeze = 9, "squeeze";
        /// The first convolution.
        Stem = 10, "stem";
        /// The classifier.
        Classifier = 11, "classifier";
    }
}

ids! {
    /// What kind of model an artifact holds.
    ModelKind {
        /// A BERT or RoBERTa encoder.
        Encoder = 1, "encoder";
        /// An EfficientNet that classifies images.
        EfficientNet = 2, "efficientnet";
    }
}

/// Record id of the provenance: pairs of keys and values.
pub(crate) const RECORD_PROVENANCE: u32 = 1;

/// Fixed-width little endian, with a limit on what a decoder may claim.
fn config<const LIMIT: usize>() -> impl bincode::config::Config {
    bincode::config::standard()
        .with_little_endian()
        .with_fixed_int_encoding()
        .with_limit::<LIMIT>()
}

#[cfg(any(test, feature = "convert"))]
pub(crate) fn encode<T: Encode>(value: &T) -> Result<Vec<u8>> {
    bincode::encode_to_vec(
        value,
        config::<{ 4 * super::limits::MAX_HEADER_BYTES as usize }>(),
    )
    .map_err(|e| Error::format(format!("the header cannot be encoded: {e}")))
}

/// Decodes a `T` that must fill `bytes` exactly.
///
/// bincode counts the memory of a vector's items, before it makes room for them, against a limit
/// that is a constant of the type. An item takes at most three times the memory of its shortest
/// encoding (an empty string: 24 bytes for 8), so that with the steps below everything that is
/// really there decodes, and nothing can claim more than 12 times its own length.
pub(crate) fn decode<T: Decode<()>>(bytes: &[u8], what: &str) -> Result<T> {
    macro_rules! steps {
        ($($kib:literal)*) => {
            match bytes.len() {
                $(n if n <= $kib << 10 => {
                    bincode::decode_from_slice(bytes, config::<{ 3 * ($kib << 10) }>())
                })*
                _ => bincode::decode_from_slice(bytes, config::<{ 3 << 30 }>()),
            }
        };
    }
    let decoded = steps!(1 4 16 64 256 1024 4096 16384 65536);
    let (value, used) =
        decoded.map_err(|e| Error::format(format!("{what} cannot be decoded: {e}")))?;
    if used != bytes.len() {
        return Err(Error::format(format!(
            "{what} has {} bytes after its end",
            bytes.len() - used
        )));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that `format-spec.md` prints for this header.
    #[test]
    fn header_bytes_are_as_specified() {
        let header = Header {
            model: Record {
                id: 7,
                body: vec![0xaa],
            },
            tensors: vec![TensorEntry {
                name: "w".into(),
                group: 2,
                shape: vec![3],
                layout: Record {
                    id: 1,
                    body: vec![],
                },
                scheme: Record {
                    id: 1,
                    body: encode(&DenseBody { values: 5 }).unwrap(),
                },
            }],
            sections: vec![SectionEntry {
                kind: 1,
                flags: 0,
                offset: 64,
                length: 12,
                checksum: 0x0102,
            }],
            records: vec![],
        };
        let mut expected = Vec::new();
        expected.extend_from_slice(&[7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xaa]); // model
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]); // one tensor
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, b'w']); // name
        expected.extend_from_slice(&[2, 0, 0, 0]); // group
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]); // shape
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // layout, no body
        expected.extend_from_slice(&[1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0]); // scheme
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]); // one section
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]); // kind, flags
        expected.extend_from_slice(&64u64.to_le_bytes());
        expected.extend_from_slice(&12u64.to_le_bytes());
        expected.extend_from_slice(&0x0102u64.to_le_bytes());
        expected.extend_from_slice(&[0; 8]); // no records
        assert_eq!(encode(&header).unwrap(), expected);
        assert_eq!(decode::<Header>(&expected, "the header").unwrap(), header);
    }

    #[test]
    fn short_headers_cannot_claim_much_memory() {
        let mut bytes = vec![0; 12];
        bytes.extend_from_slice(&(1u64 << 16).to_le_bytes());
        let error = decode::<Header>(&bytes, "the header").unwrap_err();
        assert!(error.to_string().contains("LimitExceeded"), "{error}");
    }

    /// Empty strings are the items that grow most; at the steps' upper ends they must still fit.
    #[test]
    fn what_is_really_there_decodes() {
        for bytes in [1usize << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18] {
            for bytes in [bytes, bytes + 8] {
                let strings = vec![String::new(); bytes / 8 - 1];
                let encoded = encode(&strings).unwrap();
                assert_eq!(encoded.len(), bytes);
                assert_eq!(decode::<Vec<String>>(&encoded, "it").unwrap(), strings);
            }
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&DenseBody { values: 5 }).unwrap();
        bytes.push(0);
        assert!(decode::<DenseBody>(&bytes, "it").is_err());
    }
}

//! Vectors of texts.

use std::ffi::{CString, c_char};
use std::ptr;

use runtime::EmbeddingMatrix;

use crate::borrowed::{self, handle, texts};
use crate::model::{Bytes, open};
use crate::options::Options;
use crate::status::{Fault, Status, c_string, get, run};
use crate::texts::pairs;

/// An embedding model. Any number of threads may use one at a time.
pub struct Embedder {
    model: runtime::SentenceEmbedder,
    isa: CString,
}

fn make(artifact: runtime::Artifact, options: runtime::Options) -> runtime::Result<Embedder> {
    let model = runtime::SentenceEmbedder::new(artifact, options)?;
    let isa = c_string(model.isa());
    Ok(Embedder { model, isa })
}

/// Opens an embedding model: the file is mapped, checked, and used in place. It must not be changed while it is
/// open; `options` may be NULL.
///
/// Since 0.1.
///
/// # Safety
/// `path` is a string that ends with a zero; `options` is NULL or from `centroid_options_new`; `out` may be
/// written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_embedder_open(
    path: *const c_char,
    options: *const Options,
    out: *mut *mut Embedder,
) -> Status {
    // SAFETY: what the caller promises.
    unsafe { open(Bytes::File(path), options, out, make) }
}

/// Opens an embedding model in memory. The bytes are copied.
///
/// Since 0.1.
///
/// # Safety
/// `data` points to `size` bytes; the rest as for `centroid_embedder_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_embedder_from_memory(
    data: *const u8,
    size: usize,
    options: *const Options,
    out: *mut *mut Embedder,
) -> Status {
    // SAFETY: what the caller promises.
    unsafe { open(Bytes::Memory(data, size), options, out, make) }
}

/// Frees an embedding model; NULL is nothing.
///
/// Since 0.1.
///
/// # Safety
/// `embedder` is NULL or was opened, and is not used again, by no thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_embedder_free(embedder: *mut Embedder) {
    get((), || {
        // SAFETY: what the caller promises.
        unsafe { borrowed::take(embedder) }
    })
}

/// Number of values of a vector; 0 for NULL.
///
/// Since 0.1.
///
/// # Safety
/// `embedder` is NULL or was opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_embedder_dimensions(embedder: *const Embedder) -> usize {
    // SAFETY: what the caller promises.
    unsafe { embedder.as_ref() }.map_or(0, |of| of.model.dimensions())
}

/// The most tokens of a text, special tokens included; 0 for NULL.
///
/// Since 0.1.
///
/// # Safety
/// `embedder` is NULL or was opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_embedder_max_length(embedder: *const Embedder) -> usize {
    // SAFETY: what the caller promises.
    unsafe { embedder.as_ref() }.map_or(0, |of| of.model.max_length())
}

/// The instruction set in use; it lives as long as the embedding model. NULL for NULL.
///
/// Since 0.1.
///
/// # Safety
/// `embedder` is NULL or was opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_embedder_isa(embedder: *const Embedder) -> *const c_char {
    // SAFETY: what the caller promises.
    unsafe { embedder.as_ref() }.map_or(ptr::null(), |of| of.isa.as_ptr())
}

/// Writes the vectors of `count` texts in UTF-8 one after the other to `out`, which has place for `capacity` values:
/// at least `count` times `centroid_embedder_dimensions`. With `lengths` each text has so many bytes, without
/// (NULL) it ends with a zero. A text's vector is the same, bit for bit, alone and among others.
///
/// With `centroid_options_set_truncate`, `truncated` tells which texts were cut: NULL, or `count` places.
///
/// Since 0.1.
///
/// # Safety
/// `embedder` was opened; `texts` points to `count` pointers to such texts, `lengths` is NULL or points to `count`
/// numbers; `out` points to `capacity` values that may be written to and `truncated` is NULL or points to `count`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_embedder_embed(
    embedder: *const Embedder,
    texts: *const *const c_char,
    lengths: *const usize,
    count: usize,
    out: *mut f32,
    capacity: usize,
    truncated: *mut bool,
) -> Status {
    run(|| {
        // SAFETY: what the caller promises.
        let embedder = unsafe { handle(embedder, "embedder") }?;
        // SAFETY: what the caller promises.
        let texts = unsafe { self::texts(texts, lengths, count, "texts") }?;
        let place = Vectors {
            out,
            capacity,
            truncated,
        };
        place.check(embedder, count)?;
        let embeddings = embedder.model.embed_matrix(&texts)?;
        // SAFETY: what the caller promises; there is enough of it.
        unsafe { place.fill(&embeddings) };
        Ok(())
    })
}

/// Writes the vectors of `count` pairs of texts, as `centroid_embedder_embed`.
///
/// Since 0.1.
///
/// # Safety
/// As for `centroid_embedder_embed`, both for the first texts and the second ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_embedder_embed_pairs(
    embedder: *const Embedder,
    firsts: *const *const c_char,
    first_lengths: *const usize,
    seconds: *const *const c_char,
    second_lengths: *const usize,
    count: usize,
    out: *mut f32,
    capacity: usize,
    truncated: *mut bool,
) -> Status {
    run(|| {
        // SAFETY: what the caller promises.
        let embedder = unsafe { handle(embedder, "embedder") }?;
        // SAFETY: what the caller promises.
        let pairs = unsafe { pairs(firsts, first_lengths, seconds, second_lengths, count) }?;
        let place = Vectors {
            out,
            capacity,
            truncated,
        };
        place.check(embedder, count)?;
        let embeddings = embedder.model.embed_pairs_matrix(&pairs)?;
        // SAFETY: what the caller promises; there is enough of it.
        unsafe { place.fill(&embeddings) };
        Ok(())
    })
}

/// Where vectors go.
struct Vectors {
    out: *mut f32,
    capacity: usize,
    truncated: *mut bool,
}

impl Vectors {
    /// Fails before any work is done.
    fn check(&self, embedder: &Embedder, count: usize) -> Result<(), Fault> {
        let dimensions = embedder.model.dimensions();
        match count.checked_mul(dimensions) {
            Some(needed) if needed <= self.capacity => {}
            _ => {
                return Err(Fault::argument(format_args!(
                    "capacity is {} where {count} vectors of {dimensions} values are asked for",
                    self.capacity
                )));
            }
        }
        if count > 0 && self.out.is_null() {
            return Err(Fault::argument("out is NULL"));
        }
        if count > 0 && !self.out.is_aligned() {
            return Err(Fault::argument("out is not aligned"));
        }
        Ok(())
    }

    /// Writes vectors.
    ///
    /// # Safety
    /// [`check`](Self::check) succeeded for as many, and the places may be written to.
    unsafe fn fill(&self, embeddings: &EmbeddingMatrix) {
        let values = &embeddings.values;
        if values.is_empty() {
            return;
        }
        // SAFETY: by the check there is place for all of them, and none is NULL or not aligned; `out` is the
        // caller's and no array of ours.
        unsafe {
            self.out
                .copy_from_nonoverlapping(values.as_ptr(), values.len())
        };
        if !self.truncated.is_null() {
            for (i, truncated) in embeddings.truncated.iter().enumerate() {
                // SAFETY: there is a place for each text, as the caller promises.
                unsafe { self.truncated.add(i).write(*truncated) };
            }
        }
    }
}

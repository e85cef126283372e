//! Classifiers of texts.

use std::ffi::{CString, c_char};
use std::ptr;

use runtime::Classification;

use crate::borrowed::{self, Place, give, handle, texts};
use crate::model::{Bytes, Labels, open};
use crate::options::Options;
use crate::results::{Answer, Results, label};
use crate::status::{Fault, Status, c_string, get, run};

/// A classifier of texts. Any number of threads may use one at a time.
pub struct TextClassifier {
    model: runtime::TextClassifier,
    labels: Labels,
    isa: CString,
}

fn make(artifact: runtime::Artifact, options: runtime::Options) -> runtime::Result<TextClassifier> {
    let model = runtime::TextClassifier::new(artifact, options)?;
    let labels = Labels::new(model.labels());
    let isa = c_string(model.isa());
    Ok(TextClassifier { model, labels, isa })
}

/// Opens a classifier of texts: the file is mapped, checked, and used in place. It must not be changed while it
/// is open; `options` may be NULL.
///
/// Since 0.1.
///
/// # Safety
/// `path` is a string that ends with a zero; `options` is NULL or from `centroid_options_new`; `out` may be
/// written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_text_classifier_open(
    path: *const c_char,
    options: *const Options,
    out: *mut *mut TextClassifier,
) -> Status {
    // SAFETY: what the caller promises.
    unsafe { open(Bytes::File(path), options, out, make) }
}

/// Opens a classifier of texts in memory. The bytes are copied.
///
/// Since 0.1.
///
/// # Safety
/// `data` points to `size` bytes; the rest as for `centroid_text_classifier_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_text_classifier_from_memory(
    data: *const u8,
    size: usize,
    options: *const Options,
    out: *mut *mut TextClassifier,
) -> Status {
    // SAFETY: what the caller promises.
    unsafe { open(Bytes::Memory(data, size), options, out, make) }
}

/// Frees a classifier; NULL is nothing. Its results live on.
///
/// Since 0.1.
///
/// # Safety
/// `classifier` is NULL or was opened, and is not used again, by no thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_text_classifier_free(classifier: *mut TextClassifier) {
    get((), || {
        // SAFETY: what the caller promises.
        unsafe { borrowed::take(classifier) }
    })
}

/// How many labels there are; 0 for NULL.
///
/// Since 0.1.
///
/// # Safety
/// `classifier` is NULL or was opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_text_classifier_label_count(
    classifier: *const TextClassifier,
) -> usize {
    // SAFETY: what the caller promises.
    unsafe { classifier.as_ref() }.map_or(0, |of| of.labels.len())
}

/// A label by its number, which lives as long as the classifier; NULL where there is none.
///
/// Since 0.1.
///
/// # Safety
/// `classifier` is NULL or was opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_text_classifier_label(
    classifier: *const TextClassifier,
    index: usize,
) -> *const c_char {
    // SAFETY: what the caller promises.
    unsafe { label(classifier, |of| &of.labels, index) }
}

/// The most tokens of a text, special tokens included; 0 for NULL.
///
/// Since 0.1.
///
/// # Safety
/// `classifier` is NULL or was opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_text_classifier_max_length(
    classifier: *const TextClassifier,
) -> usize {
    // SAFETY: what the caller promises.
    unsafe { classifier.as_ref() }.map_or(0, |of| of.model.max_length())
}

/// The instruction set in use; it lives as long as the classifier. NULL for NULL.
///
/// Since 0.1.
///
/// # Safety
/// `classifier` is NULL or was opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_text_classifier_isa(
    classifier: *const TextClassifier,
) -> *const c_char {
    // SAFETY: what the caller promises.
    unsafe { classifier.as_ref() }.map_or(ptr::null(), |of| of.isa.as_ptr())
}

fn results(of: &TextClassifier, classified: Vec<Classification>) -> Results {
    let answer = |text: &Classification| Answer::new(&text.labels, text.tokens, text.truncated);
    Results::new(of.model.labels(), classified.iter().map(answer).collect())
}

/// Classifies `count` texts in UTF-8. With `lengths` each has so many bytes, without (NULL) it ends with a zero.
/// A text's result is the same, bit for bit, alone and among others.
///
/// Since 0.1.
///
/// # Safety
/// `classifier` was opened; `texts` points to `count` pointers to such texts, `lengths` is NULL or points to
/// `count` numbers; `out` may be written to. The results are freed with `centroid_results_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_text_classifier_classify(
    classifier: *const TextClassifier,
    texts: *const *const c_char,
    lengths: *const usize,
    count: usize,
    out: *mut *mut Results,
) -> Status {
    run(|| {
        // SAFETY: what the caller promises.
        let classifier = unsafe { handle(classifier, "classifier") }?;
        // SAFETY: what the caller promises.
        let out = unsafe { Place::new(out, "out") }?;
        // SAFETY: what the caller promises.
        let texts = unsafe { self::texts(texts, lengths, count, "texts") }?;
        let classified = classifier.model.classify(&texts)?;
        out.set(give(results(classifier, classified)));
        Ok(())
    })
}

/// Classifies `count` pairs of texts, as `centroid_text_classifier_classify`.
///
/// Since 0.1.
///
/// # Safety
/// As for `centroid_text_classifier_classify`, both for the first texts and the second ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_text_classifier_classify_pairs(
    classifier: *const TextClassifier,
    firsts: *const *const c_char,
    first_lengths: *const usize,
    seconds: *const *const c_char,
    second_lengths: *const usize,
    count: usize,
    out: *mut *mut Results,
) -> Status {
    run(|| {
        // SAFETY: what the caller promises.
        let classifier = unsafe { handle(classifier, "classifier") }?;
        // SAFETY: what the caller promises.
        let out = unsafe { Place::new(out, "out") }?;
        // SAFETY: what the caller promises.
        let pairs = unsafe { pairs(firsts, first_lengths, seconds, second_lengths, count) }?;
        let classified = classifier.model.classify_pairs(&pairs)?;
        out.set(give(results(classifier, classified)));
        Ok(())
    })
}

/// Pairs of texts.
///
/// # Safety
/// As for [`texts`], twice.
pub(crate) unsafe fn pairs<'a>(
    firsts: *const *const c_char,
    first_lengths: *const usize,
    seconds: *const *const c_char,
    second_lengths: *const usize,
    count: usize,
) -> Result<Vec<(&'a str, &'a str)>, Fault> {
    // SAFETY: what the caller promises.
    let firsts = unsafe { texts(firsts, first_lengths, count, "firsts") }?;
    // SAFETY: what the caller promises.
    let seconds = unsafe { texts(seconds, second_lengths, count, "seconds") }?;
    Ok(firsts.into_iter().zip(seconds).collect())
}

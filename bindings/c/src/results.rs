//! What classifiers answer.

use std::ffi::c_char;
use std::ptr;

use runtime::LabelScore;

use crate::borrowed::{self, Place, handle};
use crate::model::Labels;
use crate::status::{Fault, Status, get, run};

/// A label and its score. The text of the label lives as long as the results that it is from.
#[repr(C)]
pub struct Score {
    /// The label: UTF-8 that ends with a zero.
    pub label: *const c_char,
    /// Its number, from 0, in the order of the model's logits.
    pub index: usize,
    /// The softmax of the logits; the sigmoid of the logit where several labels may apply; the logit itself where
    /// there is only one label.
    pub score: f32,
    /// The model's raw output.
    pub logit: f32,
}

/// The result of one text or image.
pub(crate) struct Answer {
    /// Index, score and logit, the best score first.
    scores: Vec<(usize, f32, f32)>,
    tokens: usize,
    truncated: bool,
}

impl Answer {
    pub(crate) fn new(labels: &[LabelScore], tokens: usize, truncated: bool) -> Self {
        let scores = labels.iter().map(|of| (of.index, of.score, of.logit));
        Self {
            scores: scores.collect(),
            tokens,
            truncated,
        }
    }
}

/// What a classifier answers: for each text or image all labels, the best first.
pub struct Results {
    labels: Labels,
    answers: Vec<Answer>,
}

impl Results {
    pub(crate) fn new(labels: &[String], answers: Vec<Answer>) -> Self {
        let labels = Labels::new(labels);
        Self { labels, answers }
    }

    fn answer(&self, index: usize) -> Result<&Answer, Fault> {
        let count = self.answers.len();
        let message = || format!("index {index}, of {count} results");
        (self.answers.get(index)).ok_or_else(|| Fault::argument(message()))
    }
}

/// Frees results; NULL is nothing. Labels that came from them are gone, too.
///
/// Since 0.1.
///
/// # Safety
/// `results` is NULL or from a classifier, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_results_free(results: *mut Results) {
    get((), || {
        // SAFETY: what the caller promises.
        unsafe { borrowed::take(results) }
    })
}

/// How many texts or images were classified; 0 for NULL.
///
/// Since 0.1.
///
/// # Safety
/// `results` is NULL or from a classifier.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_results_count(results: *const Results) -> usize {
    // SAFETY: what the caller promises.
    unsafe { results.as_ref() }.map_or(0, |results| results.answers.len())
}

/// How many labels each of them has; 0 for NULL.
///
/// Since 0.1.
///
/// # Safety
/// `results` is NULL or from a classifier.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_results_label_count(results: *const Results) -> usize {
    // SAFETY: what the caller promises.
    unsafe { results.as_ref() }.map_or(0, |results| results.labels.len())
}

/// Writes the label at `rank` (0 is the best) of the text or image `index` to `out`.
///
/// Since 0.1.
///
/// # Safety
/// `results` is NULL (an error) or from a classifier; `out` is NULL (an error) or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_results_get(
    results: *const Results,
    index: usize,
    rank: usize,
    out: *mut Score,
) -> Status {
    run(|| {
        // SAFETY: what the caller promises.
        let results = unsafe { handle(results, "results") }?;
        // SAFETY: what the caller promises.
        let out = unsafe { Place::new(out, "out") }?;
        let scores = &results.answer(index)?.scores;
        let message = || format!("rank {rank}, of {} labels", scores.len());
        let found = scores.get(rank).ok_or_else(|| Fault::argument(message()))?;
        let &(index, score, logit) = found;
        let label = results.labels.get(index);
        out.set(Score {
            label,
            index,
            score,
            logit,
        });
        Ok(())
    })
}

/// Writes how many tokens a text had (special tokens included; 0 for an image), and whether it was cut to the
/// limit. Either place may be NULL.
///
/// Since 0.1.
///
/// # Safety
/// `results` is NULL (an error) or from a classifier; the places are NULL or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_results_tokens(
    results: *const Results,
    index: usize,
    tokens: *mut usize,
    truncated: *mut bool,
) -> Status {
    run(|| {
        // SAFETY: what the caller promises.
        let answer = unsafe { handle(results, "results") }?.answer(index)?;
        // SAFETY: what the caller promises.
        if let Some(place) = unsafe { Place::maybe(tokens) } {
            place.set(answer.tokens);
        }
        // SAFETY: what the caller promises.
        if let Some(place) = unsafe { Place::maybe(truncated) } {
            place.set(answer.truncated);
        }
        Ok(())
    })
}

/// A label by its number, for handles that have labels; NULL where there is none.
///
/// # Safety
/// `handle` is NULL or lives.
pub(crate) unsafe fn label<T>(
    handle: *const T,
    labels: impl FnOnce(&T) -> &Labels,
    index: usize,
) -> *const c_char {
    // SAFETY: what the caller promises.
    unsafe { handle.as_ref() }.map_or(ptr::null(), |of| labels(of).get(index))
}

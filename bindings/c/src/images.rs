//! Classifiers of images.

use std::ffi::{CString, c_char};
use std::ptr;

use runtime::ImageClassification;

use crate::borrowed::{self, Place, give, handle, values};
use crate::model::{Bytes, Labels, open, path};
use crate::options::Options;
use crate::results::{Answer, Results, label};
use crate::status::{Fault, Status, c_string, get, run};

/// A classifier of images. Any number of threads may use one at a time.
pub struct ImageClassifier {
    model: runtime::ImageClassifier,
    labels: Labels,
    isa: CString,
}

fn make(
    artifact: runtime::Artifact,
    options: runtime::Options,
) -> runtime::Result<ImageClassifier> {
    let model = runtime::ImageClassifier::new(artifact, options)?;
    let labels = Labels::new(model.labels());
    let isa = c_string(model.isa());
    Ok(ImageClassifier { model, labels, isa })
}

/// Opens a classifier of images: the file is mapped, checked, and used in place. It must not be changed while it
/// is open; `options` may be NULL, and those about tokens have no effect.
///
/// Since 0.1.
///
/// # Safety
/// `path` is a string that ends with a zero; `options` is NULL or from `centroid_options_new`; `out` may be
/// written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_image_classifier_open(
    path: *const c_char,
    options: *const Options,
    out: *mut *mut ImageClassifier,
) -> Status {
    // SAFETY: what the caller promises.
    unsafe { open(Bytes::File(path), options, out, make) }
}

/// Opens a classifier of images in memory. The bytes are copied.
///
/// Since 0.1.
///
/// # Safety
/// `data` points to `size` bytes; the rest as for `centroid_image_classifier_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_image_classifier_from_memory(
    data: *const u8,
    size: usize,
    options: *const Options,
    out: *mut *mut ImageClassifier,
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
pub unsafe extern "C" fn centroid_image_classifier_free(classifier: *mut ImageClassifier) {
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
pub unsafe extern "C" fn centroid_image_classifier_label_count(
    classifier: *const ImageClassifier,
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
pub unsafe extern "C" fn centroid_image_classifier_label(
    classifier: *const ImageClassifier,
    index: usize,
) -> *const c_char {
    // SAFETY: what the caller promises.
    unsafe { label(classifier, |of| &of.labels, index) }
}

/// Height and width of the network's input; 0 for NULL.
///
/// Since 0.1.
///
/// # Safety
/// `classifier` is NULL or was opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_image_classifier_size(
    classifier: *const ImageClassifier,
) -> usize {
    // SAFETY: what the caller promises.
    unsafe { classifier.as_ref() }.map_or(0, |of| of.model.size())
}

/// The instruction set in use; it lives as long as the classifier. NULL for NULL.
///
/// Since 0.1.
///
/// # Safety
/// `classifier` is NULL or was opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_image_classifier_isa(
    classifier: *const ImageClassifier,
) -> *const c_char {
    // SAFETY: what the caller promises.
    unsafe { classifier.as_ref() }.map_or(ptr::null(), |of| of.isa.as_ptr())
}

/// Classifies what a closure makes of a classifier's input.
///
/// # Safety
/// `classifier` is NULL or was opened; `out` is NULL or may be written to.
unsafe fn classify(
    classifier: *const ImageClassifier,
    out: *mut *mut Results,
    classified: impl FnOnce(&runtime::ImageClassifier) -> Result<Vec<ImageClassification>, Fault>,
) -> Status {
    run(|| {
        // SAFETY: what the caller promises.
        let classifier = unsafe { handle(classifier, "classifier") }?;
        // SAFETY: what the caller promises.
        let out = unsafe { Place::new(out, "out") }?;
        let classified = classified(&classifier.model)?;
        let answers = classified
            .iter()
            .map(|image| Answer::new(&image.labels, 0, false));
        let results = Results::new(classifier.model.labels(), answers.collect());
        out.set(give(results));
        Ok(())
    })
}

/// Classifies `count` pictures in files (JPEG, PNG or WebP), resized and cut as the network was trained.
///
/// Since 0.1.
///
/// # Safety
/// `classifier` was opened; `paths` points to `count` pointers to strings that end with a zero; `out` may be
/// written to. The results are freed with `centroid_results_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_image_classifier_classify_files(
    classifier: *const ImageClassifier,
    paths: *const *const c_char,
    count: usize,
    out: *mut *mut Results,
) -> Status {
    let body = |model: &runtime::ImageClassifier| {
        // SAFETY: what the caller promises.
        let pointers = unsafe { values(paths, count, "paths") }?;
        let one = |(i, text): (usize, &*const c_char)| {
            // SAFETY: what the caller promises.
            unsafe { path(*text, &format!("paths[{i}]")) }
        };
        let paths: Result<Vec<_>, Fault> = pointers.iter().enumerate().map(one).collect();
        Ok(model.classify(&paths?)?)
    };
    // SAFETY: what the caller promises.
    unsafe { classify(classifier, out, body) }
}

/// Classifies `count` pictures in memory: the bytes of a JPEG, PNG or WebP file each, `sizes` of them.
///
/// Since 0.1.
///
/// # Safety
/// `classifier` was opened; `pictures` points to `count` pointers and `sizes` to `count` numbers, so many bytes
/// are at each pointer; `out` may be written to. The results are freed with `centroid_results_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_image_classifier_classify_encoded(
    classifier: *const ImageClassifier,
    pictures: *const *const u8,
    sizes: *const usize,
    count: usize,
    out: *mut *mut Results,
) -> Status {
    let body = |model: &runtime::ImageClassifier| {
        // SAFETY: what the caller promises.
        let pointers = unsafe { values(pictures, count, "pictures") }?;
        // SAFETY: what the caller promises.
        let sizes = unsafe { values(sizes, count, "sizes") }?;
        let one = |(i, (bytes, size)): (usize, (&*const u8, &usize))| {
            // SAFETY: what the caller promises.
            unsafe { values(*bytes, *size, &format!("pictures[{i}]")) }
        };
        let pictures: Result<Vec<_>, Fault> =
            (pointers.iter().zip(sizes).enumerate()).map(one).collect();
        Ok(model.classify_bytes(&pictures?)?)
    };
    // SAFETY: what the caller promises.
    unsafe { classify(classifier, out, body) }
}

/// Classifies a picture that is decoded already, as a camera or a window has it: `[height][width]` pixels of red, green,
/// blue and alpha, a byte each; alpha is passed over. It is resized and cut as a file is.
///
/// Since 0.1.
///
/// # Safety
/// `classifier` was opened; `pixels` points to 4 times `width` times `height` bytes; `out` may be written to. The
/// results are freed with `centroid_results_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_image_classifier_classify_pixels(
    classifier: *const ImageClassifier,
    pixels: *const u8,
    width: u32,
    height: u32,
    out: *mut *mut Results,
) -> Status {
    let body = |model: &runtime::ImageClassifier| {
        let bytes = (width as usize).checked_mul(height as usize);
        let bytes = bytes.and_then(|pixels| pixels.checked_mul(4));
        let message = || format!("{width} x {height} pixels are too many");
        let bytes = bytes.ok_or_else(|| Fault::argument(message()))?;
        // SAFETY: what the caller promises.
        let pixels = unsafe { values(pixels, bytes, "pixels") }?;
        Ok(vec![model.classify_rgba([width, height], pixels)?])
    };
    // SAFETY: what the caller promises.
    unsafe { classify(classifier, out, body) }
}

/// Classifies `count` images that are the network's input already: resized, cut and normalized,
/// `[count][size][size][3]` in red, green and blue, where size is `centroid_image_classifier_size`.
///
/// Since 0.1.
///
/// # Safety
/// `classifier` was opened; `inputs` points to that many values; `out` may be written to. The results are freed
/// with `centroid_results_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_image_classifier_classify_inputs(
    classifier: *const ImageClassifier,
    inputs: *const f32,
    count: usize,
    out: *mut *mut Results,
) -> Status {
    let body = |model: &runtime::ImageClassifier| {
        let one = model.size() * model.size() * 3;
        let all = count.checked_mul(one);
        let all = all.ok_or_else(|| Fault::argument(format_args!("count {count} is too large")))?;
        // SAFETY: what the caller promises.
        let values = unsafe { values(inputs, all, "inputs") }?;
        let images: Vec<&[f32]> = values.chunks_exact(one).collect();
        Ok(model.classify_inputs(&images)?)
    };
    // SAFETY: what the caller promises.
    unsafe { classify(classifier, out, body) }
}

/*
 * centroid: models whose weights are codebooks. Made by cbindgen of bindings/c; do not edit.
 *
 * Handles are opaque; each has a function that frees it, to which NULL may be given. A function that can fail
 * returns a centroid_status; what went wrong stands in centroid_last_error() of the same thread, and out
 * parameters are written on success only. Handles of models may be used by any number of threads at a time;
 * options and results by one.
 */

#ifndef CENTROID_H
#define CENTROID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/* The version that this header belongs to; centroid_version has the library's. */
#define CENTROID_VERSION "0.1.0"


/**
 * What a call came to. Codes keep their numbers; later versions may add some.
 */
typedef enum {
  /**
   * Success.
   */
  CENTROID_STATUS_OK = 0,
  /**
   * The operating system refused to read a file.
   */
  CENTROID_STATUS_IO = 1,
  /**
   * The bytes are not a valid artifact.
   */
  CENTROID_STATUS_FORMAT = 2,
  /**
   * A stored checksum does not match the bytes it covers.
   */
  CENTROID_STATUS_CHECKSUM = 3,
  /**
   * Valid, but from a newer version, or a model of another kind.
   */
  CENTROID_STATUS_UNSUPPORTED = 4,
  /**
   * An option is wrong or cannot be met.
   */
  CENTROID_STATUS_CONFIG = 5,
  /**
   * The model's tokenizer is unreadable.
   */
  CENTROID_STATUS_TOKENIZER = 6,
  /**
   * A text has more tokens than the model takes.
   */
  CENTROID_STATUS_TOO_LONG = 7,
  /**
   * Any other unusable text or image.
   */
  CENTROID_STATUS_INPUT = 8,
  /**
   * The instruction set asked for is unknown or not available here.
   */
  CENTROID_STATUS_ISA = 9,
  /**
   * An argument is NULL, out of range or not UTF-8.
   */
  CENTROID_STATUS_ARGUMENT = 10,
  /**
   * Any other error.
   */
  CENTROID_STATUS_OTHER = 11,
  /**
   * A bug in the library, which was stopped before it reached the caller.
   */
  CENTROID_STATUS_PANIC = 12,
} centroid_status;

/**
 * An embedding model. Any number of threads may use one at a time.
 */
typedef struct centroid_embedder centroid_embedder;

#if defined(CENTROID_IMAGES)
/**
 * A classifier of images. Any number of threads may use one at a time.
 */
typedef struct centroid_image_classifier centroid_image_classifier;
#endif

/**
 * Options of a model, for its opening only: they may be changed or freed afterwards.
 */
typedef struct centroid_options centroid_options;

/**
 * What a classifier answers: for each text or image all labels, the best first.
 */
typedef struct centroid_results centroid_results;

/**
 * A classifier of texts. Any number of threads may use one at a time.
 */
typedef struct centroid_text_classifier centroid_text_classifier;

/**
 * A label and its score. The text of the label lives as long as the results that it is from.
 */
typedef struct {
  /**
   * The label: UTF-8 that ends with a zero.
   */
  const char *label;
  /**
   * Its number, from 0, in the order of the model's logits.
   */
  size_t index;
  /**
   * The softmax of the logits; the sigmoid of the logit where several labels may apply; the logit itself where
   * there is only one label.
   */
  float score;
  /**
   * The model's raw output.
   */
  float logit;
} centroid_score;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Opens an embedding model: the file is mapped, checked, and used in place. It must not be changed while it is
 * open; `options` may be NULL.
 *
 * Since 0.1.
 *
 * Required:
 * `path` is a string that ends with a zero; `options` is NULL or from `centroid_options_new`; `out` may be
 * written to.
 */
centroid_status centroid_embedder_open(const char *path,
                                       const centroid_options *options,
                                       centroid_embedder **out);

/**
 * Opens an embedding model in memory. The bytes are copied.
 *
 * Since 0.1.
 *
 * Required:
 * `data` points to `size` bytes; the rest as for `centroid_embedder_open`.
 */
centroid_status centroid_embedder_from_memory(const uint8_t *data,
                                              size_t size,
                                              const centroid_options *options,
                                              centroid_embedder **out);

/**
 * Frees an embedding model; NULL is nothing.
 *
 * Since 0.1.
 *
 * Required:
 * `embedder` is NULL or was opened, and is not used again, by no thread.
 */
void centroid_embedder_free(centroid_embedder *embedder);

/**
 * Number of values of a vector; 0 for NULL.
 *
 * Since 0.1.
 *
 * Required:
 * `embedder` is NULL or was opened.
 */
size_t centroid_embedder_dimensions(const centroid_embedder *embedder);

/**
 * The most tokens of a text, special tokens included; 0 for NULL.
 *
 * Since 0.1.
 *
 * Required:
 * `embedder` is NULL or was opened.
 */
size_t centroid_embedder_max_length(const centroid_embedder *embedder);

/**
 * The instruction set in use; it lives as long as the embedding model. NULL for NULL.
 *
 * Since 0.1.
 *
 * Required:
 * `embedder` is NULL or was opened.
 */
const char *centroid_embedder_isa(const centroid_embedder *embedder);

/**
 * Writes the vectors of `count` texts in UTF-8 one after the other to `out`, which has place for `capacity` values:
 * at least `count` times `centroid_embedder_dimensions`. With `lengths` each text has so many bytes, without
 * (NULL) it ends with a zero. A text's vector is the same, bit for bit, alone and among others.
 *
 * With `centroid_options_set_truncate`, `truncated` tells which texts were cut: NULL, or `count` places.
 *
 * Since 0.1.
 *
 * Required:
 * `embedder` was opened; `texts` points to `count` pointers to such texts, `lengths` is NULL or points to `count`
 * numbers; `out` points to `capacity` values that may be written to and `truncated` is NULL or points to `count`.
 */
centroid_status centroid_embedder_embed(const centroid_embedder *embedder,
                                        const char *const *texts,
                                        const size_t *lengths,
                                        size_t count,
                                        float *out,
                                        size_t capacity,
                                        bool *truncated);

/**
 * Writes the vectors of `count` pairs of texts, as `centroid_embedder_embed`.
 *
 * Since 0.1.
 *
 * Required:
 * As for `centroid_embedder_embed`, both for the first texts and the second ones.
 */
centroid_status centroid_embedder_embed_pairs(const centroid_embedder *embedder,
                                              const char *const *firsts,
                                              const size_t *first_lengths,
                                              const char *const *seconds,
                                              const size_t *second_lengths,
                                              size_t count,
                                              float *out,
                                              size_t capacity,
                                              bool *truncated);

#if defined(CENTROID_IMAGES)
/**
 * Opens a classifier of images: the file is mapped, checked, and used in place. It must not be changed while it
 * is open; `options` may be NULL, and those about tokens have no effect.
 *
 * Since 0.1.
 *
 * Required:
 * `path` is a string that ends with a zero; `options` is NULL or from `centroid_options_new`; `out` may be
 * written to.
 */
centroid_status centroid_image_classifier_open(const char *path,
                                               const centroid_options *options,
                                               centroid_image_classifier **out);
#endif

#if defined(CENTROID_IMAGES)
/**
 * Opens a classifier of images in memory. The bytes are copied.
 *
 * Since 0.1.
 *
 * Required:
 * `data` points to `size` bytes; the rest as for `centroid_image_classifier_open`.
 */
centroid_status centroid_image_classifier_from_memory(const uint8_t *data,
                                                      size_t size,
                                                      const centroid_options *options,
                                                      centroid_image_classifier **out);
#endif

#if defined(CENTROID_IMAGES)
/**
 * Frees a classifier; NULL is nothing. Its results live on.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` is NULL or was opened, and is not used again, by no thread.
 */
void centroid_image_classifier_free(centroid_image_classifier *classifier);
#endif

#if defined(CENTROID_IMAGES)
/**
 * How many labels there are; 0 for NULL.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` is NULL or was opened.
 */
size_t centroid_image_classifier_label_count(const centroid_image_classifier *classifier);
#endif

#if defined(CENTROID_IMAGES)
/**
 * A label by its number, which lives as long as the classifier; NULL where there is none.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` is NULL or was opened.
 */
const char *centroid_image_classifier_label(const centroid_image_classifier *classifier,
                                            size_t index);
#endif

#if defined(CENTROID_IMAGES)
/**
 * Height and width of the network's input; 0 for NULL.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` is NULL or was opened.
 */
size_t centroid_image_classifier_size(const centroid_image_classifier *classifier);
#endif

#if defined(CENTROID_IMAGES)
/**
 * The instruction set in use; it lives as long as the classifier. NULL for NULL.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` is NULL or was opened.
 */
const char *centroid_image_classifier_isa(const centroid_image_classifier *classifier);
#endif

#if defined(CENTROID_IMAGES)
/**
 * Classifies `count` pictures in files (JPEG, PNG or WebP), resized and cut as the network was trained.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` was opened; `paths` points to `count` pointers to strings that end with a zero; `out` may be
 * written to. The results are freed with `centroid_results_free`.
 */
centroid_status centroid_image_classifier_classify_files(const centroid_image_classifier *classifier,
                                                         const char *const *paths,
                                                         size_t count,
                                                         centroid_results **out);
#endif

#if defined(CENTROID_IMAGES)
/**
 * Classifies `count` pictures in memory: the bytes of a JPEG, PNG or WebP file each, `sizes` of them.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` was opened; `pictures` points to `count` pointers and `sizes` to `count` numbers, so many bytes
 * are at each pointer; `out` may be written to. The results are freed with `centroid_results_free`.
 */
centroid_status centroid_image_classifier_classify_encoded(const centroid_image_classifier *classifier,
                                                           const uint8_t *const *pictures,
                                                           const size_t *sizes,
                                                           size_t count,
                                                           centroid_results **out);
#endif

#if defined(CENTROID_IMAGES)
/**
 * Classifies a picture that is decoded already, as a camera or a window has it: `[height][width]` pixels of red, green,
 * blue and alpha, a byte each; alpha is passed over. It is resized and cut as a file is.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` was opened; `pixels` points to 4 times `width` times `height` bytes; `out` may be written to. The
 * results are freed with `centroid_results_free`.
 */
centroid_status centroid_image_classifier_classify_pixels(const centroid_image_classifier *classifier,
                                                          const uint8_t *pixels,
                                                          uint32_t width,
                                                          uint32_t height,
                                                          centroid_results **out);
#endif

#if defined(CENTROID_IMAGES)
/**
 * Classifies `count` images that are the network's input already: resized, cut and normalized,
 * `[count][size][size][3]` in red, green and blue, where size is `centroid_image_classifier_size`.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` was opened; `inputs` points to that many values; `out` may be written to. The results are freed
 * with `centroid_results_free`.
 */
centroid_status centroid_image_classifier_classify_inputs(const centroid_image_classifier *classifier,
                                                          const float *inputs,
                                                          size_t count,
                                                          centroid_results **out);
#endif

/**
 * Default options: one thread a processor, mode int8, the fastest instruction set, an error for texts that
 * are too long. NULL is given only where memory has run out.
 *
 * Since 0.1.
 */
centroid_options *centroid_options_new(void);

/**
 * Frees options; NULL is nothing.
 *
 * Since 0.1.
 *
 * Required:
 * `options` is NULL or from `centroid_options_new`, and is not used again.
 */
void centroid_options_free(centroid_options *options);

/**
 * How many threads a call may use; 0 is as many as the process may run on. Results do not depend on it.
 *
 * Since 0.1.
 *
 * Required:
 * `options` is NULL (an error) or from `centroid_options_new`.
 */
centroid_status centroid_options_set_threads(centroid_options *options,
                                             size_t threads);

/**
 * How linear layers treat their input: "int8" (rounded to int8, faster) or "exact" (as it is).
 *
 * Since 0.1.
 *
 * Required:
 * `options` is NULL (an error) or from `centroid_options_new`; `mode` is NULL (an error) or a string that ends
 * with a zero.
 */
centroid_status centroid_options_set_mode(centroid_options *options,
                                          const char *mode);

/**
 * The instruction set by name, over the environment variable `CENTROID_ISA`. Whether it is there is found when
 * a model is opened.
 *
 * Since 0.1.
 *
 * Required:
 * `options` is NULL (an error) or from `centroid_options_new`; `name` is NULL (an error) or a string that ends
 * with a zero.
 */
centroid_status centroid_options_set_isa(centroid_options *options,
                                         const char *name);

/**
 * The most tokens of a text, special tokens included; 0 is the model's own limit. More than the model has is
 * an error when it is opened.
 *
 * Since 0.1.
 *
 * Required:
 * `options` is NULL (an error) or from `centroid_options_new`.
 */
centroid_status centroid_options_set_max_length(centroid_options *options,
                                                size_t tokens);

/**
 * Whether texts with more tokens are cut, which their results tell, or are an error, as they are at first.
 *
 * Since 0.1.
 *
 * Required:
 * `options` is NULL (an error) or from `centroid_options_new`.
 */
centroid_status centroid_options_set_truncate(centroid_options *options,
                                              bool truncate);

/**
 * Frees results; NULL is nothing. Labels that came from them are gone, too.
 *
 * Since 0.1.
 *
 * Required:
 * `results` is NULL or from a classifier, and is not used again.
 */
void centroid_results_free(centroid_results *results);

/**
 * How many texts or images were classified; 0 for NULL.
 *
 * Since 0.1.
 *
 * Required:
 * `results` is NULL or from a classifier.
 */
size_t centroid_results_count(const centroid_results *results);

/**
 * How many labels each of them has; 0 for NULL.
 *
 * Since 0.1.
 *
 * Required:
 * `results` is NULL or from a classifier.
 */
size_t centroid_results_label_count(const centroid_results *results);

/**
 * Writes the label at `rank` (0 is the best) of the text or image `index` to `out`.
 *
 * Since 0.1.
 *
 * Required:
 * `results` is NULL (an error) or from a classifier; `out` is NULL (an error) or may be written to.
 */
centroid_status centroid_results_get(const centroid_results *results,
                                     size_t index,
                                     size_t rank,
                                     centroid_score *out);

/**
 * Writes how many tokens a text had (special tokens included; 0 for an image), and whether it was cut to the
 * limit. Either place may be NULL.
 *
 * Since 0.1.
 *
 * Required:
 * `results` is NULL (an error) or from a classifier; the places are NULL or may be written to.
 */
centroid_status centroid_results_tokens(const centroid_results *results,
                                        size_t index,
                                        size_t *tokens,
                                        bool *truncated);

/**
 * The message of this thread's last call that failed: one line that names the file, the text or the image
 * where there is one; empty if none failed. Valid until this thread's next call that fails, or its end.
 *
 * Since 0.1.
 */
const char *centroid_last_error(void);

/**
 * The name of a status, for logs: "ok", "io" and so on; "unknown" for other numbers.
 *
 * Since 0.1.
 */
const char *centroid_status_name(uint32_t status);

/**
 * The version of the library: "0.1.0".
 *
 * Since 0.1.
 */
const char *centroid_version(void);

/**
 * Opens a classifier of texts: the file is mapped, checked, and used in place. It must not be changed while it
 * is open; `options` may be NULL.
 *
 * Since 0.1.
 *
 * Required:
 * `path` is a string that ends with a zero; `options` is NULL or from `centroid_options_new`; `out` may be
 * written to.
 */
centroid_status centroid_text_classifier_open(const char *path,
                                              const centroid_options *options,
                                              centroid_text_classifier **out);

/**
 * Opens a classifier of texts in memory. The bytes are copied.
 *
 * Since 0.1.
 *
 * Required:
 * `data` points to `size` bytes; the rest as for `centroid_text_classifier_open`.
 */
centroid_status centroid_text_classifier_from_memory(const uint8_t *data,
                                                     size_t size,
                                                     const centroid_options *options,
                                                     centroid_text_classifier **out);

/**
 * Frees a classifier; NULL is nothing. Its results live on.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` is NULL or was opened, and is not used again, by no thread.
 */
void centroid_text_classifier_free(centroid_text_classifier *classifier);

/**
 * How many labels there are; 0 for NULL.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` is NULL or was opened.
 */
size_t centroid_text_classifier_label_count(const centroid_text_classifier *classifier);

/**
 * A label by its number, which lives as long as the classifier; NULL where there is none.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` is NULL or was opened.
 */
const char *centroid_text_classifier_label(const centroid_text_classifier *classifier,
                                           size_t index);

/**
 * The most tokens of a text, special tokens included; 0 for NULL.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` is NULL or was opened.
 */
size_t centroid_text_classifier_max_length(const centroid_text_classifier *classifier);

/**
 * The instruction set in use; it lives as long as the classifier. NULL for NULL.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` is NULL or was opened.
 */
const char *centroid_text_classifier_isa(const centroid_text_classifier *classifier);

/**
 * Classifies `count` texts in UTF-8. With `lengths` each has so many bytes, without (NULL) it ends with a zero.
 * A text's result is the same, bit for bit, alone and among others.
 *
 * Since 0.1.
 *
 * Required:
 * `classifier` was opened; `texts` points to `count` pointers to such texts, `lengths` is NULL or points to
 * `count` numbers; `out` may be written to. The results are freed with `centroid_results_free`.
 */
centroid_status centroid_text_classifier_classify(const centroid_text_classifier *classifier,
                                                  const char *const *texts,
                                                  const size_t *lengths,
                                                  size_t count,
                                                  centroid_results **out);

/**
 * Classifies `count` pairs of texts, as `centroid_text_classifier_classify`.
 *
 * Since 0.1.
 *
 * Required:
 * As for `centroid_text_classifier_classify`, both for the first texts and the second ones.
 */
centroid_status centroid_text_classifier_classify_pairs(const centroid_text_classifier *classifier,
                                                        const char *const *firsts,
                                                        const size_t *first_lengths,
                                                        const char *const *seconds,
                                                        const size_t *second_lengths,
                                                        size_t count,
                                                        centroid_results **out);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CENTROID_H */

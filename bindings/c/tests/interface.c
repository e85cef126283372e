/* Every function, rightly and wrongly used: interface TEXTS EMBEDDINGS IMAGES PICTURE, three models and a picture. */
#include <centroid.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, centroid_last_error()); \
            failures++;                                                                      \
        }                                                                                    \
    } while (0)
#define OK(call) CHECK((call) == CENTROID_STATUS_OK)
/* A call that fails with this status and a message that has these words. */
#define FAILS(call, status, words)                                                           \
    do {                                                                                     \
        CHECK((call) == (status));                                                           \
        CHECK(strstr(centroid_last_error(), words) != NULL);                                 \
    } while (0)
#define ARGUMENT CENTROID_STATUS_ARGUMENT

static unsigned char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) {
        perror(path);
        exit(3);
    }
    *size = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(*size);
    if (!bytes || fread(bytes, 1, *size, file) != *size)
        exit(3);
    fclose(file);
    return bytes;
}

static void options(const char *model) {
    centroid_options *of = centroid_options_new();
    CHECK(of != NULL);
    OK(centroid_options_set_threads(of, 1));
    OK(centroid_options_set_mode(of, "exact"));
    FAILS(centroid_options_set_mode(of, "fast"), ARGUMENT, "neither int8 nor exact");
    FAILS(centroid_options_set_mode(of, NULL), ARGUMENT, "mode is NULL");
    FAILS(centroid_options_set_mode(of, "\xff"), ARGUMENT, "not UTF-8");
    FAILS(centroid_options_set_threads(NULL, 1), ARGUMENT, "options is NULL");

    centroid_text_classifier *classifier = NULL;
    const char *text = "a film that is far longer than four tokens";
    centroid_results *results = NULL;
    OK(centroid_options_set_max_length(of, 100000));
    FAILS(centroid_text_classifier_open(model, of, &classifier), CENTROID_STATUS_CONFIG, "100000");
    OK(centroid_options_set_max_length(of, 0));
    OK(centroid_options_set_isa(of, "abacus"));
    FAILS(centroid_text_classifier_open(model, of, &classifier), CENTROID_STATUS_ISA, "abacus");
    CHECK(classifier == NULL);
    OK(centroid_options_set_isa(of, "portable"));
    OK(centroid_options_set_max_length(of, 4));
    OK(centroid_text_classifier_open(model, of, &classifier));
    CHECK(strcmp(centroid_text_classifier_isa(classifier), "portable") == 0);
    CHECK(centroid_text_classifier_max_length(classifier) == 4);
    FAILS(centroid_text_classifier_classify(classifier, &text, NULL, 1, &results),
          CENTROID_STATUS_TOO_LONG, "text 0");
    CHECK(results == NULL);
    centroid_text_classifier_free(classifier);

    OK(centroid_options_set_truncate(of, true));
    OK(centroid_text_classifier_open(model, of, &classifier));
    OK(centroid_text_classifier_classify(classifier, &text, NULL, 1, &results));
    size_t tokens = 0;
    bool truncated = false;
    OK(centroid_results_tokens(results, 0, &tokens, &truncated));
    CHECK(tokens == 4 && truncated);
    OK(centroid_results_tokens(results, 0, NULL, NULL));
    FAILS(centroid_results_tokens(results, 1, &tokens, NULL), ARGUMENT, "index 1, of 1 results");
    centroid_results_free(results);
    centroid_text_classifier_free(classifier);
    centroid_options_free(of);
}

typedef struct {
    const centroid_text_classifier *classifier;
    const char *text;
    float logit;
    int right;
} job;

/* The same text again and again, between calls that fail. */
static void *classify_often(void *argument) {
    job *of = argument;
    of->right = 1;
    for (int i = 0; i < 3; i++) {
        centroid_results *results = NULL;
        centroid_score score;
        of->right &= centroid_text_classifier_classify(NULL, NULL, NULL, 0, &results) == ARGUMENT;
        of->right &= strcmp(centroid_last_error(), "classifier is NULL") == 0;
        of->right &= centroid_text_classifier_classify(of->classifier, &of->text, NULL, 1,
                                                       &results) == CENTROID_STATUS_OK;
        of->right &= centroid_results_get(results, 0, 0, &score) == CENTROID_STATUS_OK;
        of->right &= score.logit == of->logit;
        centroid_results_free(results);
    }
    return NULL;
}

static void texts(const char *model) {
    centroid_text_classifier *classifier = NULL;
    FAILS(centroid_text_classifier_open("no/such.centroid", NULL, &classifier), CENTROID_STATUS_IO,
          "no/such.centroid");
    FAILS(centroid_text_classifier_open(NULL, NULL, &classifier), ARGUMENT, "path is NULL");
    FAILS(centroid_text_classifier_open(model, NULL, NULL), ARGUMENT, "out is NULL");
    CHECK(classifier == NULL);
    OK(centroid_text_classifier_open(model, NULL, &classifier));
    CHECK(centroid_text_classifier_label_count(classifier) == 2);
    CHECK(strcmp(centroid_text_classifier_label(classifier, 1), "positive") == 0);
    CHECK(centroid_text_classifier_label(classifier, 2) == NULL);

    const char *both[] = {"a moving, funny film", "two hours too long, and dull"};
    centroid_results *results = NULL;
    OK(centroid_text_classifier_classify(classifier, both, NULL, 2, &results));
    CHECK(centroid_results_count(results) == 2);
    CHECK(centroid_results_label_count(results) == 2);
    centroid_score first, second, other;
    OK(centroid_results_get(results, 0, 0, &first));
    OK(centroid_results_get(results, 1, 0, &second));
    OK(centroid_results_get(results, 1, 1, &other));
    CHECK(strcmp(first.label, "positive") == 0 && first.index == 1);
    CHECK(strcmp(second.label, "negative") == 0 && second.index == 0);
    CHECK(second.score > 0.5f && second.score + other.score > 0.999f);
    FAILS(centroid_results_get(results, 2, 0, &other), ARGUMENT, "index 2, of 2 results");
    FAILS(centroid_results_get(results, 0, 2, &other), ARGUMENT, "rank 2, of 2 labels");
    FAILS(centroid_results_get(results, 0, 0, NULL), ARGUMENT, "out is NULL");

    /* Lengths in place of zeros at the end, and text with a zero in it. */
    const char *parts[] = {"a moving, funny film: what a surprise", "a\0b"};
    size_t lengths[] = {20, 3};
    centroid_results *cut = NULL;
    OK(centroid_text_classifier_classify(classifier, parts, lengths, 2, &cut));
    centroid_score same;
    OK(centroid_results_get(cut, 0, 0, &same));
    CHECK(same.logit == first.logit);
    centroid_results_free(cut);

    const char *broken[] = {"fine", "\xc3("};
    cut = NULL;
    FAILS(centroid_text_classifier_classify(classifier, broken, NULL, 2, &cut), ARGUMENT,
          "texts[1] is not UTF-8");
    const char *missing[] = {"fine", NULL};
    FAILS(centroid_text_classifier_classify(classifier, missing, NULL, 2, &cut), ARGUMENT,
          "texts[1] is NULL");
    FAILS(centroid_text_classifier_classify(classifier, NULL, NULL, 2, &cut), ARGUMENT,
          "texts is NULL");
    FAILS(centroid_text_classifier_classify(classifier, both, NULL, SIZE_MAX, &cut), ARGUMENT,
          "more than memory has");
    CHECK(cut == NULL);
    OK(centroid_text_classifier_classify(classifier, NULL, NULL, 0, &cut));
    CHECK(centroid_results_count(cut) == 0);
    centroid_results_free(cut);

    OK(centroid_text_classifier_classify_pairs(classifier, both, NULL, both + 1, NULL, 1, &cut));
    CHECK(centroid_results_count(cut) == 1);
    centroid_results_free(cut);

    pthread_t threads[4];
    job jobs[4];
    for (int i = 0; i < 4; i++) {
        jobs[i] = (job){classifier, both[i % 2], i % 2 ? second.logit : first.logit, 0};
        CHECK(pthread_create(&threads[i], NULL, classify_often, &jobs[i]) == 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        CHECK(jobs[i].right);
    }

    /* From memory, which is copied. */
    size_t size;
    unsigned char *bytes = read_file(model, &size);
    centroid_text_classifier *copy = NULL;
    OK(centroid_text_classifier_from_memory(bytes, size, NULL, &copy));
    free(bytes);
    OK(centroid_text_classifier_classify(copy, both, NULL, 2, &cut));
    OK(centroid_results_get(cut, 0, 0, &same));
    CHECK(same.logit == first.logit);
    centroid_text_classifier_free(copy);
    /* Results live longer than what they are from. */
    CHECK(strcmp(same.label, "positive") == 0);
    centroid_results_free(cut);
    bytes = read_file(model, &size);
    copy = NULL;
    FAILS(centroid_text_classifier_from_memory(bytes, size / 2, NULL, &copy), CENTROID_STATUS_FORMAT,
          "");
    FAILS(centroid_text_classifier_from_memory(NULL, 5, NULL, &copy), ARGUMENT, "data is NULL");
    bytes[size / 2] ^= 1;
    FAILS(centroid_text_classifier_from_memory(bytes, size, NULL, &copy), CENTROID_STATUS_CHECKSUM,
          "");
    CHECK(copy == NULL);
    free(bytes);
    centroid_results_free(results);
    centroid_text_classifier_free(classifier);
    centroid_text_classifier_free(NULL);
    CHECK(centroid_text_classifier_label_count(NULL) == 0);
    CHECK(centroid_text_classifier_label(NULL, 0) == NULL);
    CHECK(centroid_text_classifier_max_length(NULL) == 0);
    CHECK(centroid_text_classifier_isa(NULL) == NULL);
}

static void embeddings(const char *model, const char *classifier) {
    centroid_embedder *embedder = NULL;
    FAILS(centroid_embedder_open(classifier, NULL, &embedder), CENTROID_STATUS_UNSUPPORTED,
          "classifier and not an embedding model");
    OK(centroid_embedder_open(model, NULL, &embedder));
    size_t dimensions = centroid_embedder_dimensions(embedder);
    CHECK(dimensions == 384);
    CHECK(centroid_embedder_max_length(embedder) == 256);
    CHECK(centroid_embedder_isa(embedder) != NULL);
    const char *both[] = {"a dog barks", "a hound is loud"};
    float *vectors = malloc(2 * dimensions * sizeof *vectors);
    float *alone = malloc(dimensions * sizeof *alone);
    bool truncated[2];
    OK(centroid_embedder_embed(embedder, both, NULL, 2, vectors, 2 * dimensions, truncated));
    CHECK(!truncated[0] && !truncated[1]);
    OK(centroid_embedder_embed(embedder, both + 1, NULL, 1, alone, dimensions, NULL));
    CHECK(memcmp(alone, vectors + dimensions, dimensions * sizeof *alone) == 0);
    FAILS(centroid_embedder_embed(embedder, both, NULL, 2, vectors, 2 * dimensions - 1, NULL),
          ARGUMENT, "capacity is 767 where 2 vectors of 384 values are asked for");
    FAILS(centroid_embedder_embed(embedder, both, NULL, 2, NULL, 2 * dimensions, NULL), ARGUMENT,
          "out is NULL");
    OK(centroid_embedder_embed(embedder, NULL, NULL, 0, NULL, 0, NULL));
    OK(centroid_embedder_embed_pairs(embedder, both, NULL, both + 1, NULL, 1, alone, dimensions,
                                     truncated));
    centroid_embedder_free(embedder);

    size_t size;
    unsigned char *bytes = read_file(model, &size);
    embedder = NULL;
    OK(centroid_embedder_from_memory(bytes, size, NULL, &embedder));
    free(bytes);
    OK(centroid_embedder_embed(embedder, both, NULL, 1, alone, dimensions, NULL));
    CHECK(memcmp(alone, vectors, dimensions * sizeof *alone) == 0);
    free(alone);
    free(vectors);
    centroid_embedder_free(embedder);
    centroid_embedder_free(NULL);
    CHECK(centroid_embedder_dimensions(NULL) == 0 && centroid_embedder_max_length(NULL) == 0);
    CHECK(centroid_embedder_isa(NULL) == NULL);
}

static void images(const char *model, const char *picture) {
    centroid_image_classifier *classifier = NULL;
    OK(centroid_image_classifier_open(model, NULL, &classifier));
    CHECK(centroid_image_classifier_label_count(classifier) == 1000);
    CHECK(strcmp(centroid_image_classifier_label(classifier, 0), "tench") == 0);
    CHECK(centroid_image_classifier_label(classifier, 1000) == NULL);
    CHECK(centroid_image_classifier_size(classifier) == 224);
    CHECK(centroid_image_classifier_isa(classifier) != NULL);
    centroid_results *results = NULL, *others = NULL;
    OK(centroid_image_classifier_classify_files(classifier, &picture, 1, &results));
    centroid_score of_file, of_bytes;
    OK(centroid_results_get(results, 0, 0, &of_file));
    size_t tokens = 1;
    OK(centroid_results_tokens(results, 0, &tokens, NULL));
    CHECK(tokens == 0);

    size_t size;
    unsigned char *bytes = read_file(picture, &size);
    const unsigned char *pictures[] = {bytes, bytes};
    size_t sizes[] = {size, size};
    OK(centroid_image_classifier_classify_encoded(classifier, pictures, sizes, 2, &others));
    OK(centroid_results_get(others, 1, 0, &of_bytes));
    CHECK(of_bytes.index == of_file.index && of_bytes.logit == of_file.logit);
    centroid_results_free(others);
    others = NULL;
    sizes[1] = size / 2;
    FAILS(centroid_image_classifier_classify_encoded(classifier, pictures, sizes, 2, &others),
          CENTROID_STATUS_INPUT, "image 1");
    pictures[1] = NULL;
    FAILS(centroid_image_classifier_classify_encoded(classifier, pictures, sizes, 2, &others),
          ARGUMENT, "pictures[1] is NULL");
    free(bytes);
    const char *missing = "no/such.jpg";
    FAILS(centroid_image_classifier_classify_files(classifier, &missing, 1, &others),
          CENTROID_STATUS_IO, "no/such.jpg");

    /* Pixels: one colour, with any alpha. */
    unsigned char pixels[2][5 * 3 * 4];
    memset(pixels[0], 90, sizeof pixels[0]);
    memset(pixels[1], 90, sizeof pixels[1]);
    for (size_t i = 3; i < sizeof pixels[1]; i += 4)
        pixels[1][i] = 7;
    centroid_score of_pixels[2];
    for (size_t i = 0; i < 2; i++) {
        OK(centroid_image_classifier_classify_pixels(classifier, pixels[i], 5, 3, &others));
        OK(centroid_results_get(others, 0, 0, &of_pixels[i]));
        centroid_results_free(others);
        others = NULL;
    }
    CHECK(of_pixels[0].logit == of_pixels[1].logit);
    FAILS(centroid_image_classifier_classify_pixels(classifier, NULL, 5, 3, &others), ARGUMENT,
          "pixels is NULL");
    FAILS(centroid_image_classifier_classify_pixels(classifier, NULL, 0, 3, &others),
          CENTROID_STATUS_INPUT, "0 pixels");

    size_t side = centroid_image_classifier_size(classifier);
    float *input = calloc(side * side * 3, sizeof *input);
    OK(centroid_image_classifier_classify_inputs(classifier, input, 1, &others));
    CHECK(centroid_results_label_count(others) == 1000);
    centroid_results_free(others);
    others = NULL;
    FAILS(centroid_image_classifier_classify_inputs(classifier, input, SIZE_MAX, &others), ARGUMENT,
          "too large");
    input[7] = 1.0f / 0.0f;
    FAILS(centroid_image_classifier_classify_inputs(classifier, input, 1, &others),
          CENTROID_STATUS_INPUT, "value 7 is inf");
    CHECK(others == NULL);
    free(input);
    centroid_results_free(results);
    centroid_image_classifier_free(classifier);

    bytes = read_file(model, &size);
    classifier = NULL;
    OK(centroid_image_classifier_from_memory(bytes, size, NULL, &classifier));
    free(bytes);
    centroid_image_classifier_free(classifier);
    centroid_image_classifier_free(NULL);
    CHECK(centroid_image_classifier_label_count(NULL) == 0);
    CHECK(centroid_image_classifier_label(NULL, 0) == NULL);
    CHECK(centroid_image_classifier_size(NULL) == 0);
    CHECK(centroid_image_classifier_isa(NULL) == NULL);
}

int main(int argc, char **argv) {
    if (argc != 5)
        return 2;
    CHECK(strcmp(centroid_last_error(), "") == 0);
    CHECK(strcmp(centroid_version(), CENTROID_VERSION) == 0);
    CHECK(strcmp(centroid_status_name(CENTROID_STATUS_TOO_LONG), "too long") == 0);
    CHECK(strcmp(centroid_status_name(CENTROID_STATUS_PANIC), "panic") == 0);
    CHECK(strcmp(centroid_status_name(1000), "unknown") == 0);
    options(argv[1]);
    texts(argv[1]);
    embeddings(argv[2], argv[1]);
    images(argv[3], argv[4]);
    centroid_results_free(NULL);
    centroid_options_free(NULL);
    CHECK(centroid_results_count(NULL) == 0 && centroid_results_label_count(NULL) == 0);
    if (failures == 0)
        printf("all right\n");
    return failures != 0;
}

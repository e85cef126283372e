/* The C side of tools/bindings/run: what program.rs does. */
#define _POSIX_C_SOURCE 200809L
#include <centroid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCH = 32, MOST = 100000 };

static void check(centroid_status status) {
    if (status != CENTROID_STATUS_OK) {
        fprintf(stderr, "%s\n", centroid_last_error());
        exit(1);
    }
}

int main(int argc, char **argv) {
    static char *lines[MOST];
    if (argc != 3)
        return 2;
    centroid_options *options = centroid_options_new();
    check(centroid_options_set_threads(options, 1));
    centroid_text_classifier *classifier;
    check(centroid_text_classifier_open(argv[1], options, &classifier));
    centroid_options_free(options);
    const char *first = "a film that moves";
    centroid_results *results;
    check(centroid_text_classifier_classify(classifier, &first, NULL, 1, &results));
    centroid_results_free(results);
    puts("first");
    fflush(stdout);

    FILE *file = fopen(argv[2], "r");
    if (!file)
        return 1;
    size_t count = 0, size = 0;
    char *line = NULL;
    while (count < MOST && getline(&line, &size, file) > 0) {
        line[strcspn(line, "\n")] = 0;
        lines[count++] = strdup(line);
    }
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    unsigned digest = 0;
    for (size_t at = 0; at < count; at += BATCH) {
        size_t batch = count - at < BATCH ? count - at : BATCH;
        check(centroid_text_classifier_classify(classifier, (const char *const *)lines + at, NULL,
                                                batch, &results));
        for (size_t i = 0; i < batch; i++) {
            centroid_score best;
            unsigned bits;
            check(centroid_results_get(results, i, 0, &best));
            memcpy(&bits, &best.logit, sizeof bits);
            digest = digest * 31 + bits;
        }
        centroid_results_free(results);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    printf("%zu %f %u\n", count, seconds, digest);
    return 0;
}

/* Classifies texts: classify MODEL TEXT...
 *
 *     cc classify.c $(pkg-config --cflags --libs centroid) -o classify
 *     ./classify models/sentiment.centroid "a moving film" "two hours too long"
 */
#include <centroid.h>
#include <stdio.h>

static int fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, centroid_last_error());
    return 1;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL TEXT...\n", argv[0]);
        return 2;
    }
    centroid_text_classifier *classifier;
    if (centroid_text_classifier_open(argv[1], NULL, &classifier) != CENTROID_STATUS_OK)
        return fail("cannot open the model");

    const char *const *texts = (const char *const *)argv + 2;
    size_t count = (size_t)argc - 2;
    centroid_results *results;
    if (centroid_text_classifier_classify(classifier, texts, NULL, count, &results) !=
        CENTROID_STATUS_OK) {
        centroid_text_classifier_free(classifier);
        return fail("cannot classify");
    }
    for (size_t i = 0; i < count; i++) {
        centroid_score best;
        if (centroid_results_get(results, i, 0, &best) == CENTROID_STATUS_OK)
            printf("%s\t%.9g\t%s\n", best.label, best.score, texts[i]);
    }
    centroid_results_free(results);
    centroid_text_classifier_free(classifier);
    return 0;
}

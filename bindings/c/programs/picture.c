/* Says what is in a picture: picture MODEL FILE
 *
 *     cc picture.c $(pkg-config --cflags --libs centroid) -o picture
 *     ./picture models/efficientnet-lite0.centroid photo.jpg
 */
#include <centroid.h>
#include <stdio.h>

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL FILE\n", argv[0]);
        return 2;
    }
    const char *const *file = (const char *const *)argv + 2;
    centroid_image_classifier *classifier = NULL;
    centroid_results *results = NULL;
    int code = 1;
    if (centroid_image_classifier_open(argv[1], NULL, &classifier) != CENTROID_STATUS_OK ||
        centroid_image_classifier_classify_files(classifier, file, 1, &results) !=
            CENTROID_STATUS_OK) {
        fprintf(stderr, "picture: %s\n", centroid_last_error());
    } else {
        centroid_score score;
        for (size_t rank = 0; rank < 5; rank++)
            if (centroid_results_get(results, 0, rank, &score) == CENTROID_STATUS_OK)
                printf("%s\t%.9g\n", score.label, score.score);
        code = 0;
    }
    centroid_results_free(results);
    centroid_image_classifier_free(classifier);
    return code;
}

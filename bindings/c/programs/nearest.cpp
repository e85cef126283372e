// Finds the text whose meaning is nearest to the first one: nearest MODEL TEXT TEXT...
//
//     c++ -std=c++17 nearest.cpp $(pkg-config --cflags --libs centroid) -o nearest
//     ./nearest models/minilm-l6.centroid "a dog barks" "a hound is loud" "rates went up"
#include <centroid.h>

#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <vector>

namespace {

// Any status but success as an exception.
void check(centroid_status status) {
    if (status != CENTROID_STATUS_OK)
        throw std::runtime_error(centroid_last_error());
}

struct Free {
    void operator()(centroid_embedder *embedder) const { centroid_embedder_free(embedder); }
    void operator()(centroid_options *options) const { centroid_options_free(options); }
};

using Embedder = std::unique_ptr<centroid_embedder, Free>;
using Options = std::unique_ptr<centroid_options, Free>;

Embedder open(const char *path) {
    Options options(centroid_options_new());
    check(centroid_options_set_truncate(options.get(), true));
    centroid_embedder *embedder = nullptr;
    check(centroid_embedder_open(path, options.get(), &embedder));
    return Embedder(embedder);
}

// One vector after the other.
std::vector<float> embed(const Embedder &embedder, const char *const *texts, size_t count) {
    std::vector<float> vectors(count * centroid_embedder_dimensions(embedder.get()));
    check(centroid_embedder_embed(embedder.get(), texts, nullptr, count, vectors.data(),
                                  vectors.size(), nullptr));
    return vectors;
}

} // namespace

int main(int argc, char **argv) {
    if (argc < 4) {
        std::fprintf(stderr, "usage: %s MODEL TEXT TEXT...\n", argv[0]);
        return 2;
    }
    try {
        Embedder embedder = open(argv[1]);
        size_t count = static_cast<size_t>(argc) - 2;
        std::vector<float> vectors = embed(embedder, argv + 2, count);
        size_t dimensions = vectors.size() / count;
        for (size_t i = 1; i < count; i++) {
            // The model's vectors have norm 1.
            double cosine = 0;
            for (size_t d = 0; d < dimensions; d++)
                cosine += double(vectors[d]) * double(vectors[i * dimensions + d]);
            std::printf("%.6f\t%s\n", cosine, argv[2 + i]);
        }
    } catch (const std::exception &error) {
        std::fprintf(stderr, "nearest: %s\n", error.what());
        return 1;
    }
    return 0;
}

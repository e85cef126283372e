"""The same two lines with transformers and sentence-transformers, and with centroid.

    pip install sentence-transformers
    python beside_transformers.py FINE-TUNED-CLASSIFIER ALL-MINILM-L6-V2 SENTIMENT.CENTROID MINILM-L6.CENTROID
"""

import sys

import centroid

TEXTS = ["A gorgeous, witty, seductive movie.", "The plot is dull and the actors know it."]


def theirs(classifier, embedder):
    from sentence_transformers import SentenceTransformer
    from transformers import pipeline

    print(pipeline("text-classification", classifier)(TEXTS))
    print(SentenceTransformer(embedder).encode(TEXTS).shape)


def ours(classifier, embedder):
    print(centroid.TextClassifier(classifier)(TEXTS))
    print(centroid.SentenceEmbedder(embedder).encode(TEXTS).shape)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    theirs(*sys.argv[1:3])
    ours(*sys.argv[3:5])

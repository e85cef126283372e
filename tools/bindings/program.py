"""The Python side of tools/bindings/run: what program.rs does."""

import json
import struct
import sys
import time

import centroid

model, file = sys.argv[1:]
classifier = centroid.TextClassifier(model, threads=1)
classifier.classify(["a film that moves"])
print("first", flush=True)
with open(file, encoding="utf-8", newline="\n") as lines:
    texts = lines.read().split("\n")[:-1]
digest = 0
scores = []
start = time.perf_counter()
for at in range(0, len(texts), 32):
    for of in classifier.classify(texts[at : at + 32]):
        [bits] = struct.unpack("<I", struct.pack("<f", of.labels[0].logit))
        digest = (digest * 31 + bits) & 0xFFFFFFFF
        scores.append(next(each.score for each in of.labels if each.label == "positive"))
print(len(texts), time.perf_counter() - start, digest, json.dumps(scores, separators=(",", ":")))

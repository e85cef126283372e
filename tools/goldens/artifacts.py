#!/usr/bin/env python3
"""Quantized artifacts and what a reconstruction of their weights answers.

    python tools/goldens/artifacts.py tests/data/checkpoints tests/data/golden

For each case below, converts a small checkpoint with target/release/centroid, reads the file back
with read_centroid.py (numpy, from format-spec.md alone), rebuilds the dense weights, runs the model
in float64 and writes the answers beside the artifact. The files also are the golden artifacts of
format version 1: they must open for ever, so an existing one is not written again; its answers are.
"""

import json
import pathlib
import subprocess
import sys

from read_centroid import forward, load

CENTROID = pathlib.Path(__file__).resolve().parents[2] / "target/release/centroid"
PQ = ["--scheme", "pq", "--centroids", "16"]
CASES = {
    # hidden 36 and FFN 70 are not multiples of 8: short last blocks
    "v1-bert-pq": ("bert-gelu", PQ),
    "v1-bert-pq-f16-rows": ("bert-gelu", [*PQ, "--centroid-type", "f16", "--row-scale"]),
    "v1-roberta-pq-rows": ("roberta-seq", [*PQ, "--row-scale"]),
    "v1-roberta-pq-odd": ("roberta-seq", [*PQ, "--block", "ffn=7,attention=5,embedding=3"]),
    "v1-roberta-int8": ("roberta-seq", ["--scheme", "int8", "--zero-point"]),
    "v1-bert-int8-tensor": ("bert-gelu", ["--scheme", "int8", "--per-tensor"]),
    "v1-bert-int4": ("bert-relu", ["--scheme", "int4"]),
    "v1-bert-int4-zero": ("bert-relu", ["--scheme", "int4", "--zero-point"]),
    "v1-sbert-pq-shared": ("sbert", [*PQ, "--share", "2"]),
    "v1-bert-wide-pq": ("bert-wide", ["--scheme", "pq", "--centroids", "64"]),
}


def main():
    checkpoints, out = map(pathlib.Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for name, (checkpoint, flags) in CASES.items():
        artifact = out / f"{name}.centroid"
        if not artifact.exists():
            command = [CENTROID, "convert", checkpoints / checkpoint, "-o", artifact, *flags]
            subprocess.run(command, check=True, capture_output=True)
        model = load(artifact)
        golden = json.loads((checkpoints / checkpoint / "golden.json").read_text())
        answers = [
            [round(float(v), 7) for v in forward(model, i["ids"], i["type_ids"])]
            for i in golden["inputs"]
        ]
        text = json.dumps({"checkpoint": checkpoint, "answers": answers})
        (out / f"{name}.json").write_text(text + "\n")
        print(f"{name}: {artifact.stat().st_size} bytes, {len(answers)} answers")


main()

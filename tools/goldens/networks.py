#!/usr/bin/env python3
"""Quantized networks of images and what a reconstruction of their weights answers.

    python tools/goldens/networks.py CENTROID tests/data/golden

As artifacts.py, for model kind 2: CENTROID, a program with the feature `train`, makes a tiny network from
nothing for each case below; read_centroid.py rebuilds its weights and runs it in float64, on the images of
efficientnet.py. The files are golden artifacts of format version 1: an existing one is not written again; its
answers are.
"""

import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib

import numpy
from read_centroid import Network, images, load

# Odd sizes, both strides, blocks that add their input and one that expands nothing.
LITE = """
size = 19
stem = 8
features = 48
blocks = [
    { expanded = 8, channels = 12 },
    { expanded = 40, kernel = 5, stride = 2, channels = 16 },
    { expanded = 64, channels = 16 },
]
"""
SQUEEZED = """
size = 18
resize = 20
activation = "silu"
padding = "symmetric"
mean = [120.0, 110.0, 100.0]
deviation = [60.0, 61.0, 62.0]
stem = 10
features = 36
blocks = [
    { expanded = 20, squeezed = 3, kernel = 7, channels = 10 },
    { expanded = 44, squeezed = 5, stride = 2, channels = 13 },
    { expanded = 52, squeezed = 5, channels = 13 },
]
"""
CASES = {
    "v1-network-pq": (LITE, "groups.depthwise.block = 3\ngroups.pointwise.centroids = 16"),
    "v1-network-pq-f16": (SQUEEZED, 'groups.pointwise = { block = 5, centroids = 12, centroid-type = "f16" }'),
    "v1-network-int4": (SQUEEZED, 'scheme = "int4"\ngroups.depthwise.scheme = "int8"\ngroups.squeeze.scheme = "f32"'),
}
LABELS = ["ant", "bee", "cow"]


def png(pixels):
    """Of `[height][width][3]` bytes."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    height, width, _ = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def make(centroid, shape, plan, artifact):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        random = numpy.random.default_rng(0)
        lines = ["file\tlabel"]
        for number in range(60):
            label = number % 3
            low = [0, 60, 120][label]
            pixels = random.integers(low, low + 130, (20, 20, 3), dtype=numpy.uint8)
            (folder / f"{number}.png").write_bytes(png(pixels))
            lines.append(f"{number}.png\t{LABELS[label]}")
        (folder / "data.tsv").write_text("\n".join(lines) + "\n")
        data = 'train = "data.tsv"\nimage = "file"\nlabel = "label"\nvalidation = 0.2\ntest = 0.2\n'
        common = f'batch = 8\nthreads = 1\n[data]\n{data}'
        runs = {
            "f32": f'output = "f32"\n{common}[network.shape]{shape}[plan]\nscheme = "f32"\n'
            '[[stage]]\nname = "tune"\nepochs = 3\nlearning-rate = 1e-2\n',
            # Scalar groups are quantized at the end, whatever the stages are.
            "codes": f'model = "f32/model.centroid"\noutput = "codes"\n{common}[plan]\n{plan}\n'
            '[[stage]]\nname = "codes"\nepochs = 0\n'
            + ("" if "scheme" in plan else 'quantize = ["blocks.0-2", "features.weight"]\n'),
        }
        for name, text in runs.items():
            (folder / f"{name}.toml").write_text(text)
            subprocess.run([centroid, "train", folder / f"{name}.toml"], check=True)
        artifact.write_bytes((folder / "codes/model.centroid").read_bytes())


def main():
    centroid, out = map(pathlib.Path, sys.argv[1:])
    for name, (shape, plan) in CASES.items():
        artifact = out / f"{name}.centroid"
        if not artifact.exists():
            make(centroid, shape, plan, artifact)
        model = load(artifact)
        network, count = Network(model), 3
        logits = [[round(float(v), 7) for v in network(x)] for x in images(model.config["size"], count)]
        (out / f"{name}.json").write_text(json.dumps({"images": count, "logits": logits}) + "\n")
        schemes = sorted({tensor.scheme for tensor in model.tensors.values()})
        print(f"{name}: {artifact.stat().st_size} bytes, {', '.join(schemes)}")


main()

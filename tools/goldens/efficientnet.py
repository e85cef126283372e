#!/usr/bin/env python3
"""Writes what EfficientNets of timm and efficientnet-pytorch answer, with weights that anyone can make.

    pip install -r tools/goldens/requirements.txt
    python tools/goldens/efficientnet.py tests/data/efficientnet

One JSON file a network:

    network, size, labels
    tensors   [name, shape, offset, scale]: element i of tensor t is offset + scale * u(t, i)
    images    number of images; element i of image k is 2 u(1000000 + k, i)
    logits    one row an image, in float64

u(t, i) is in [-1, 1): the upper 24 bits of splitmix64's output for the state (t << 32) + i, divided by
2^23, minus 1. Weights keep the variance of what they get about the same, and batch norms are far from doing
nothing. Images are `[height][width][3]`. NAME.config.json is what timm writes beside a network's weights.
"""

import argparse
import json
import pathlib
import tempfile

import numpy
import torch
from read_centroid import uniform


def scale(name, tensor):
    if tensor.ndim >= 2:
        inputs = tensor[0].numel()
        return 0.0, float(f"{(6 / inputs) ** 0.5:.6g}")
    if name.endswith("running_var"):
        return 1.0, 0.5
    if name.endswith("weight"):
        return 1.0, 0.3
    return 0.0, 0.3


def golden(model, network, size, labels, images=2):
    model = model.eval()
    tensors = []
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        offset, factor = scale(name, tensor)
        values = offset + factor * uniform(len(tensors), tensor.numel())
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(values.astype(numpy.float32)).reshape(tensor.shape))
        tensors.append([name, list(tensor.shape), offset, factor])
    model = model.double()
    logits = []
    for image in range(images):
        values = 2 * uniform(1000000 + image, size * size * 3)
        x = torch.from_numpy(values.astype(numpy.float32)).double().reshape(1, size, size, 3)
        with torch.no_grad():
            logits.append(model(x.permute(0, 3, 1, 2))[0])
    return {
        "network": network,
        "size": size,
        "labels": labels,
        "tensors": tensors,
        "images": images,
        "logits": [[float(f"{value:.9g}") for value in row.tolist()] for row in logits],
    }


def write(path, golden):
    parts = []
    for key, value in golden.items():
        if isinstance(value, list):
            parts.append(f"{json.dumps(key)}: [\n" + ",\n".join(map(json.dumps, value)) + "\n]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def main():
    import timm
    from efficientnet_pytorch import EfficientNet
    from timm.models import save_for_hf

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for variant, size in ("b0", 67), ("b1", 96):
        name = f"efficientnet-{variant}"
        model = EfficientNet.from_name(name, image_size=size, num_classes=7)
        write(out / f"{name}.json", golden(model, name, size, 7))
    for name, size in ("tf_efficientnet_lite0", 65), ("efficientnet_b0", 63), ("tf_efficientnet_b2", 50):
        model = timm.create_model(name, pretrained=False, num_classes=5)
        write(out / f"{name}.json", golden(model, name, size, 5))
        # What timm writes beside the weights.
        with tempfile.TemporaryDirectory() as folder:
            save_for_hf(model, folder, {"label_names": ["ant", "bee", "cow", "dog", "elk"]})
            (out / f"{name}.config.json").write_text((pathlib.Path(folder) / "config.json").read_text() + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes what EfficientNets of timm and efficientnet-pytorch answer, with weights that anyone can make.

    pip install -r tools/goldens/requirements.txt
    pip download --no-deps --no-binary fairseq fairseq==0.12.2 && tar xf fairseq-0.12.2.tar.gz
    python tools/goldens/efficientnet.py tests/data/efficientnet --fairseq fairseq-0.12.2

One JSON file a network:

    network, size, labels
    tensors   [name, shape, offset, scale]: element i of tensor t is offset + scale * u(t, i)
    images    number of images; element i of image k is 2 u(1000000 + k, i)
    logits    one row an image, in float64

u(t, i) is in [-1, 1): the upper 24 bits of splitmix64's output for the state (t << 32) + i, divided by
2^23, minus 1. Of `assignments`, which are int64, it is floor(scale * (1 + u(t, i)) / 2). Weights keep the variance of what they get about the same, and batch norms are far from doing
nothing. `NAME-ipq.json` is of networks whose layers are fairseq's PQConv2d and PQLinear: their weights are what
these decode. Images are `[height][width][3]`. NAME.config.json is what timm writes beside a network's weights.
"""

import argparse
import importlib.util
import json
import math
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


def drawn(tensors, name, shape, offset, factor):
    values = offset + factor * uniform(len(tensors), math.prod(shape))
    tensors.append([name, list(shape), offset, factor])
    return torch.from_numpy(values.astype(numpy.float32)).reshape(list(shape))


def quantized(fairseq):
    """fairseq's two kinds of quantized layers, read alone: its package asks for much that is not needed here."""
    found = []
    for file, kind in ("qconv", "PQConv2d"), ("qlinear", "PQLinear"):
        path = fairseq / f"fairseq/modules/quantization/pq/modules/{file}.py"
        spec = importlib.util.spec_from_file_location(file, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found.append(getattr(module, kind))
    return found


def decoded(tensors, name, layer, kinds):
    """The weight of a layer that fairseq has quantized, whose centroids and codes are drawn."""
    shape = layer.weight.shape
    inputs = layer.weight[0].numel()
    spatial = math.prod(shape[2:])
    # Filters as a whole; else four inputs, or as many as divide them.
    block = spatial if spatial > 1 else math.gcd(inputs, 4)
    k = 8 if shape[1] == 3 else 16 if spatial > 1 else 32
    offset, factor = scale(name, layer.weight)
    centroids = drawn(tensors, f"{name}.centroids", [k, block], offset, factor)
    count = shape[0] * inputs // block
    codes = numpy.floor(k * (1 + uniform(len(tensors), count)) / 2).astype(numpy.int64)
    tensors.append([f"{name}.assignments", [count], 0.0, k])
    drawn(tensors, f"{name}.counts", [k], 0.0, 0.0)
    codes = torch.from_numpy(codes)
    if len(shape) == 2:
        return kinds[1](centroids, codes, None, shape[1], shape[0]).weight
    channels = layer.in_channels, layer.out_channels, layer.kernel_size
    return kinds[0](centroids, codes, None, *channels, groups=layer.groups).weight


def golden(model, network, size, labels, images=2, kinds=None):
    model = model.eval()
    layers = dict(model.named_modules())
    tensors = []
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        layer = name.removesuffix(".weight")
        if kinds and layer != name and tensor.ndim >= 2:
            values = decoded(tensors, layer, layers[layer], kinds)
        else:
            # Some factors of batch norms are below 0, as in trained networks.
            of = (0.6, 1.2) if kinds and name.endswith("weight") else scale(name, tensor)
            values = drawn(tensors, name, tensor.shape, *of)
        with torch.no_grad():
            tensor.copy_(values)
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
    parser.add_argument("--fairseq", type=pathlib.Path, help="its sources, for networks that it has quantized")
    flags = parser.parse_args()
    out = flags.out
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
    if flags.fairseq:
        kinds = quantized(flags.fairseq)
        model = EfficientNet.from_name("efficientnet-b0", image_size=67, num_classes=7)
        write(out / "efficientnet-b0-ipq.json", golden(model, "efficientnet-b0", 67, 7, kinds=kinds))
        model = timm.create_model("efficientnet_b0", pretrained=False, num_classes=5)
        write(out / "efficientnet_b0-ipq.json", golden(model, "efficientnet_b0", 63, 5, kinds=kinds))


if __name__ == "__main__":
    main()

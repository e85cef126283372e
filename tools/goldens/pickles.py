#!/usr/bin/env python3
"""Writes files of `torch.save` in every layout that is read, and what they hold.

    pip install -r tools/goldens/requirements.txt
    python tools/goldens/pickles.py tests/data/torch

`NAME.pt` is read as the tensors of `expected.safetensors`: of every type, transposed, sliced, of
one storage, empty and without dimensions; `negated.pt` holds views that torch negates when it reads them. `bert-model*.bin` hold the weights of
tests/data/checkpoints/bert-model.
"""

import argparse
import collections
import pathlib

import numpy
import safetensors.torch
import torch

BERT = pathlib.Path(__file__).resolve().parents[2] / "tests/data/checkpoints/bert-model/model.safetensors"


def tensors():
    numbers = torch.Generator().manual_seed(1)
    base = torch.randn(7, 12, generator=numbers)
    return collections.OrderedDict(
        [
            ("plain", base),
            ("transposed", base.t()),
            ("rows", base[2:5]),
            ("columns", base[:, 3:11:2]),
            ("permuted", torch.randn(2, 3, 4, 5, generator=numbers).permute(3, 1, 0, 2)),
            ("parameter", torch.nn.Parameter(torch.randn(3, generator=numbers))),
            ("half", torch.randn(4, 3, generator=numbers).half().t()),
            ("bfloat", torch.randn(4, 3, generator=numbers).bfloat16()),
            ("double", torch.randn(5, generator=numbers).double()),
            ("scalar", torch.tensor(2.5)),
            ("empty", torch.zeros(0, 4)),
            ("one row", torch.randn(6, generator=numbers).expand(1, 6)),
            ("steps", torch.tensor(1234567890123)),
            ("codes", torch.arange(24).reshape(4, 6).t()),
            ("bytes", torch.arange(10, dtype=torch.uint8)),
        ]
    )


def training():
    """What a training program keeps: weights among other things."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "args": argparse.Namespace(arch="roberta_base", layers=12, dropout=0.1, cpu=False, path=None),
        "epoch": 3,
        "best": numpy.float64(0.25),
        "optimizer": optimizer.state_dict(),
        "seen": {1, 2},
        "device": torch.device("cpu"),
        "dtype": torch.float32,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    weights = tensors()
    state = torch.nn.Module()
    contiguous = {name: tensor.detach().contiguous().clone() for name, tensor in weights.items()}
    safetensors.torch.save_file(contiguous, out / "expected.safetensors")
    old = {"_use_new_zipfile_serialization": False}
    torch.save(weights, out / "zip.pt")
    torch.save(weights, out / "legacy.pt", **old)
    torch.save(weights, out / "protocol4.pt", pickle_protocol=4)
    torch.save(weights, out / "legacy4.pt", pickle_protocol=4, **old)
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    torch.save({**training(), "model": {"state_dict": wrapped}}, out / "nested.pt")
    worse = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    torch.save({**training(), "state_dict": worse, "state_dict_ema": weights}, out / "ema.pt", **old)
    # An ordered dictionary with attributes, as state_dict() makes it.
    state.register_buffer("x", torch.ones(2))
    torch.save(state.state_dict(), out / "metadata.pt")
    # Views whose values are not those of their storage.
    numbers = torch.tensor([1 + 2j, 3 - 4j])
    views = {"plain": torch.ones(2), "negated": torch._neg_view(torch.ones(2)), "imaginary": numbers.conj().imag}
    torch.save(views, out / "negated.pt")
    bert = safetensors.torch.load_file(BERT)
    torch.save(bert, out / "bert-model.bin")
    torch.save(bert, out / "bert-model-legacy.bin", **old)


if __name__ == "__main__":
    main()

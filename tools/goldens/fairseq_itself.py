#!/usr/bin/env python3
"""Writes a RoBERTa classifier that fairseq's own code made and quantized, with the answers that fairseq gives
for it: `fairseq-0.12` among the checkpoints.

    pip download --no-deps --no-binary fairseq fairseq==0.12.2 && tar xf fairseq-0.12.2.tar.gz
    pip install torch==2.13.0 numpy tqdm
    pip install --no-deps omegaconf==2.0.6 hydra-core==1.0.7 antlr4-python3-runtime==4.8 PyYAML cffi pycparser \\
        bitarray regex sacrebleu portalocker tabulate colorama lxml
    python tools/goldens/fairseq_itself.py fairseq-0.12.2 tests/data/checkpoints

Model, K-means, codes, names and arguments are fairseq's; weights are drawn. The vocabulary is that of
`fairseq-ipq`. fairseq is read from its sources: nothing of what it compiles is needed here, and its
dependencies of that time would not be installed by a newer pip.
"""

import argparse
import dataclasses
import json
import pathlib
import shutil
import sys

import torch

ARGUMENTS = {
    "arch": "roberta_base",
    "task": "sentence_prediction",
    "criterion": "sentence_prediction",
    "data": ".",
    "optimizer": "adam",
    "lr_scheduler": "fixed",
    "encoder_layers": 2,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 80,
    "encoder_attention_heads": 4,
    "max_positions": 128,
    "tokens_per_sample": 128,
    "num_classes": 2,
    "classification_head_name": "reviews",
}
# The order and the sizes of its example, with fewer centroids.
STAGES = [
    r"encoder\.sentence_encoder\.layers\.\d+\.fc[12]$",
    r"encoder\.sentence_encoder\.embed_tokens$",
    r"encoder\.sentence_encoder\.layers\.\d+\.self_attn\.([kqv]|out)_proj$",
    r"classification_heads\.reviews\.(dense|out_proj)$",
]
BLOCKS = {
    "Linear": ("fuzzy_name", {"fc": 8, "attn": 4, "classification_heads": 4}),
    "Embedding": ("fuzzy_name", {"emb": 8}),
}
CENTROIDS = {"Linear": ("fuzzy_name", {"*": 12}), "Embedding": ("fuzzy_name", {"emb": 24})}


def hashable():
    """Python 3.11 and later refuse default values of classes without a hash, of which fairseq has many."""
    make = dataclasses.dataclass

    def dataclass(cls=None, /, **options):
        if cls is None:
            return lambda cls: dataclass(cls, **options)
        if cls.__module__.startswith(("fairseq", "hydra")):
            options.setdefault("unsafe_hash", True)
        return make(cls, **options)

    dataclasses.dataclass = dataclass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=pathlib.Path)
    parser.add_argument("root", type=pathlib.Path)
    flags = parser.parse_args()
    hashable()
    sys.path.insert(0, str(flags.sources.resolve()))
    from fairseq.data import Dictionary
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.models.roberta import RobertaModel
    from fairseq.models.roberta.model import base_architecture
    from fairseq.modules.quantization.pq import SizeTracker, quantize_model_
    from omegaconf import OmegaConf

    vocabulary, folder = flags.root / "fairseq-ipq", flags.root / "fairseq-0.12"
    dictionary = Dictionary.load(str(vocabulary / "dict.txt"))
    dictionary.add_symbol("<mask>")
    arguments = argparse.Namespace(**ARGUMENTS)
    base_architecture(arguments)
    torch.manual_seed(7)
    model = RobertaModel.build_model(arguments, argparse.Namespace(source_dictionary=dictionary))
    model.register_classification_head("reviews", num_classes=2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                deviation = 0.3 if "embed" in name else 1.5 * weight.shape[1] ** -0.5
                weight.copy_(deviation * torch.randn_like(weight))
            elif "norm" in name:
                weight.add_(0.1 * torch.randn_like(weight))
            else:
                weight.copy_(0.1 * torch.randn_like(weight))
    model.eval()
    tracker = SizeTracker(model)
    for step in range(len(STAGES)):
        quantize_model_(model, tracker, STAGES, BLOCKS, CENTROIDS, step=step, verbose=False)

    folder.mkdir(parents=True, exist_ok=True)
    for file in "encoder.json", "dict.txt", "vocab.bpe":
        shutil.copy(vocabulary / file, folder / file)
    # What fairseq's trainer saves, without the optimizer.
    cfg = OmegaConf.to_container(convert_namespace_to_omegaconf(arguments), resolve=True, enum_to_str=True)
    saved = {"args": None, "cfg": cfg, "model": model.state_dict(), "criterion": None, "optimizer_history": [],
             "task_state": {}, "extra_state": {"epoch": 3}}
    torch.save(saved, folder / "model.pt")

    inputs = [entry for entry in json.loads((vocabulary / "golden.json").read_text())["inputs"] if not entry["pair"]]
    logits = []
    with torch.no_grad():
        for entry in inputs:
            answer, _ = model(torch.tensor([entry["ids"]]), features_only=True, classification_head_name="reviews")
            logits.append([float(f"{value:.9g}") for value in answer[0].tolist()])
    lines = lambda rows: ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "golden.json").write_text(
        f'{{\n"kind": "classifier",\n"inputs": [\n{lines(inputs)}\n],\n"logits": [\n{lines(logits)}\n]\n}}\n'
    )


if __name__ == "__main__":
    main()

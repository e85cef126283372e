#!/usr/bin/env python3
"""Writes RoBERTa checkpoints as fairseq leaves them, with the answers a converter and a runtime
must give for them.

    pip install -r tools/goldens/requirements.txt
    python tools/goldens/fairseq.py tests/data/checkpoints

Both are made of the weights of `roberta-seq` there, in the layouts of fairseq's own code:

    fairseq-roberta   a version before 0.10: `decoder.sentence_encoder`, one tensor for query, key
                      and value, and the product that quantization noise puts behind the
                      embeddings (the tables are such that it changes nothing)
    fairseq-ipq       a newer version after its iPQ: `centroids`, `assignments` (block-major) and
                      `counts` in place of every weight; the answers are those of the decoded
                      weights
"""

import argparse
import json
import pathlib

import numpy
import torch
import transformers
from checkpoints import BPE_SPECIALS, PAIRS, SINGLES, answers, byte_bpe, text_of, write_golden

LAYER = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "output.LayerNorm": "final_layer_norm",
}


def load(root):
    model = transformers.RobertaForSequenceClassification.from_pretrained(root / "roberta-seq")
    model.set_attn_implementation("eager")
    return model.float()


def fairseq_name(name, prefix, norm):
    stem, ending = name.rsplit(".", 1)
    if stem.startswith("roberta.encoder.layer."):
        layer, part = stem.removeprefix("roberta.encoder.layer.").split(".", 1)
        return f"{prefix}.layers.{layer}.{LAYER[part]}.{ending}"
    if stem.startswith("classifier."):
        return f"classification_heads.reviews.{stem.removeprefix('classifier.')}.{ending}"
    table = {"word_embeddings": "embed_tokens", "position_embeddings": "embed_positions", "LayerNorm": norm}
    return f"{prefix}.{table[stem.removeprefix('roberta.embeddings.')]}.{ending}"


def fairseq_names(state, prefix, norm):
    """Token types are one vector for all: in the table of positions, as fairseq has none."""
    state = dict(state)
    types = state.pop("roberta.embeddings.token_type_embeddings.weight")
    positions = "roberta.embeddings.position_embeddings.weight"
    state[positions] = state[positions] + types
    return {fairseq_name(name, prefix, norm): tensor.clone() for name, tensor in state.items()}


def fused(state, prefix, layers):
    for layer in range(layers):
        for ending in "weight", "bias":
            names = [f"{prefix}.layers.{layer}.self_attn.{part}_proj.{ending}" for part in "qkv"]
            state[f"{prefix}.layers.{layer}.self_attn.in_proj_{ending}"] = torch.cat([state.pop(name) for name in names])


def noised(state, prefix):
    """A product with `noise`, and tables of which it makes those that there were."""
    numbers = torch.Generator().manual_seed(3)
    width = state[f"{prefix}.embed_tokens.weight"].shape[1]
    noise = torch.eye(width).double() + 0.1 * torch.randn(width, width, generator=numbers).double()
    state[f"{prefix}.quant_noise.weight"] = noise.float()
    for table in "embed_tokens", "embed_positions":
        old = state[f"{prefix}.{table}.weight"].double()
        state[f"{prefix}.{table}.weight"] = (old @ torch.linalg.inv(noise.float().double()).T).float()


def quantized(name, weight, block, k):
    """fairseq's form of a weight, and the weight that it stands for. Any codes will do."""
    numbers = numpy.random.default_rng(sum(name.encode()))
    rows, columns = weight.shape
    # [blocks of a row][rows][block]: block-major.
    blocks = weight.numpy().reshape(rows, columns // block, block).transpose(1, 0, 2).reshape(-1, block)
    centroids = blocks[numbers.choice(len(blocks), k, replace=False)]
    distances = ((blocks[:, None] - centroids[None]) ** 2).sum(2)
    assignments = distances.argmin(1)
    decoded = centroids[assignments].reshape(columns // block, rows, block).transpose(1, 0, 2).reshape(rows, columns)
    parts = {
        "centroids": torch.from_numpy(centroids.copy()),
        "assignments": torch.from_numpy(assignments),
        "counts": torch.bincount(torch.from_numpy(assignments), minlength=k),
    }
    return parts, torch.from_numpy(decoded.copy())


def ipq(model):
    """Quantizes every matrix but the positions; returns what fairseq keeps of them by Hugging Face's names."""
    state, kept = model.state_dict(), {}
    for name, weight in state.items():
        if weight.ndim != 2 or "position" in name or "token_type" in name:
            continue
        block, k = (8, 32) if "word" in name else (4, 8 if weight.shape[0] < 8 else 32)
        parts, decoded = quantized(name, weight, block, k)
        kept[name] = parts
        weight.copy_(decoded)
    return kept


def write(folder, tokenizer, model, saved):
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    # fairseq's ids begin behind its special tokens, and are GPT-2's, under other numbers, in dict.txt.
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    tokens = [token for token, _ in vocab if token not in [*BPE_SPECIALS, "<mask>"]]
    numbers = numpy.random.default_rng(5).permutation(len(tokens)).tolist()
    (folder / "encoder.json").write_text(json.dumps(dict(zip(tokens, numbers))))
    (folder / "dict.txt").write_text("".join(f"{number} {len(tokens) - at}\n" for at, number in enumerate(numbers)))
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    (folder / "vocab.bpe").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    torch.save({**saved, "extra_state": {"epoch": 3}}, folder / "model.pt")
    limit = model.config.max_position_embeddings - 2
    inputs = [(text, None) for text in SINGLES]
    inputs += [(text_of(tokenizer, limit), None), *PAIRS]
    write_golden(folder / "golden.json", answers(model, tokenizer, "classifier", inputs, limit))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=pathlib.Path)
    root = parser.parse_args().root
    tokenizer, _ = byte_bpe()
    arguments = {"arch": "roberta_base", "encoder_attention_heads": 4, "activation_fn": "gelu", "encoder_layers": 3}

    model = load(root)
    prefix = "decoder.sentence_encoder"
    state = fairseq_names(model.state_dict(), prefix, "emb_layer_norm")
    fused(state, prefix, 3)
    noised(state, prefix)
    write(root / "fairseq-roberta", tokenizer, model, {"args": argparse.Namespace(**arguments), "model": state})

    model = load(root)
    prefix = "encoder.sentence_encoder"
    with torch.no_grad():
        kept = ipq(model)
    state = fairseq_names(model.state_dict(), prefix, "layernorm_embedding")
    for name, parts in kept.items():
        name = fairseq_name(name, prefix, "layernorm_embedding")
        del state[name]
        state.update({f"{name.removesuffix('.weight')}.{part}": tensor for part, tensor in parts.items()})
    state["encoder.lm_head.bias"] = torch.zeros(model.config.vocab_size)
    cfg = {"model": argparse.Namespace(**arguments), "task": {"_name": "sentence_prediction"}}
    write(root / "fairseq-ipq", tokenizer, model, {"args": None, "cfg": cfg, "model": state})


if __name__ == "__main__":
    main()

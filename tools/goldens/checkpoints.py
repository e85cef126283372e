#!/usr/bin/env python3
"""Writes the small checkpoints under tests/data/checkpoints, with the answers
a converter and a runtime must give for them.

    pip install -r tools/goldens/requirements.txt
    python tools/goldens/checkpoints.py tests/data/checkpoints

One directory a checkpoint, as `save_pretrained` would leave it (config.json,
weights, tokenizer), plus golden.json:

    kind        "classifier" or "encoder"
    inputs      [{text, pair (null or a second text), ids, type_ids}]
    logits      classifiers: one row an input, before any softmax or sigmoid
    last_hidden_mean, last_hidden_cls, last_hidden_max
                encoders: the last layer's output pooled over an input's tokens,
                special tokens included
    embedding   sentence encoders too: pooled as 1_Pooling says, L2 norm 1

Answers are computed one input at a time, without padding, in float64, from the
weights as stored (so from rounded ones where the file holds f16 or bf16).

The weights are random and larger than a fresh model's (each linear layer raises
the variance of its input a little; LayerNorm scales and biases are away from 1
and 0), so that a dropped bias, a wrong activation or a wrong
epsilon shows. Sizes are odd on purpose: no multiples of 8 or 64 where the
architecture leaves the choice. A run repeats byte for byte.
"""

import argparse
import collections
import json
import pathlib
import shutil

import numpy as np
import safetensors.torch
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors

# What the tokenizers are built from, and where the long inputs' words come from.
CORPUS = """
the quick brown fox jumps over the lazy dog and runs away into the wood
a film that is not good but not bad either was shown in a small town last night
she said that he had read the book twice and would never read it again
we like the music and the actors but the story takes too long to end
it was the best of times it was the worst of times
this is one of those rare things which work well and cost nothing
you can find a better one for less money in any other shop near here
how much wood would a wood cutter cut if a wood cutter could cut wood
all happy families are alike every unhappy family is unhappy in its own way
"""

# Inputs of every checkpoint: empty, one word, plain, cased and punctuated,
# accents, scripts and symbols outside the vocabulary, white space of all kinds.
SINGLES = [
    "",
    "film",
    "It was the best, it was the WORST!",
    "Crème brûlée: 3.14 \u20ac",
    "漢字 😀 \u0645 e\u0301\u0301",
    "👩\u200d💻",
    " \t two\u00a0spaces \u3000 and\n ",
]
PAIRS = [
    ("the story is too long", "It was not good."),
    ("", "how much wood?"),
]

WORDPIECE_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BPE_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]


def wordpiece(size=300):
    """An uncased BERT tokenizer: letters, the corpus's words, then its word
    ends, most frequent first."""
    words = collections.Counter(CORPUS.split())
    tails = collections.Counter()
    for word, count in words.items():
        for at in range(1, len(word) - 1):
            tails["##" + word[at:]] += count
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789")
    vocab = WORDPIECE_SPECIALS + list(".,!?'-:") + letters + ["##" + c for c in letters]
    for counter in (words, tails):
        vocab += sorted(counter, key=lambda piece: (-counter[piece], piece))
    vocab = list(dict.fromkeys(vocab))[:size]

    ids = {piece: at for at, piece in enumerate(vocab)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    tokenizer.add_special_tokens(WORDPIECE_SPECIALS)
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    return tokenizer, settings


def byte_bpe(merges=60):
    """A RoBERTa tokenizer: the 256 bytes and the corpus's most frequent merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = collections.Counter()
    for line in CORPUS.strip().split("\n"):
        for at, word in enumerate(line.split()):
            words[("Ġ" if at else "") + word] += 1
    pieces = {word: list(word) for word in words}
    rules = []
    for _ in range(merges):
        pairs = collections.Counter()
        for word, parts in pieces.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        rules.append(best)
        for parts in pieces.values():
            at = 0
            while at + 1 < len(parts):
                if (parts[at], parts[at + 1]) == best:
                    parts[at : at + 2] = ["".join(best)]
                at += 1
    vocab = BPE_SPECIALS + alphabet + ["".join(rule) for rule in rules] + ["<mask>"]
    ids = {piece: at for at, piece in enumerate(dict.fromkeys(vocab))}

    tokenizer = Tokenizer(models.BPE(ids, rules, fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    tokenizer.add_special_tokens(BPE_SPECIALS)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    settings = {
        "tokenizer_class": "RobertaTokenizer",
        "add_prefix_space": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "mask_token": "<mask>",
    }
    return tokenizer, settings


def text_of(tokenizer, length):
    """Words of the corpus that make exactly `length` ids."""
    words = []
    for word in CORPUS.split():
        if len(tokenizer.encode(" ".join(words + [word])).ids) > length - 4:
            break
        words.append(word)
    while len(tokenizer.encode(" ".join(words)).ids) < length:
        words.append("a")  # one id in both tokenizers
    text = " ".join(words)
    assert len(tokenizer.encode(text).ids) == length
    return text


def randomize(model, seed):
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = rng.standard_normal(tuple(weight.shape))
            if "LayerNorm" in name and name.endswith("weight"):
                value = 1.0 + 0.3 * noise
            elif weight.ndim == 1:
                value = 0.3 * noise
            elif "embeddings" in name:
                value = (1.0 if "word" in name else 0.4) * noise
            else:
                # Attention and heads get more, or the first token's own vector
                # would drown what it reads from the others.
                gain = 1.3 if "dense" in name and "attention" not in name else 2.2
                value = gain / np.sqrt(weight.shape[1]) * noise
            weight.copy_(torch.from_numpy(value))


def answers(model, tokenizer, kind, inputs, position_limit, max_length=None):
    """golden.json of `model`, for (text, pair) inputs."""
    model = model.double().eval()
    if max_length is not None:
        tokenizer.enable_truncation(max_length)
    golden = {"kind": kind, "inputs": []}
    rows = collections.defaultdict(list)
    for text, pair in inputs:
        encoded = tokenizer.encode(text, pair)
        assert len(encoded.ids) <= position_limit, (text, len(encoded.ids))
        golden["inputs"].append(
            {"text": text, "pair": pair, "ids": encoded.ids, "type_ids": encoded.type_ids}
        )
        with torch.no_grad():
            output = model(
                input_ids=torch.tensor([encoded.ids]),
                token_type_ids=torch.tensor([encoded.type_ids]),
            )
        if kind == "classifier":
            rows["logits"].append(output.logits[0])
        else:
            hidden = output.last_hidden_state[0]
            rows["last_hidden_mean"].append(hidden.mean(0))
            rows["last_hidden_cls"].append(hidden[0])
            rows["last_hidden_max"].append(hidden.max(0).values)
    if max_length is not None:
        tokenizer.no_truncation()
    for key, values in rows.items():
        golden[key] = [[float(f"{x:.9g}") for x in row.tolist()] for row in values]
    return golden


def write_json(path, value, indent=2):
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    path.write_text(text + "\n", encoding="utf-8")


def write_golden(path, golden):
    """One line an input and one a row: small, and readable in a diff."""
    parts = []
    for key, value in golden.items():
        if isinstance(value, list):
            lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in value)
            parts.append(f"{json.dumps(key)}: [\n{lines}\n]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def write_tokenizer(folder, tokenizer, settings, max_length):
    # Compact: a pretty-printed vocabulary is three times the size.
    (folder / "tokenizer.json").write_text(tokenizer.to_str() + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", settings | {"model_max_length": max_length})


def bert_config(vocab, **changes):
    settings = dict(
        vocab_size=vocab,
        hidden_size=36,
        num_attention_heads=3,
        num_hidden_layers=1,
        intermediate_size=70,
        max_position_embeddings=40,
        hidden_act="gelu",
    )
    return transformers.BertConfig(**(settings | changes))


def roberta_config(vocab, **changes):
    settings = dict(
        vocab_size=vocab,
        hidden_size=48,
        num_attention_heads=4,
        num_hidden_layers=3,
        intermediate_size=100,
        max_position_embeddings=34,  # two are lost to the padding id: 32 tokens
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        layer_norm_eps=1e-5,
    )
    return transformers.RobertaConfig(**(settings | changes))


def labels(*names):
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: at for at, name in enumerate(names)},
    }


class Writer:
    """Writes one checkpoint after another below `root`."""

    def __init__(self, root):
        self.root = root
        self.seed = 20

    def folder(self, name):
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def checkpoint(
        self, name, kind, model_class, config, tokenizer, settings, *,
        extra=(), dtype=torch.float32, save=None, seed=None,
    ):
        """`extra` adds single texts to the inputs; `save(model, folder)` replaces
        save_pretrained."""
        roberta = config.model_type == "roberta"
        tokens = config.max_position_embeddings - (2 if roberta else 0)
        if seed is None:
            self.seed += 1
            seed = self.seed
        folder = self.folder(name)
        model = model_class(config)
        model.set_attn_implementation("eager")
        randomize(model, seed)
        model = model.to(dtype)
        config.dtype = str(dtype).removeprefix("torch.")
        if save is None:
            model.save_pretrained(folder)
        else:
            save(model, folder)
        write_tokenizer(folder, tokenizer, settings, tokens)

        inputs = [(text, None) for text in SINGLES + list(extra)]
        inputs.append((text_of(tokenizer, tokens), None))
        inputs.append((text_of(tokenizer, tokens - 1), None))
        if kind == "classifier":
            inputs += PAIRS
        encoder = model.bert if hasattr(model, "bert") and kind == "encoder" else model
        golden = answers(encoder, tokenizer, kind, inputs, tokens)
        write_golden(folder / "golden.json", golden)
        return folder, encoder


def save_old_names(model, folder):
    """As the first BERT checkpoints were: LayerNorm.gamma and .beta, and the
    positions 0, 1, 2, ... as a tensor."""
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor.contiguous()
        for name, tensor in model.state_dict().items()
    }
    positions = torch.arange(model.config.max_position_embeddings)
    state["bert.embeddings.position_ids"] = positions[None].contiguous()
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)


def save_shards(model, folder):
    model.save_pretrained(folder, max_shard_size="40KB")
    assert (folder / "model.safetensors.index.json").exists()


def sentence_encoder(writer, name, mode, normalize):
    """A sentence-transformers directory. Its tokenizer.json carries truncation
    and fixed padding of its own (16), as all-MiniLM-L6-v2's does: what counts is
    sentence_bert_config.json (24, less than the model's 40 positions)."""
    max_length = 24
    tokenizer, settings = wordpiece()
    config = bert_config(
        tokenizer.get_vocab_size(), hidden_size=28, num_attention_heads=4, intermediate_size=52
    )
    # One seed: the three differ in pooling alone.
    folder, model = writer.checkpoint(
        name, "encoder", transformers.BertModel, config, tokenizer, settings, seed=7
    )
    texts = SINGLES + [
        text_of(tokenizer, 20),  # over tokenizer.json's limit, within the real one
        text_of(tokenizer, max_length),
        text_of(tokenizer, 37),  # over the real limit: 24 ids are left
    ]
    golden = answers(
        model, tokenizer, "encoder", [(text, None) for text in texts],
        config.max_position_embeddings, max_length,
    )
    pooled = np.array(golden[f"last_hidden_{mode}"])
    if normalize:
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    golden["embedding"] = [[float(f"{x:.9g}") for x in row] for row in pooled]
    write_golden(folder / "golden.json", golden)

    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16, pad_id=0, pad_token="[PAD]")
    write_tokenizer(folder, tokenizer, settings, config.max_position_embeddings)
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": max_length, "do_lower_case": False},
    )
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    if normalize:
        modules.append(("2_Normalize", "Normalize"))
    write_json(
        folder / "modules.json",
        [
            {"idx": at, "name": str(at), "path": path,
             "type": f"sentence_transformers.models.{kind}"}
            for at, (path, kind) in enumerate(modules)
        ],
    )
    (folder / "1_Pooling").mkdir()
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": config.hidden_size,
            "pooling_mode_cls_token": mode == "cls",
            "pooling_mode_mean_tokens": mode == "mean",
            "pooling_mode_max_tokens": mode == "max",
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=pathlib.Path, metavar="OUT_DIR")
    writer = Writer(parser.parse_args().out)
    transformers.utils.logging.disable_progress_bar()

    classify = transformers.BertForSequenceClassification
    tokenizer, settings = wordpiece()
    vocab = tokenizer.get_vocab_size()

    def bert(name, kind, model_class, extra=(), dtype=torch.float32, save=None, **changes):
        config = bert_config(vocab, **changes)
        writer.checkpoint(
            name, kind, model_class, config, tokenizer, settings,
            extra=extra, dtype=dtype, save=save,
        )

    moods = labels("against", "neutral", "in favour")
    bert("bert-gelu", "classifier", classify, num_hidden_layers=2, **moods)
    bert("bert-relu", "classifier", classify, hidden_act="relu",
         hidden_size=40, num_attention_heads=5, intermediate_size=67, **moods)
    bert("bert-silu", "classifier", classify, hidden_act="silu", **moods)
    bert("bert-gelu_new", "classifier", classify, hidden_act="gelu_new", **moods)
    bert("bert-gelu_pytorch_tanh", "classifier", classify,
         hidden_act="gelu_pytorch_tanh", **moods)
    bert("bert-multilabel", "classifier", classify,
         problem_type="multi_label_classification",
         **labels("toxic", "insult", "threat", "spam", "praise"))
    bert("bert-gamma", "classifier", classify, dtype=torch.float16,
         save=save_old_names, **moods)
    bert("bert-bf16", "classifier", classify, dtype=torch.bfloat16, **moods)
    bert("bert-sharded", "classifier", classify, save=save_shards, **moods)
    bert("bert-model", "encoder", transformers.BertModel, extra=["a [PAD] [MASK] good film"])
    bert("bert-mlm", "encoder", transformers.BertForMaskedLM)
    bert("bert-wide", "encoder", transformers.BertModel, dtype=torch.float16,
         hidden_size=136, num_attention_heads=2, intermediate_size=300)

    for name, mode in [("sbert", "mean"), ("sbert-cls", "cls"), ("sbert-max", "max")]:
        sentence_encoder(writer, name, mode, normalize=name == "sbert")

    tokenizer, settings = byte_bpe()
    vocab = tokenizer.get_vocab_size()
    classify = transformers.RobertaForSequenceClassification
    for name, kind, model_class, extra, changes in [
        ("roberta-seq", "classifier", classify, [], labels("negative", "positive")),
        ("roberta-regression", "classifier", classify, [],
         {"num_labels": 1, "problem_type": "regression", "num_hidden_layers": 1}),
        # A <pad> in the text takes no position: the reference numbers positions
        # by "id is not the padding id".
        ("roberta-model", "encoder", transformers.RobertaModel,
         ["a <pad> good<mask> film"], {"num_hidden_layers": 2}),
    ]:
        writer.checkpoint(
            name, kind, model_class, roberta_config(vocab, **changes),
            tokenizer, settings, extra=extra,
        )


if __name__ == "__main__":
    main()

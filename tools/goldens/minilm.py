#!/usr/bin/env python3
"""Writes tests/data/minilm: what the real all-MiniLM-L6-v2 answers for 320 real
sentences and 40 hostile ones.

    tools/fetch-minilm && tools/fetch-reviews
    pip install -r tools/goldens/requirements.txt
    python tools/goldens/minilm.py tests/data/minilm

    lines.json       the texts: 160 sentences, the hostile lines, 160 sentences,
                     and two long texts, one within 512 ids and one beyond
    ids.json         their token ids, [CLS] and [SEP] included; a text of more
                     than 512 ids is cut to 512, the [SEP] kept
    embeddings.f32   of the first 200 lines: little-endian f32 [200][384], the
                     mean over all tokens, L2 norm 1, computed one text at a
                     time in float64; none of these lines has over 256 tokens,
                     where sentence-transformers would cut

These sentences are held out: nothing that fits or calibrates weights may see
them. tools/calibration-text leaves them out of all it writes.

The sentences are from Hutto & Gilbert, "VADER: A Parsimonious Rule-based Model
for Sentiment Analysis of Social Media Text", ICWSM 2014 (MIT).
"""

import argparse
import hashlib
import json
import pathlib

import numpy as np
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / ".cache" / "minilm-l6-v2"
REVIEWS = ROOT / ".cache" / "reviews"
SETS = ["movie.tsv", "amazon.txt", "nyt.txt", "tweets.txt"]
FROM_EACH_SET = 80
EMBEDDED = 200
LIMIT = 512

HOSTILE = [
    "",
    " ",
    "\n\t\r\n",
    "\u0000",
    "a\u0000b\u0001c\u007fd",
    "\ufffd\ufffd",
    "\ufeffbyte order mark",
    "zero\u200bwidth\u200cand\u200djoiners\u2060",
    "no\u00a0break\u2007spaces\u202fand\u3000ideographic\u2003ones",
    "line\u2028and\u2029paragraph\u0085separators",
    "\u202eright to left override\u202c",
    "שלום עולם مرحبا بالعالم",
    "Здравствуй, мир! Γειά σου Κόσμε ΟΔΥΣΣΕΥΣ",
    "漢字かな交じり文、한국어 문장도.",
    "𠀀𪚥 beyond the basic plane",
    "हिन्दी ไทย ქართული አማርኛ",
    "😀👍🏽 👩\u200d👩\u200d👧\u200d👦 🇫🇷 1\ufe0f\u20e3",
    "Ångström A\u030angstro\u0308m café cafe\u0301 ﬁne ﬂow",
    "İstanbul ISTANBUL ısı ǅ ẞ straße",
    "Z̷̧̢̛͎͓a̶l̵̨g̸o̴ e\u0301\u0301\u0301\u0301\u0301",
    "½ ² ₃ Ⅷ ① ℃ № ™ ｆｕｌｌ ｗｉｄｔｈ",
    "€5 £6 ¥7 ₿8 ¢9 5% 6‰",
    "“quotes” ‘single’ «guillemets» „low“ — – ‒ … •",
    "[CLS] [SEP] [PAD] [UNK] [MASK]",
    "[cls] [MASK]ed x[SEP]y [ CLS ]",
    "##ing ## ##",
    "don't can't I'll 'tis rock'n'roll O'Neil's",
    "https://example.com/a_b?c=d&e=%20#f user@example.com C:\\dir\\file",
    "{\"json\": [1, 2.5e-3, null]} <b>html</b> &amp; `code` $x^2$",
    "'; DROP TABLE texts; --",
    "....!!!???---___***~~~",
    "MiXeD CaSe ALLCAPS camelCase snake_case kebab-case",
    "3.14159265358979 1,000,000 0xDEADBEEF 2024-02-29T23:59:60Z",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 99,
    "x" * 101,  # over 100 characters a word is one [UNK]
    "\ue000\uf8ff private, \U000e0041 tag, \ufdd0 no character",
    "\u00ad so\u00adft hy\u00adphens",
    # Over tokenizer.json's own limit of 128 tokens, which must not cut.
    " ".join(f"word{at} and" for at in range(40)),
    "the same word " * 60,
]


def sentences():
    """FROM_EACH_SET sentences a set, drawn by digest: the same on any machine."""
    drawn = []
    for name in SETS:
        lines = (REVIEWS / name).read_text(encoding="utf-8").split("\n")
        texts = dict.fromkeys(line.split("\t")[-1] for line in lines if line)
        order = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
        drawn.append(order[:FROM_EACH_SET])
    return [text for texts in zip(*drawn) for text in texts]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=pathlib.Path, metavar="OUT_DIR")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    transformers.utils.logging.disable_progress_bar()

    real = sentences()
    half = len(real) // 2
    lines = real[:half] + HOSTILE + real[half:]
    # Too long for an embedding that all would agree on; ids alone.
    lines += [" ".join(real[:14]), " ".join(real[:40])]
    assert half + len(HOSTILE) == EMBEDDED

    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    ids = [
        tokenizer(line, truncation=True, max_length=LIMIT, padding=False)["input_ids"]
        for line in lines
    ]
    model = transformers.AutoModel.from_pretrained(MODEL, attn_implementation="eager")
    model = model.double().eval()
    embeddings = np.empty((EMBEDDED, model.config.hidden_size), dtype="<f4")
    for at in range(EMBEDDED):
        assert len(ids[at]) <= 256, lines[at]
        with torch.no_grad():
            mean = model(input_ids=torch.tensor([ids[at]])).last_hidden_state[0].mean(0)
        embeddings[at] = (mean / mean.norm()).numpy()

    def rows(values):
        return "[\n" + ",\n".join(json.dumps(v, separators=(",", ":")) for v in values) + "\n]\n"

    (out / "lines.json").write_text(rows(lines), encoding="utf-8")
    (out / "ids.json").write_text(rows(ids), encoding="utf-8")
    (out / "embeddings.f32").write_bytes(embeddings.tobytes())


if __name__ == "__main__":
    main()

"""Reads tokenizer tables (sections of kind 18) with the standard library alone, from what
format-spec.md says: tokenizer(data) gives the `tokenizer.json` that they stand for, but for tokens
that no text can become.
"""

import struct

NONE = 0xFFFFFFFF
TEXTS = {NONE: "A", NONE - 1: "B"}
WORDPIECE, BYTE_LEVEL = 1, 2
HEAD = (
    "model flags id_limit unknown single pair added_raw added_normalized added_bytes entries "
    "bucket_bits token_bytes prefix_bytes max_chars"
).split()


class Invalid(Exception):
    """The tables break a rule of the format."""


def need(condition, message):
    if not condition:
        raise Invalid(f"tokenizer tables: {message}")


class Arrays:
    """Takes one array after another."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        need(size <= len(self.data) - self.at, "the section ends early")
        self.at += size
        return self.data[self.at - size : self.at]

    def numbers(self, code, count):
        return struct.unpack(f"<{count}{code}", self.take(struct.calcsize(code) * count))


def tokenizer(data):
    arrays = Arrays(data)
    head = dict(zip(HEAD, arrays.numbers("I", len(HEAD))))
    need(not any(arrays.take(8)), "reserved bytes are set")
    need(head["model"] in (WORDPIECE, BYTE_LEVEL), f"unknown model {head['model']}")
    need(1 <= head["bucket_bits"] <= 24 and head["entries"] <= 1 << 26, "limits")
    narrow = max(head["id_limit"], head["entries"]) <= 1 << 16
    width, entries = "H" if narrow else "I", head["entries"]

    templates = [arrays.numbers("I", 2 * head[name]) for name in ("single", "pair")]
    count = head["added_raw"] + head["added_normalized"]
    added = [arrays.numbers("I", 3) for _ in range(count)]
    buckets = arrays.numbers("I", (1 << head["bucket_bits"]) + 1)
    need(list(buckets) == sorted(buckets) and (buckets[0], buckets[-1]) == (0, entries), "buckets")
    if head["model"] == WORDPIECE:
        ends, ids = arrays.numbers("I", entries), arrays.numbers(width, entries)
        prefix, tokens = arrays.take(head["prefix_bytes"]), arrays.take(head["token_bytes"])
        model, symbols = wordpiece(head, buckets, ends, ids, prefix, tokens)
    else:
        of_bytes = arrays.numbers("I", 256)
        merges = [arrays.numbers(width, 4) for _ in range(entries)]
        model, symbols = byte_level(head, buckets, of_bytes, merges)
    contents = arrays.take(head["added_bytes"])
    need(arrays.at == len(data), "bytes after the last array")

    start, listed = 0, []
    for at, (token, end, flags) in enumerate(added):
        need(start < end <= len(contents), "the end of an added token")
        text = contents[start:end].decode("utf-8")
        symbols.setdefault(token, text)
        listed.append({
            "id": token, "content": text, "special": True, "normalized": at >= head["added_raw"],
            "single_word": bool(flags & 1), "lstrip": bool(flags & 2), "rstrip": bool(flags & 4),
        })  # fmt: skip
        start = end
    need(start == len(contents), "bytes that no added token matches")
    listed.sort(key=lambda token: token["id"])
    model["vocab"] = {symbol: token for token, symbol in symbols.items()}
    need(len(model["vocab"]) == len(symbols), "two ids of one token")
    need(max(symbols) < head["id_limit"], "an id of id_limit or more")
    if head["unknown"] != NONE:
        model["unk_token"] = symbols[head["unknown"]]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": listed,
        **parts(head), "post_processor": template(templates, symbols), "model": model,
    }  # fmt: skip


def wordpiece(head, buckets, ends, ids, prefix, tokens):
    symbols, start = {}, 0
    where = [at for at in range(len(buckets) - 1) for _ in range(buckets[at], buckets[at + 1])]
    for bucket, end, token in zip(where, ends, ids, strict=True):
        need(start < end <= len(tokens), "the end of a token")
        text, hashed = tokens[start:end], 0xCBF29CE484222325
        for byte in text:
            hashed = (hashed ^ byte) * 0x100000001B3 & (1 << 64) - 1
        need((hashed ^ hashed >> 32) & (1 << head["bucket_bits"]) - 1 == bucket, "a token's bucket")
        symbols[token] = text.decode("utf-8")
        start = end
    need(start == len(tokens), "bytes that are no token's")
    model = {"type": "WordPiece", "max_input_chars_per_word": head["max_chars"]}
    return model | {"continuing_subword_prefix": prefix.decode("utf-8")}, symbols


def byte_symbols():
    """The character that stands for each byte in GPT-2's vocabularies."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return [chr(byte if byte in shown else next(rest)) for byte in range(256)]


def byte_level(head, buckets, of_bytes, merges):
    symbols = {token: c for token, c in zip(of_bytes, byte_symbols()) if token != NONE}
    where = [at for at in range(len(buckets) - 1) for _ in range(buckets[at], buckets[at + 1])]
    by_rank = [None] * len(merges)
    for bucket, (left, right, result, rank) in zip(where, merges, strict=True):
        hashed = ((left << 32) + right) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
        need(hashed >> 64 - head["bucket_bits"] == bucket, "a merge's bucket")
        need(rank < len(merges) and by_rank[rank] is None, "a merge's rank")
        by_rank[rank] = (left, right, result)
    for left, right, result in by_rank:
        need(left in symbols and right in symbols, "a merge of what no merge gives")
        text = symbols[left] + symbols[right]
        need(symbols.setdefault(result, text) == text, "two merges with one result")
    pairs = [[symbols[left], symbols[right]] for left, right, _ in by_rank]
    return {"type": "BPE", "merges": pairs, "fuse_unk": bool(head["flags"] & 1 << 6)}, symbols


def parts(head):
    flag = lambda bit: bool(head["flags"] & 1 << bit)  # noqa: E731
    if head["model"] == BYTE_LEVEL:
        split = {
            "type": "ByteLevel", "add_prefix_space": flag(4), "trim_offsets": True,
            "use_regex": flag(5),
        }  # fmt: skip
        return {"normalizer": None, "pre_tokenizer": split, "decoder": {**split}}
    normalizer = {
        "type": "BertNormalizer", "clean_text": flag(0), "handle_chinese_chars": flag(1),
        "strip_accents": flag(2), "lowercase": flag(3),
    }  # fmt: skip
    return {"normalizer": normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": None}


def template(templates, symbols):
    special = {}

    def piece(token, kind):
        if token in TEXTS:
            return {"Sequence": {"id": TEXTS[token], "type_id": kind}}
        text = symbols[token]
        special[text] = {"id": text, "ids": [token], "tokens": [text]}
        return {"SpecialToken": {"id": text, "type_id": kind}}

    single, pair = ([piece(*both) for both in zip(t[::2], t[1::2])] for t in templates)
    return {
        "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special
    }  # fmt: skip

#!/usr/bin/env python3
"""Reads `.centroid` files with numpy alone, from what format-spec.md says and
nothing else: a second opinion on what the crate writes.

    python tools/goldens/read_centroid.py model.centroid
    python tools/goldens/read_centroid.py model.centroid --npz weights.npz
    python tools/goldens/read_centroid.py model.centroid --golden golden.json

The first checks the file (structure, checksums, the values' ranges) and lists
it; --npz also writes the dense weights; --golden also runs the model in
float64 over the inputs of a golden.json (see checkpoints.py, efficientnet.py
and artifacts.py), and prints the largest difference to its answers. A broken
file ends with status 1.

As a module: load(path) gives a Model, model.tensors[name].dense() a weight,
forward(model, ids, type_ids) an encoder's answer, and Network(model)(image) a
network's.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import struct
import sys

import numpy as np
import read_tables

NONE = 0xFFFFFFFF
OPTIONAL = 1

GROUPS = {
    1: "ffn", 2: "attention", 3: "embedding", 4: "position", 5: "head", 6: "other",
    7: "pointwise", 8: "depthwise", 9: "squeeze", 10: "stem", 11: "classifier",
}  # fmt: skip
LAYOUTS = {1: "vector", 2: "rows", 3: "tiles"}
SCHEMES = {1: "f32", 2: "f16", 3: "pq", 4: "int8", 5: "int4", 6: "split"}
F32, F16, CODES, CODEBOOK_INT8, CODEBOOK_F16, ROW_SCALES, INT8, INT4, ZERO_POINTS = range(1, 10)
TOKENIZER, LABELS, TABLES = 16, 17, 18
KINDS = {
    F32: "f32 values", F16: "f16 values", CODES: "codes", CODEBOOK_INT8: "int8 codebook",
    CODEBOOK_F16: "f16 codebook", ROW_SCALES: "row scales", INT8: "int8 values",
    INT4: "int4 values", ZERO_POINTS: "zero points", TOKENIZER: "tokenizer", LABELS: "labels",
    TABLES: "tokenizer tables",
}  # fmt: skip
ENCODER_FIELDS = (
    "family vocab_size hidden layers heads intermediate positions position_offset type_vocab "
    "activation layer_norm_eps max_tokens task pooling normalize labels problem"
).split()


class Invalid(Exception):
    """The file breaks a rule of the format."""


def need(condition, message):
    if not condition:
        raise Invalid(message)


# --- XXH3-64 with seed 0 ------------------------------------------------------

M64 = (1 << 64) - 1
P32_1, P32_2, P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
P64_1, P64_2, P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P64_4, P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def _u32(data, at):
    return int.from_bytes(data[at : at + 4], "little")


def _u64(data, at):
    return int.from_bytes(data[at : at + 8], "little")


def _fold(a, b):
    """The two halves of a 128-bit product, xored."""
    product = a * b
    return (product & M64) ^ (product >> 64)


def _avalanche(h, multiplier=0x165667919E3779F9, shifts=(37, 32)):
    h ^= h >> shifts[0]
    h = h * multiplier & M64
    return h ^ (h >> shifts[1])


def _xxh64_avalanche(h):
    h = (h ^ (h >> 33)) * P64_2 & M64
    h = (h ^ (h >> 29)) * P64_3 & M64
    return h ^ (h >> 32)


def _mix16(data, at, secret_at):
    return _fold(
        _u64(data, at) ^ _u64(SECRET, secret_at), _u64(data, at + 8) ^ _u64(SECRET, secret_at + 8)
    )


def xxh3_64(data):
    n = len(data)
    if n == 0:
        return _xxh64_avalanche(_u64(SECRET, 56) ^ _u64(SECRET, 64))
    if n <= 3:
        word = (data[0] << 16) | (data[n >> 1] << 24) | data[n - 1] | (n << 8)
        return _xxh64_avalanche(word ^ _u32(SECRET, 0) ^ _u32(SECRET, 4))
    if n <= 8:
        word = _u32(data, n - 4) + (_u32(data, 0) << 32)
        h = word ^ _u64(SECRET, 8) ^ _u64(SECRET, 16)
        rotate = lambda bits: (h << bits | h >> (64 - bits)) & M64  # noqa: E731
        h = (h ^ rotate(49) ^ rotate(24)) * 0x9FB21C651E98DF25 & M64
        h = (h ^ ((h >> 35) + n)) * 0x9FB21C651E98DF25 & M64
        return h ^ (h >> 28)
    if n <= 16:
        low = _u64(data, 0) ^ _u64(SECRET, 24) ^ _u64(SECRET, 32)
        high = _u64(data, n - 8) ^ _u64(SECRET, 40) ^ _u64(SECRET, 48)
        swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
        return _avalanche((n + swapped + high + _fold(low, high)) & M64)
    if n <= 128:
        h = n * P64_1
        for i in range((n - 1) // 32 + 1):
            h += _mix16(data, 16 * i, 32 * i) + _mix16(data, n - 16 * (i + 1), 32 * i + 16)
        return _avalanche(h & M64)
    if n <= 240:
        h = n * P64_1 + sum(_mix16(data, 16 * i, 16 * i) for i in range(8))
        h = _avalanche(h & M64)
        h += sum(_mix16(data, 16 * i, 16 * (i - 8) + 3) for i in range(8, n // 16))
        h += _mix16(data, n - 16, 136 - 17)
        return _avalanche(h & M64)
    return _xxh3_long(data)


def _xxh3_long(data):
    """Stripes of 64 bytes go into 8 lanes, scrambled after every 16 stripes.
    Within such a block only sums are taken, so numpy does a block at a time."""
    n = len(data)
    acc = np.array([P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1], dtype=np.uint64)
    low32, shift32 = np.uint64(0xFFFFFFFF), np.uint64(32)
    swap = [1, 0, 3, 2, 5, 4, 7, 6]

    def sums(stripes, secret_at):  # stripes: u64 [blocks, stripes, 8]
        keys = np.stack(
            [np.frombuffer(SECRET, "<u8", 8, at) for at in secret_at(stripes.shape[1])]
        )
        keyed = stripes ^ keys
        return (stripes[..., swap] + (keyed & low32) * (keyed >> shift32)).sum(1, dtype=np.uint64)

    blocks = (n - 1) // 1024
    forward = lambda count: range(0, 8 * count, 8)  # noqa: E731
    scramble = np.frombuffer(SECRET, "<u8", 8, len(SECRET) - 64)
    for start in range(0, blocks, 4096):  # 4 MiB at a time
        some = min(4096, blocks - start)
        words = np.frombuffer(data, "<u8", 128 * some, 1024 * start).reshape(some, 16, 8)
        for block in sums(words, forward):
            acc = acc + block
            acc = (acc ^ (acc >> np.uint64(47)) ^ scramble) * np.uint64(P32_1)
    rest = (n - 1 - 1024 * blocks) // 64
    if rest:
        words = np.frombuffer(data, "<u8", 8 * rest, 1024 * blocks).reshape(1, rest, 8)
        acc = acc + sums(words, forward)[0]
    last = np.frombuffer(data, "<u8", 8, n - 64).reshape(1, 1, 8)
    acc = acc + sums(last, lambda _: [len(SECRET) - 64 - 7])[0]

    lanes = [int(lane) for lane in acc]
    h = n * P64_1
    for i in range(4):
        at = 11 + 16 * i
        h += _fold(lanes[2 * i] ^ _u64(SECRET, at), lanes[2 * i + 1] ^ _u64(SECRET, at + 8))
    return _avalanche(h & M64)


# --- The file -----------------------------------------------------------------


class Cursor:
    """Takes fields off the front of a body, and refuses to go past its end."""

    def __init__(self, data, what):
        self.data, self.at, self.what = bytes(data), 0, what

    def take(self, size):
        need(size <= len(self.data) - self.at, f"{self.what} ends early")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code):
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def bytes(self):
        return self.take(self.number("Q"))

    def string(self):
        try:
            return self.bytes().decode("utf-8")
        except UnicodeDecodeError:
            raise Invalid(f"{self.what} holds text that is not UTF-8") from None

    def vec(self, item):
        return [item() for _ in range(self.number("Q"))]

    def record(self):
        return self.number("I"), self.bytes()

    def end(self):
        need(self.at == len(self.data), f"{self.what} has more bytes than fields")


@dataclasses.dataclass
class Section:
    kind: int
    flags: int
    offset: int
    length: int
    checksum: int
    data: bytes = b""
    used: bool = False


@dataclasses.dataclass
class Tensor:
    name: str
    group: str
    shape: list
    layout: str
    scheme: str
    fields: dict  # the scheme's body, as the specification names it
    parts: dict  # the section bytes of each of its section numbers

    @property
    def rows(self):
        return self.shape[0] if len(self.shape) == 2 else 1

    @property
    def columns(self):
        return self.shape[-1]

    def _rows_of_units(self, units):
        """Units in file order ([rows * u, ...]) as [rows, u, ...]."""
        per_row = len(units) // self.rows
        if self.layout != "tiles":
            return units.reshape(self.rows, per_row, *units.shape[1:])
        tiles = []
        for first in range(0, self.rows, 64):
            width = min(64, self.rows - first)
            tile = units[first * per_row : (first + width) * per_row]
            tiles.append(tile.reshape(per_row, width, *units.shape[1:]).swapaxes(0, 1))
        return np.concatenate(tiles)

    def dense(self):
        """The weight as float64, in its shape."""
        return getattr(self, "_" + self.scheme)().reshape(self.shape)

    def _row_scales(self):
        if "row_scale" not in self.parts:
            return 1.0
        scales = np.frombuffer(self.parts["row_scale"], "<f2").astype(np.float64)
        need(np.isfinite(scales).all(), f"{self.name}: a row scale")
        return scales[:, None]

    def _floats(self, dtype):
        values = np.frombuffer(self.parts["values"], dtype).astype(np.float64)
        need(np.isfinite(values).all(), f"{self.name}: a value is not finite")
        return self._rows_of_units(values)

    def _f32(self):
        return self._floats("<f4")

    def _f16(self):
        return self._floats("<f2")

    def _pq(self):
        block, count = self.fields["block"], self.fields["centroids"]
        books = self.fields.get("codebooks", 1)
        raw = self.parts["codebook"]
        if len(raw) == books * count * block:
            codebook = np.frombuffer(raw, np.int8).astype(np.float64)
            need((codebook != -128).all(), f"{self.name}: a centroid of -128")
        else:
            codebook = np.frombuffer(raw, "<f2").astype(np.float64)
            need(np.isfinite(codebook).all(), f"{self.name}: a centroid is not finite")
        codes = np.frombuffer(self.parts["codes"], np.uint8)
        need(codes.max() < count, f"{self.name}: a code is beyond the codebook")
        codes = self._rows_of_units(codes).astype(np.int64)
        blocks = codes.shape[1] // books
        codes += np.arange(codes.shape[1]) // blocks * count
        values = codebook.reshape(books * count, block)[codes]
        values = values.reshape(self.rows, -1)[:, : self.columns]
        return self._row_scales() * self.fields["codebook_scale"] * values

    _split = _pq

    def _integers(self, values, padding):
        need(not padding.any(), f"{self.name}: padding is not zero")
        zero = float(self.fields["zero_point"])
        if "zero_points" in self.parts:
            zero = np.frombuffer(self.parts["zero_points"], np.int8).astype(np.float64)[:, None]
        low, high = (0, 15) if self.scheme == "int4" else (-127, 127)
        need(np.all((low <= np.asarray(zero)) & (np.asarray(zero) <= high)),
             f"{self.name}: a zero point is out of range")  # fmt: skip
        return self._row_scales() * self.fields["scale"] * (values - zero)

    def _int8(self):
        values = np.frombuffer(self.parts["values"], np.int8)
        need((values != -128).all(), f"{self.name}: a value of -128")
        units = values.reshape(-1, 8) if self.layout == "tiles" else values
        values = self._rows_of_units(units).reshape(self.rows, -1).astype(np.float64)
        return self._integers(values[:, : self.columns], values[:, self.columns :])

    def _int4(self):
        pairs = self._rows_of_units(np.frombuffer(self.parts["values"], np.uint8))
        values = np.stack([pairs & 15, pairs >> 4], axis=2).reshape(self.rows, -1)
        values = values.astype(np.float64)
        return self._integers(values[:, : self.columns], values[:, self.columns :])


@dataclasses.dataclass
class Model:
    config: dict
    tensors: dict
    sections: list
    labels: list
    tokenizer: dict
    provenance: dict


def load(path):
    data = pathlib.Path(path).read_bytes()
    need(len(data) >= 64, "the file is shorter than a preamble")
    magic, version, zero, header_length, checksum, length, zeros = struct.unpack(
        "<8sI4sQQQ24s", data[:64]
    )
    need(magic == b"CENTROID", "not a .centroid file")
    need(version == 1, f"version {version} is not known")
    need(not any(zero + zeros), "reserved bytes of the preamble are set")
    need(length == len(data), f"the file has {len(data)} bytes, its preamble says {length}")
    need(header_length <= min(16 << 20, len(data) - 64), "the header is too long")
    header = data[64 : 64 + header_length]
    need(xxh3_64(header) == checksum, "the header's checksum does not match")

    cursor = Cursor(header, "the header")
    model = cursor.record()
    raw_tensors = cursor.vec(
        lambda: (
            cursor.string(), cursor.number("I"), cursor.vec(lambda: cursor.number("Q")),
            cursor.record(), cursor.record(),
        )
    )  # fmt: skip
    sections = cursor.vec(lambda: Section(*struct.unpack("<IIQQQ", cursor.take(32))))
    records = cursor.vec(lambda: (cursor.number("I"), cursor.number("I"), cursor.bytes()))
    cursor.end()

    end = 64 + header_length
    for at, section in enumerate(sections):
        start = -(-end // 64) * 64
        need(section.flags & ~OPTIONAL == 0, f"section {at}: unknown flags")
        need(section.kind in KINDS or section.flags & OPTIONAL, f"section {at}: unknown kind")
        need(section.offset == start, f"section {at} is not at {start}")
        need(0 < section.length <= len(data) - start, f"section {at}: length")
        need(not any(data[end:start]), f"padding before section {at} is not zero")
        end = start + section.length
        section.data = data[start:end]
        need(xxh3_64(section.data) == section.checksum, f"section {at}: checksum")
    need(end == len(data), "bytes after the last section")

    provenance = None
    for kind, flags, body in records:
        need(flags & ~OPTIONAL == 0, f"record {kind}: unknown flags")
        need(kind == 1 or flags & OPTIONAL, f"record {kind} is not known")
        if kind == 1:
            need(provenance is None, "two provenance records")
            cursor = Cursor(body, "provenance")
            provenance = dict(cursor.vec(lambda: (cursor.string(), cursor.string())))
            cursor.end()

    tensors = {}
    owners = {}  # values section -> the table entry that first used it
    for name, group, shape, layout, scheme in raw_tensors:
        need(1 <= len(name.encode()) <= 256, "a tensor's name is empty or too long")
        need(name not in tensors, f"{name} stands twice")
        tensor = read_tensor(name, group, shape, layout, scheme, sections)
        main = tensor.fields.get("codes", tensor.fields.get("values"))
        same = (shape, layout, scheme)
        need(owners.setdefault(main, same) == same, f"{name}: shares a section, but differs")
        tensors[name] = tensor

    single = {}
    for section in sections:
        if section.kind in (TOKENIZER, LABELS, TABLES):
            need(section.kind not in single, f"two sections of {KINDS[section.kind]}")
            single[section.kind] = section.data
            section.used = True
        need(section.used or section.kind not in KINDS, f"unused: {KINDS.get(section.kind)}")
    labels = []
    if LABELS in single:
        cursor = Cursor(single[LABELS], "labels")
        labels = cursor.vec(cursor.string)
        cursor.end()
    kind, body = model
    need(kind in (1, 2), f"unknown model kind {kind}")
    if kind == 2:
        config = read_network(body, tensors, labels)
        need(TOKENIZER not in single and TABLES not in single, "a network of images with a tokenizer")
        return Model(config, tensors, sections, labels, {}, provenance or {})
    need((TOKENIZER in single) != (TABLES in single), "not one tokenizer in one form")
    config = read_encoder(body, tensors, labels)
    if TABLES in single:
        try:
            tokenizer = read_tables.tokenizer(single[TABLES])
        except read_tables.Invalid as error:
            raise Invalid(error) from None
    else:
        tokenizer = json.loads(single[TOKENIZER])
    return Model(config, tensors, sections, labels, tokenizer, provenance or {})


def read_tensor(name, group, shape, layout, scheme, sections):
    need(group in GROUPS, f"{name}: unknown group {group}")
    need(layout[0] in LAYOUTS, f"{name}: unknown layout {layout[0]}")
    need(layout[1] == b"", f"{name}: the layout has a body")
    need(scheme[0] in SCHEMES, f"{name}: unknown scheme {scheme[0]}")
    layout, (scheme, body) = LAYOUTS[layout[0]], (SCHEMES[scheme[0]], scheme[1])
    need(len(shape) == (1 if layout == "vector" else 2), f"{name}: rank")
    columns, rows = shape[-1], shape[0] if len(shape) == 2 else 1
    need(1 <= rows <= 1 << 24 and 1 <= columns <= 1 << 16, f"{name}: shape")
    need(layout != "vector" or scheme in ("f32", "f16"), f"{name}: a vector as {scheme}")

    cursor = Cursor(body, f"{name}: the scheme's body")
    fields, parts = {}, {}

    def field(key, code):
        fields[key] = cursor.number(code)
        return fields[key]

    def part(key, lengths, optional=False):
        number = field(key, "I")
        if optional and number == NONE:
            return
        need(number < len(sections), f"{name}: there is no section {number}")
        section = sections[number]
        need(section.kind in lengths, f"{name}: {key} is of the wrong kind")
        need(section.length == lengths[section.kind], f"{name}: {key} has the wrong length")
        section.used = True
        parts[key] = section.data

    def scale(key):
        value = field(key, "f")
        tiny = float(np.finfo(np.float32).tiny)
        need(math.isfinite(value) and value >= tiny, f"{name}: {key} is {value}")
        return value

    if scheme == "f32":
        part("values", {F32: 4 * rows * columns})
    elif scheme == "f16":
        part("values", {F16: 2 * rows * columns})
    elif scheme in ("pq", "split"):
        block = field("block", "I")
        books = field("codebooks", "I") if scheme == "split" else 1
        count = field("centroids", "I")
        need(books >= 1 and -(-columns // block) % books == 0, f"{name}: codebooks")
        need(books == 1 or layout == "rows", f"{name}: several codebooks of {layout}")
        need(1 <= block <= 64 and 2 <= count <= 256, f"{name}: block or centroids")
        part("codes", {CODES: rows * -(-columns // block)})
        values = books * count * block
        part("codebook", {CODEBOOK_INT8: values, CODEBOOK_F16: 2 * values})
        wide = sections[fields["codebook"]].kind == CODEBOOK_F16
        need(scale("codebook_scale") == 1 or not wide, f"{name}: an f16 codebook with a scale")
        part("row_scale", {ROW_SCALES: 2 * rows}, optional=True)
    else:
        if scheme == "int4":
            part("values", {INT4: rows * -(-columns // 2)})
        elif layout == "tiles":
            part("values", {INT8: 8 * rows * -(-columns // 8)})
        else:
            part("values", {INT8: rows * columns})
        scale("scale")
        part("row_scale", {ROW_SCALES: 2 * rows}, optional=True)
        zero = field("zero_point", "i")
        part("zero_points", {ZERO_POINTS: rows}, optional=True)
        need(zero == 0 or "zero_points" not in parts, f"{name}: zero points twice")
    cursor.end()
    return Tensor(name, GROUPS[group], shape, layout, scheme, fields, parts)


def need_tensors(tensors, expected):
    """Those of a model's table, and no others."""
    for name, entry in expected.items():
        need(name in tensors, f"{name} is missing")
        tensor = tensors[name]
        need((tensor.layout, tensor.shape, tensor.group) == entry, f"{name} is not {entry}")
    extra = sorted(set(tensors) - set(expected))
    need(not extra, f"no tensor of this model: {extra[:3]}")


def read_encoder(body, tensors, labels):
    cursor = Cursor(body, "the encoder's configuration")
    config = {
        key: cursor.number("d" if key == "layer_norm_eps" else "I") for key in ENCODER_FIELDS
    }
    cursor.end()
    c = argparse.Namespace(**config)
    sizes = [c.vocab_size, c.hidden, c.layers, c.heads, c.intermediate, c.positions,
             c.type_vocab, c.max_tokens]  # fmt: skip
    need(min(sizes) >= 1 and c.layers <= 1024 and c.labels <= 65536, "encoder: sizes")
    need(c.hidden % c.heads == 0, "encoder: heads do not divide hidden")
    need(c.family in (1, 2) and 1 <= c.activation <= 5 and c.task in (1, 2), "encoder: family, activation or task")  # fmt: skip
    need(0 < c.layer_norm_eps <= 1, "encoder: layer_norm_eps")
    need(c.max_tokens + c.position_offset <= c.positions, "encoder: positions")
    if c.task == 1:
        need(c.pooling in (1, 2, 3) and c.normalize in (0, 1), "encoder: pooling or normalize")
        need(c.labels == 0 and c.problem == 0, "encoder: an embedder with labels")
    else:
        need(c.pooling == 0 and c.normalize == 0, "encoder: a classifier with pooling")
        need(c.labels >= 1 and c.problem in (1, 2, 3), "encoder: labels or problem")
    need(len(labels) == c.labels, f"{len(labels)} labels instead of {c.labels}")

    h, f = c.hidden, c.intermediate
    expected = {
        "embeddings.token": ("rows", [c.vocab_size, h], "embedding"),
        "embeddings.position": ("rows", [c.positions, h], "position"),
        "embeddings.type": ("rows", [c.type_vocab, h], "other"),
    }

    def norm(name):
        expected[name + ".weight"] = expected[name + ".bias"] = ("vector", [h], "other")

    def linear(name, out, width, group):
        expected[name + ".weight"] = ("tiles", [out, width], group)
        expected[name + ".bias"] = ("vector", [out], "other")

    norm("embeddings.norm")
    for i in range(c.layers):
        for name in ("query", "key", "value", "output"):
            linear(f"layers.{i}.attention.{name}", h, h, "attention")
        norm(f"layers.{i}.attention.norm")
        linear(f"layers.{i}.ffn.up", f, h, "ffn")
        linear(f"layers.{i}.ffn.down", h, f, "ffn")
        norm(f"layers.{i}.ffn.norm")
    if c.task == 2:
        linear("head.dense", h, h, "head")
        linear("head.labels", c.labels, h, "other")
    need_tensors(tensors, expected)
    return config


BLOCK_FIELDS = "kernel stride expanded squeezed channels".split()


def read_network(body, tensors, labels):
    cursor = Cursor(body, "the network's configuration")
    number = lambda: cursor.number("I")  # noqa: E731
    config = {key: number() for key in ("activation", "padding", "stem")}
    config["blocks"] = cursor.vec(lambda: {key: number() for key in BLOCK_FIELDS})
    config |= {key: number() for key in ("features", "labels", "size", "resize", "crop", "filter")}
    config |= {key: [cursor.number("f") for _ in range(3)] for key in ("mean", "deviation")}
    cursor.end()

    c, blocks = argparse.Namespace(**config), [argparse.Namespace(**b) for b in config["blocks"]]
    need(1 <= len(blocks) <= 1024, "network: blocks")
    channels = [c.stem, c.features, *(n for b in blocks for n in (b.expanded, b.channels))]
    need(1 <= min(channels) and max(channels) <= 16384, "network: channels")
    need(1 <= c.labels <= 65536 and 1 <= c.size <= 4096, "network: labels or size")
    need(c.size <= c.resize <= 8192 and (c.crop != 3 or c.resize == c.size), "network: resize")
    need(all(b.kernel in (1, 3, 5, 7) and b.stride in (1, 2) and b.squeezed <= 16384 for b in blocks), "network: a block")  # fmt: skip
    need(c.activation in (1, 2) and c.padding in (1, 2) and c.crop in (1, 2, 3) and c.filter in (1, 2), "network: an enumeration")  # fmt: skip
    tiny = float(np.finfo(np.float32).tiny)
    need(np.isfinite(c.mean).all() and np.isfinite(c.deviation).all() and min(c.deviation) >= tiny, "network: mean or deviation")  # fmt: skip
    need(len(labels) == c.labels, f"{len(labels)} labels instead of {c.labels}")

    expected = {}

    def layer(name, out, width, group, layout="tiles"):
        expected[name + ".weight"] = (layout, [out, width], group)
        expected[name + ".bias"] = ("vector", [out], "other")

    most, side, into = 1 << 27, -(-c.size // 2), c.stem
    need(max(27, c.stem) * side * side <= most, "network: too large")
    layer("stem", c.stem, 27, "stem")
    for i, b in enumerate(blocks):
        name, wide = f"blocks.{i}", b.expanded
        if wide != into:
            layer(name + ".expand", wide, into, "pointwise")
        layer(name + ".depthwise", wide, b.kernel**2, "depthwise", "rows")
        if b.squeezed:
            layer(name + ".squeeze", b.squeezed, wide, "squeeze")
            layer(name + ".excite", wide, b.squeezed, "squeeze")
        layer(name + ".project", b.channels, wide, "pointwise")
        need(wide * side * side <= most, "network: too large")
        side, into = -(-side // b.stride), b.channels
        need(max(wide, into) * side * side <= most, "network: too large")
    layer("features", c.features, into, "pointwise")
    need(c.features * side * side <= most, "network: too large")
    layer("classifier", c.labels, c.features, "classifier")
    need_tensors(tensors, expected)
    return config


# --- The encoder, in float64 --------------------------------------------------

erf = np.vectorize(math.erf, otypes=[np.float64])


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    1: lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    2: tanh_gelu,
    3: tanh_gelu,
    4: lambda x: np.maximum(x, 0),
    5: lambda x: x / (1 + np.exp(-x)),
}


class Forward:
    """The forward pass; keeps the dense weights of a model for many texts."""

    def __init__(self, model):
        self.c = argparse.Namespace(**model.config)
        self.w = {name: tensor.dense() for name, tensor in model.tensors.items()}

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.c.layer_norm_eps)
        return x * self.w[name + ".weight"] + self.w[name + ".bias"]

    def attention(self, x, name):
        def heads(part):
            y = self.linear(x, f"{name}.{part}")
            return y.reshape(len(x), self.c.heads, -1).swapaxes(0, 1)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        context = scores / scores.sum(-1, keepdims=True) @ value
        return self.linear(context.swapaxes(0, 1).reshape(x.shape), name + ".output")

    def last_hidden(self, ids, type_ids):
        need(len(ids) <= self.c.max_tokens, "too many tokens")
        positions = self.c.position_offset + np.arange(len(ids))
        x = self.w["embeddings.token"][ids] + self.w["embeddings.position"][positions]
        x = self.norm(x + self.w["embeddings.type"][type_ids], "embeddings.norm")
        for i in range(self.c.layers):
            layer = f"layers.{i}"
            x = self.norm(x + self.attention(x, layer + ".attention"), layer + ".attention.norm")
            up = ACTIVATIONS[self.c.activation](self.linear(x, layer + ".ffn.up"))
            x = self.norm(x + self.linear(up, layer + ".ffn.down"), layer + ".ffn.norm")
        return x

    def __call__(self, ids, type_ids):
        """Logits of a classifier, the embedding of an embedder."""
        x = self.last_hidden(ids, type_ids)
        if self.c.task == 2:
            return self.linear(np.tanh(self.linear(x[0], "head.dense")), "head.labels")
        pooled = {1: x.mean(0), 2: x[0], 3: x.max(0)}[self.c.pooling]
        return pooled / np.linalg.norm(pooled) if self.c.normalize else pooled


def forward(model, ids, type_ids):
    return Forward(model)(ids, type_ids)


# --- The network of images, in float64 ------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Network:
    """The forward pass of model kind 2 over one image `[height][width][3]`, normalized."""

    def __init__(self, model):
        self.c = argparse.Namespace(**model.config)
        self.blocks = [argparse.Namespace(**block) for block in model.config["blocks"]]
        self.w = {name: tensor.dense() for name, tensor in model.tensors.items()}

    def act(self, x):
        return np.clip(x, 0, 6) if self.c.activation == 1 else x * sigmoid(x)

    def windows(self, x, kernel, stride):
        """`[height, width, channels, kernel, kernel]`, with zeros around the image."""
        pads = []
        for side in x.shape[:2]:
            if self.c.padding == 1:
                total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
                pads.append((total // 2, total - total // 2))
            else:
                pads.append((kernel // 2, kernel // 2))
        x = np.pad(x, [*pads, (0, 0)])
        return np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (0, 1))[::stride, ::stride]

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def __call__(self, image):
        x = self.windows(image, 3, 2).transpose(0, 1, 3, 4, 2)
        x = self.act(self.linear(x.reshape(*x.shape[:2], 27), "stem"))
        for i, b in enumerate(self.blocks):
            name, into = f"blocks.{i}", x
            if b.expanded != x.shape[2]:
                x = self.act(self.linear(x, name + ".expand"))
            filters = self.w[name + ".depthwise.weight"].reshape(-1, b.kernel, b.kernel)
            x = np.einsum("hwcij,cij->hwc", self.windows(x, b.kernel, b.stride), filters)
            x = self.act(x + self.w[name + ".depthwise.bias"])
            if b.squeezed:
                squeezed = self.act(self.linear(x.mean((0, 1)), name + ".squeeze"))
                x = x * sigmoid(self.linear(squeezed, name + ".excite"))
            x = self.linear(x, name + ".project")
            if b.stride == 1 and x.shape == into.shape:
                x = x + into
        x = self.act(self.linear(x, "features"))
        return self.linear(x.mean((0, 1)), "classifier")


def uniform(number, count):
    """u(t, i) for every i below count: see efficientnet.py."""
    z = (np.uint64(number) << np.uint64(32)) + np.arange(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def images(size, count):
    """Those of efficientnet.py."""
    numbers = range(1_000_000, 1_000_000 + count)
    return [2 * uniform(number, size * size * 3).reshape(size, size, 3) for number in numbers]


def compare(model, golden):
    """The largest difference to the answers of a golden.json, and their size."""
    if "images" in golden:
        network = Network(model)
        answers = np.array(golden["logits"])
        found = np.array([network(x) for x in images(model.config["size"], golden["images"])])
        return np.abs(found - answers).max(), np.abs(answers).max()
    run = Forward(model)
    if "logits" in golden:
        answers = golden["logits"]
    elif "embedding" in golden:
        answers = golden["embedding"]
    else:
        answers = golden[f"last_hidden_{['mean', 'cls', 'max'][run.c.pooling - 1]}"]
        if run.c.normalize:
            answers = [row / np.linalg.norm(row) for row in np.array(answers)]
    worst = max(
        np.abs(run(text["ids"], text["type_ids"]) - answer).max()
        for text, answer in zip(golden["inputs"], answers, strict=True)
    )
    return worst, np.abs(answers).max()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--npz", type=pathlib.Path, help="write the dense weights here (float32)")
    parser.add_argument("--golden", type=pathlib.Path, help="answers to compare with")
    options = parser.parse_args()
    try:
        model = load(options.file)
        for tensor in model.tensors.values():
            tensor.dense()  # checks the values
    except Invalid as error:
        sys.exit(f"{options.file}: {error}")

    print("config:", json.dumps(model.config))
    print("labels:", json.dumps(model.labels, ensure_ascii=False))
    print("provenance:", json.dumps(model.provenance, ensure_ascii=False))
    for tensor in model.tensors.values():
        size = sum(map(len, tensor.parts.values()))
        shape = "x".join(map(str, tensor.shape))
        print(f"{tensor.name:44} {shape:>12} {tensor.layout:6} {tensor.scheme:4} {size:>9} B")
    if options.npz:
        dense = {name: t.dense().astype(np.float32) for name, t in model.tensors.items()}
        np.savez(options.npz, **dense)
    if options.golden:
        worst, size = compare(model, json.loads(options.golden.read_text(encoding="utf-8")))
        print(f"largest difference {worst:.3g}, largest answer {size:.3g}")


if __name__ == "__main__":
    main()

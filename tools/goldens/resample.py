#!/usr/bin/env python3
"""Writes what Pillow makes of pictures at other sizes.

    pip install "pillow==12.0.*"
    python tools/goldens/resample.py tests/data/resample.txt

A line each: the filter, the picture's width and height, those that it is resized to, the left, top, width and
height of the part that is looked at, and the FNV-1a hash (64 bits) of that part's bytes. Colour c of the pixel at
x, y is (31 x + 17 y + 101 c + 19 (x y mod 13) + floor((x^2 + 3 y^2) / 5)) mod 256.
"""

import argparse
import pathlib

import numpy
from PIL import Image, __version__

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# Photographs and strips as a network's input, larger and smaller, one side as it is, and hardly anything.
SIZES = [
    (500, 375, 341, 256, 58, 16, 224, 224),
    (375, 500, 256, 341, 16, 58, 224, 224),
    (641, 479, 342, 256, 0, 0, 342, 256),
    (31, 45, 256, 371, 16, 74, 224, 224),
    (801, 200, 1025, 256, 400, 16, 224, 224),
    (1003, 200, 1283, 256, 530, 16, 224, 224),
    (11, 2, 1408, 256, 592, 16, 224, 224),
    (3, 1500, 32, 16000, 0, 7984, 32, 32),
    (64, 48, 64, 30, 0, 0, 64, 30),
    (64, 48, 30, 48, 0, 0, 30, 48),
    (17, 13, 17, 13, 2, 3, 9, 8),
    (1, 1, 7, 5, 0, 0, 7, 5),
    (2000, 1500, 9, 8, 0, 0, 9, 8),
]


def picture(width, height):
    x, y = numpy.arange(width)[None, :], numpy.arange(height)[:, None]
    value = 31 * x + 17 * y + 19 * (x * y % 13) + (x * x + 3 * y * y) // 5
    colors = value[:, :, None] + 101 * numpy.arange(3)
    return Image.fromarray((colors % 256).astype(numpy.uint8))


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    assert __version__.startswith("12.0."), "later versions resize some tall pictures in another order"
    lines = []
    for name, how in FILTERS.items():
        for width, height, wide, high, left, top, columns, rows in SIZES:
            resized = picture(width, height).resize((wide, high), how)
            part = resized.crop((left, top, left + columns, top + rows))
            numbers = (width, height, wide, high, left, top, columns, rows, fnv(part.tobytes()))
            lines.append(f"{name} {' '.join(map(str, numbers))}\n")
    out.write_text("".join(lines))


if __name__ == "__main__":
    main()

"""Cuts squares from the photographs in unpacked packages: see tools/models/photos."""

import io
import os
import pathlib
import struct
import sys
import zlib

import numpy
from PIL import Image

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
# Screenshots, thumbnails and paintings.
OTHERS = ("thumb", "screenshot", "/paintings/", "/lang/", "solar_system", "babyshapes", "/costumes/")
SIDE = 256
# Native pixels of a tile, of which a photograph gives at most so many.
TILE, TILES = 320, 6


def resources(data):
    """Names and bytes of the files in a Qt resource file."""
    if data[:4] != b"qres":
        return
    version, tree, start, names = struct.unpack(">IIII", data[4:20])
    size = 22 if version >= 2 else 14
    nodes = [(0, 1)]
    while nodes:
        first, count = nodes.pop()
        for node in range(first, first + count):
            at = tree + node * size
            name, flags = struct.unpack(">IH", data[at : at + 6])
            if flags & 2:
                count_of, child = struct.unpack(">II", data[at + 6 : at + 14])
                nodes.append((child, count_of))
                continue
            length = struct.unpack(">H", data[names + name : names + name + 2])[0]
            text = data[names + name + 6 : names + name + 6 + 2 * length].decode("utf-16-be")
            offset = start + struct.unpack(">I", data[at + 10 : at + 14])[0]
            length = struct.unpack(">I", data[offset : offset + 4])[0]
            content = data[offset + 4 : offset + 4 + length]
            if flags & 1:
                content = zlib.decompress(content[4:])
            elif flags & 4:
                # Compressed in another way, as pictures never are.
                continue
            yield text, content


def pictures(root):
    for path in sorted(root.rglob("*")):
        name = str(path)
        if path.is_symlink() or not path.is_file():
            continue
        if name.endswith(".rcc"):
            for inner, content in resources(path.read_bytes()):
                yield f"{name}/{inner}", content
        else:
            yield name, path.read_bytes() if name.lower().endswith(ENDINGS) else b""


def photograph(picture):
    """Whether neighbouring pixels differ and there are many colours, as in no drawing."""
    pixels = numpy.asarray(picture.crop(middle(picture, 400))).astype(numpy.int16)
    white = pixels[:, 1:].min(2) > 248
    equal = numpy.abs(pixels[:, 1:] - pixels[:, :-1]).sum(2) == 0
    colored = pixels[pixels.min(2) <= 248]
    if len(colored) < 3000 or (~white).sum() < 4000:
        return False
    colors = len(numpy.unique((colored >> 3) @ numpy.array([1024, 32, 1])))
    grey = (colored.max(1) - colored.min(1)).mean() < 4
    return (equal & ~white).sum() < 0.3 * (~white).sum() and colors > 500 and not grey


def middle(picture, most):
    (width, height), side = picture.size, most
    left, top = max(0, (width - side) // 2), max(0, (height - side) // 2)
    return left, top, min(width, left + side), min(height, top + side)


def squares(picture):
    """The middle, and tiles in native pixels of a large picture."""
    side = min(picture.size)
    yield picture.crop(middle(picture, side)).resize((SIDE, SIDE), Image.BICUBIC)
    columns, rows = picture.size[0] // TILE, picture.size[1] // TILE
    places = [(column, row) for row in range(rows) for column in range(columns)]
    if len(places) < 2:
        return
    for at in range(min(TILES, len(places))):
        column, row = places[at * len(places) // min(TILES, len(places))]
        box = (column * TILE, row * TILE, (column + 1) * TILE, (row + 1) * TILE)
        yield picture.crop(box).resize((SIDE, SIDE), Image.BICUBIC)


def main():
    root, target = map(pathlib.Path, sys.argv[1:])
    seen, names, photographs = [], [], 0
    for name, content in pictures(root):
        if not name.lower().endswith(ENDINGS) or any(other in name.lower() for other in OTHERS):
            continue
        try:
            picture = Image.open(io.BytesIO(content)).convert("RGBA")
        except (OSError, ValueError):
            continue
        short, long = sorted(picture.size)
        if short < 160 or long > 3 * short:
            continue
        # What is cut out stands on grey.
        ground = Image.new("RGBA", picture.size, (128, 128, 128, 255))
        picture = Image.alpha_composite(ground, picture).convert("RGB")
        if not photograph(picture):
            continue
        small = numpy.asarray(picture.convert("L").resize((9, 8), Image.BOX)).astype(int)
        bits = (small[:, 1:] > small[:, :-1]).ravel()
        if any((bits != other).sum() <= 4 for other in seen):
            continue
        seen.append(bits)
        photographs += 1
        for square in squares(picture):
            file = f"pictures/{len(names):05}.jpg"
            square.save(target / file, quality=92)
            names.append(file)
    partial = target / "photos.tmp"
    partial.write_text("file\n" + "".join(f"{name}\n" for name in names))
    os.replace(partial, target / "photos.tsv")
    print(f"{target}/photos.tsv: {len(names)} squares of {photographs} photographs")


if __name__ == "__main__":
    main()

"""Tables and charts of what runs gave: benches/results/training*."""

import os
import pathlib
import subprocess
import sys

from results import FOLDS, ROOT, compared, finished, key, made_again
from rows import BLOCKS, DATA, ORDERS, RATES, rows

RESULTS = ROOT / "benches/results"
VENV = ROOT / ".cache/experiments/venv"
TITLES = {"movie": "movie reviews", "trec": "TREC-6"}
COLORS = {"movie": "#26a", "trec": "#c62"}


def cell(data, row):
    found = compared(data, row, "fp32")
    if not found:
        return ""
    text = f"{found['accuracy']:.2f} ({found['folds']} of {FOLDS} folds, {found['texts']} texts)"
    if row != "fp32":
        low, high = found["interval"]
        text += f"<br>{found['difference']:+.2f} ({low:+.2f} to {high:+.2f})"
    return text


def order(data, better, worse):
    """Whether one row is above another, in words."""
    found = compared(data, better, worse)
    if not found:
        return ""
    low, high = found["interval"]
    verdict = "yes" if low > 0 else "no, below" if high < 0 else "not shown"
    apart = ", each beside its own fp32 model" if found["apart"] else ""
    return f"{verdict}: {found['difference']:+.2f} ({low:+.2f} to {high:+.2f}), {found['folds']} of {FOLDS} folds{apart}"


def table():
    lines = [
        "# Training: MiniLM-L6 on movie reviews and TREC-6",
        "",
        "Made by `tools/experiments/run`. Accuracy in per cent on the test folds of a 5-fold",
        "cross-validation, by the runtime in mode `int8`; below it the difference from the fp32 model",
        "trained on the same fold, with a 95 % bootstrap interval over sentences. Always the same answer",
        "is right in about 50 % (movie reviews) and 23 % (TREC-6). What each row is, `rows.py` says there.",
        "",
        "Intervals say what other sentences would change, not what another training run would: models made",
        "twice from one recipe, on two machines, differ in a few answers, too. Recipes of the rows with",
        "distillation were chosen with results on these folds in view.",
        "",
        "| row | movie reviews | TREC-6 | weights | times below f32 |",
        "|---|---|---|---|---|",
    ]
    for row in rows(1):
        found = next(filter(None, (compared(data, row, "fp32") for data in DATA)), None)
        if not found:
            continue
        size = f"{found['weight_bytes'] / 1e6:.2f} MB"
        cells = " | ".join(cell(data, row) for data in DATA)
        # Of the model before layers were left out.
        whole = next(filter(None, (compared(data, "fp32", "fp32") for data in DATA)))["weight_bytes"]
        lines.append(f"| {row} | {cells} | {size} | {whole / found['weight_bytes']:.1f} |")
    orders = []
    for better, worse in ORDERS:
        cells = [order(data, better, worse) for data in DATA]
        if any(cells):
            orders.append(f"| {better} above {worse} | {' | '.join(cells)} |")
    if orders:
        lines += ["", "Whether one row is above another, in points; claimed where the interval excludes 0:", ""]
        lines += ["| order | movie reviews | TREC-6 |", "|---|---|---|", *orders]
    if again := made_again():
        lines += ["", "Rows that start or learn from an fp32 model that was made again, elsewhere, are compared with that one:", ""]
        lines += ["| fold | its accuracy | the table's | rows |", "|---|---|---|---|"]
        for (data, fold, accuracy, own), names in again.items():
            lines.append(f"| {TITLES[data]} {fold} | {accuracy} | {own} | {', '.join(names)} |")
    known, notes = finished(), {}
    for row in rows(1):
        for data in DATA:
            own = {fold: known.get(key(data, row, fold), {}).get("note") for fold in range(FOLDS)}
            for note in sorted(set(filter(None, own.values()))):
                folds = ", ".join(str(fold) for fold, its in own.items() if its == note)
                notes.setdefault(note, []).append(f"{row} ({TITLES[data]} {folds})")
    if notes:
        lines += ["", "Runs that are not as the others, with their folds:"]
    for note, own in notes.items():
        lines += ["", f"{note[0].upper()}{note[1:]}: {', '.join(own)}."]
    path = RESULTS / "training.md"
    path.write_text("\n".join(lines) + "\n")
    print(f"wrote {path}")


def charts():
    """In an environment with matplotlib, which is made if there is none."""
    python = VENV / "bin/python"
    if not (VENV / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "matplotlib==3.10.7"], check=True)
        (VENV / "ready").touch()
    subprocess.run([python, pathlib.Path(__file__)], check=True)


def points(data, names):
    """Of rows that there are: places among `names`, differences, and how far intervals reach."""
    found = [(place, compared(data, name, "fp32")) for place, name in enumerate(names)]
    found = [(place, result) for place, result in found if result]
    below = [result["difference"] - result["interval"][0] for _, result in found]
    above = [result["interval"][1] - result["difference"] for _, result in found]
    return [place for place, _ in found], [result["difference"] for _, result in found], [below, above]


def save(figure, name):
    path = RESULTS / name
    figure.tight_layout()
    figure.savefig(path.with_suffix(".tmp"), dpi=100, format="png")
    os.replace(path.with_suffix(".tmp"), path)
    print(f"wrote {path}")


def draw():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def chart(name, title, label, names, shown):
        drawn = [(data, points(data, names)) for data in DATA]
        drawn = [(data, found) for data, found in drawn if found[0]]
        if not drawn:
            return
        figure, axis = pyplot.subplots(figsize=(max(8, 0.72 * len(names)), 4.5))
        axis.axhline(0, color="#888", linewidth=1)
        for number, (data, (places, differences, errors)) in enumerate(drawn):
            places = [place + (number - (len(drawn) - 1) / 2) * 0.12 for place in places]
            style = {"fmt": "o", "capsize": 3, "color": COLORS[data], "label": TITLES[data]}
            axis.errorbar(places, differences, yerr=errors, **style)
        axis.set(title=title, xlabel=label, ylabel="points of accuracy from fp32")
        axis.set_xticks(range(len(names)), shown)
        axis.grid(alpha=0.3)
        axis.legend()
        save(figure, name)

    other = [f"rate-{rate}" for rate in RATES] + [f"block-{size}" for size in BLOCKS]
    names = [row for row in rows(1) if row not in other and any(compared(d, row, "fp32") for d in DATA)]
    wrapped = [name.replace("-", "-\n") for name in names]
    chart("training.png", "Accuracy beside fp32, with 95 % intervals", "row", names, wrapped)
    title = "Exact noise in training, then PQ without more training"
    chart("training-rates.png", title, "noise rate", [f"rate-{rate}" for rate in RATES], RATES)
    title = "One block size for all tensors, calibrated codes and distillation"
    chart("training-blocks.png", title, "weights of a block", [f"block-{size}" for size in BLOCKS], BLOCKS)


if __name__ == "__main__":
    draw()

#!/usr/bin/env python3
"""Writes the tables and the chart of a run of tools/peers/run:

    report.py RAW.json OUT        OUT.md and OUT.png
"""

import json
import os
import pathlib
import statistics
import sys

from rounds import spread

OWN = {"centroid": "centroid", "centroid-default": "centroid, default blocks"}
PEERS = {
    "onnxruntime-fp32": "onnxruntime fp32",
    "onnxruntime-int8": "onnxruntime int8",
    "openvino-fp32": "OpenVINO fp32",
    "openvino-int8-f32": "OpenVINO int8",
    "openvino-int8-bf16": "OpenVINO int8, bf16",
    "openvino-int8-f32-dynamic": "OpenVINO int8, any shape",
    "torch-int8": "torch int8",
}
NAMES = OWN | {"exact": "centroid, f32 weights, mode `exact`"} | PEERS
COLORS = {"onnxruntime-fp32": "#9ab", "onnxruntime-int8": "#358", "openvino-fp32": "#dba",
          "openvino-int8-f32": "#c62", "openvino-int8-bf16": "#a40", "torch-int8": "#484",
          "centroid-default": "#a8a"}  # fmt: skip


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def figure(value):
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def mega(value):
    return "?" if value is None else f"{value / 1e6:.1f}"


def per_round(cell):
    """Median of each round's calls, by runner, in ms."""
    return {name: [statistics.median(calls) / 1e6 for calls in rounds] for name, rounds in cell.items()}


def ratios(rounds):
    """Of every other runner to this runtime, round by round."""
    own = rounds["centroid"]
    return {
        name: [theirs / ours for theirs, ours in zip(times, own, strict=True)]
        for name, times in rounds.items()
        if name != "centroid"
    }


def fixed_table(cells):
    names = [name for name in NAMES if name in next(iter(cells.values()))]
    rows = []
    for size, cell in cells.items():
        rounds = per_round(cell)
        against = ratios(rounds)
        row = [size.replace("x", " x ")]
        for name in names:
            median, low, high = spread(rounds[name])
            text = f"{figure(median)} ({figure(low)} to {figure(high)})"
            if name in against:
                median, low, high = spread(against[name])
                text += f"<br>**{median:.2f}x** ({low:.2f} to {high:.2f})"
            row.append(text)
        rows.append(row + [str(len(rounds["centroid"]))])
    return table(["batch x tokens", *(NAMES[name] for name in names), "rounds"], rows)


def reviews_table(orders):
    names = [name for name in NAMES if name in next(iter(orders.values()))["times"]]
    rows = []
    for order, cell in orders.items():
        rounds = per_round(cell["times"])
        totals = {name: sum(times) for name, times in rounds.items()}
        against = ratios(rounds)
        row = [order]
        for name in names:
            text = f"{figure(sum(cell['texts']) / totals[name] * 1e3)}"
            if name in against:
                _, low, high = spread(against[name])
                text += f"<br>**{totals[name] / totals['centroid']:.2f}x** ({low:.2f} to {high:.2f})"
            row.append(text)
        rows.append(row)
    return table(["order", *(NAMES[name] for name in names)], rows)


def load_table(raw):
    rows = []
    for name in (name for name in NAMES if name in raw["load"]):
        processes = raw["load"][name]

        def middle(value):
            found = [value(process) for process in processes]
            return None if None in found else statistics.median(found)

        took = spread([process["first_ns"] / 1e6 for process in processes])
        # The model without fixed shapes is the same file.
        file = raw["files"][name.removesuffix("-dynamic")]
        growth = middle(lambda p: p["memory_peak"] and p["memory_peak"] - p["memory_before"])
        rows.append([
            NAMES[name],
            mega(file),
            "{} ({} to {})".format(*map(figure, took)),
            figure(middle(lambda p: p["import_ns"]) / 1e6),
            figure(middle(lambda p: p["process_ns"]) / 1e6),
            mega(middle(lambda p: p["memory_peak"])),
            mega(growth),
            mega(middle(lambda p: p["memory_later"])),
        ])  # fmt: skip
    head = ["", "file, MB", "open to first result, ms", "import, ms", "process start to first result, ms",
            "peak memory, MB", "of it since before the import", "peak memory after 128 tokens, MB"]  # fmt: skip
    return table(head, rows)


def check_table(raw):
    rows = []
    for name in (name for name in NAMES if name in raw["check"]):
        found = raw["check"][name]
        cosines = [f"{found[key]:.5f}" for key in ("mean_cosine", "least_cosine")]
        rows.append([NAMES[name], *cosines, f"{found['largest']:.2g}"])
    return table(["", "mean cosine", "least cosine", "largest difference of one value"], rows)


def chart(raw, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    counts = list(raw["fixed"])
    figure_, axes = pyplot.subplots(len(counts), 1, figsize=(10, 3.6 * len(counts)), squeeze=False)
    for axis, threads in zip(axes[:, 0], counts):
        cells = raw["fixed"][threads]
        names = [name for name in COLORS if name in next(iter(cells.values()))]
        width = 0.8 / len(names)
        for number, name in enumerate(names):
            found = [spread(ratios(per_round(cell))[name]) for cell in cells.values()]
            middle = [value[0] for value in found]
            errors = [[value[0] - value[1] for value in found], [value[2] - value[0] for value in found]]
            at = [place + (number - (len(names) - 1) / 2) * width for place in range(len(found))]
            axis.bar(at, [value - 1 for value in middle], width, bottom=1, yerr=errors, color=COLORS[name],
                     label=NAMES[name], error_kw={"elinewidth": 0.8})  # fmt: skip
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}x"))
        axis.axhline(1, color="black", linewidth=1)
        axis.grid(axis="y", alpha=0.3)
        axis.set_xticks(range(len(cells)), [size.replace("x", " x ") for size in cells])
        axis.set_ylabel("time / centroid's time")
        axis.set_title(f"{raw['model']}, {threads} thread{'s' if threads != '1' else ''}: above the line, centroid is faster")
    axes[-1, 0].set_xlabel("batch x tokens")
    axes[0, 0].legend(fontsize=8, ncols=3)
    figure_.tight_layout()
    written = path.with_suffix(".tmp")
    figure_.savefig(written, dpi=110, format="png")
    os.replace(written, path)


def document(raw, picture):
    machine, about, settings = raw["machine"], raw["about"], raw["settings"]
    runtimes = {"onnxruntime": "onnxruntime", "openvino": "OpenVINO", "torch": "torch"}
    versions = [f"centroid {about['centroid']['version']} (kernel `{about['centroid']['kernel']}`, mode `int8`)"]
    for key, name in runtimes.items():
        found = {about[runner]["version"] for runner in about if runner.startswith(key)}
        versions += [f"{name} {version}" for version in sorted(found)]
    roberta = raw["model"] == "roberta-base"
    out = [f"# {raw['model']}: centroid and its peers\n"]
    if raw["quick"]:
        out.append("**A quick run, to see that everything works: its times say little.**\n")
    out.append(
        f"Measured {raw['started']} by `tools/peers/run` on {machine['cpu']} ({machine['family']}), "
        f"{machine['processors']} processors, {machine['system']}; of instruction sets it has "
        f"{', '.join(machine['isa'])}. {'; '.join(versions)}.\n"
    )
    if roberta:
        out.append(
            "RoBERTa-base with a head of 3 labels and **random weights**: sizes and times are real, answers are not. "
            "centroid runs its default plan for it, blocks of 8 (feed-forward), 8 (attention) and 16 (embeddings).\n"
        )
    else:
        out.append(
            "all-MiniLM-L6-v2 with mean pooling and norm 1 in the graph. centroid runs the plan of "
            "`models/minilm-l6.centroid` (blocks of 4, of 8 in the tables, row scales) without its training, and with its limit of 256 "
            "tokens raised to the 512 positions that there are; *default blocks* is `centroid convert` without flags.\n"
        )
    if "fixed" in raw:
        out.append(f"![Ratios]({picture.name})\n")
        for threads, cells in raw["fixed"].items():
            out.append(f"## Time of one batch, ms, {threads} thread{'s' if threads != '1' else ''}\n")
            out.append("Median over the rounds (10th to 90th percentile); below it in bold **how many times longer "
                       "than centroid**, the median over the rounds of that ratio.\n")  # fmt: skip
            out.append(fixed_table(cells))
    if "reviews" in raw:
        for threads, orders in raw["reviews"].items():
            cell = next(iter(orders.values()))
            texts = sum(cell["texts"])
            out.append(f"## Movie reviews, texts a second, {threads} thread{'s' if threads != '1' else ''}\n")
            ids = "MiniLM's tokenizer, since there is none for random weights" if roberta else "its own tokenizer"
            out.append(
                f"{texts:,} sentences, {cell['tokens'] / texts:.1f} tokens each (ids by {ids}), in batches of 32, "
                "as they come or sorted by length first. Tokenizing is not part of it on any side. The peers pad each "
                "batch to its longest text; OpenVINO runs a model compiled for any shape. In bold the ratio of total "
                f"times, with the 10th and 90th percentile over the slices ({len(cell['texts'])}) in which they took turns.\n"
            )
            out.append(reviews_table(orders))
    if "load" in raw:
        count = len(next(iter(raw["load"].values())))
        out.append("## Opening, and memory\n")
        out.append(
            f"Medians over {count} fresh processes by turns, 1 thread, the file in the page cache, a first text of 8 "
            "tokens. *Open to first result* starts where the file is opened and so leaves out Python's imports, which "
            "stand beside it, as does the whole process from its start. Memory is VmHWM; what it grew by since before "
            "the import leaves the interpreter out. OpenVINO without its cache of compiled models, which it does not use "
            "unless asked to.\n"
        )
        out.append(load_table(raw))
    if "check" in raw:
        out.append("## Outputs\n")
        values = next(iter(raw["check"].values()))["values"]
        what = "logits" if roberta else "embeddings"
        out.append(
            f"64 movie reviews, {what} beside those of onnxruntime fp32 (or the first fp32 there was); the largest value "
            f"is {values:.2g}. The same weights in f32, unquantized, through centroid show that it is the same network. "
            + ("Random weights have no structure for codebooks to find, so quantizing them after training to "
               "one byte for 8 of them has to lose nearly all, and no bound is checked for centroid here; trained weights are "
               "the business of the tests on MiniLM. " if roberta else "")
            + "centroid's outputs were checked to be bit-identical alone and in batches, and with any of the thread counts.\n"
        )  # fmt: skip
        out.append(check_table(raw))
    out.append("## How\n")
    vnni = {"avx512_vnni", "avx_vnni"} & set(machine["isa"])
    lines = [
        f"Every runtime has a process of its own, on as many processors as threads, stopped while another runs. A round gives "
        f"each of them calls for about {settings['turn']:g} s, after half as many to warm up; the order rotates. At least "
        f"{settings['rounds']} rounds, more for up to {settings['seconds']:g} s a size. A round's time is the median of its "
        f"calls. All sides get the same ids, arrays ready made.",
        "onnxruntime: `onnxruntime.transformers.optimizer` (attention, embedding, skip-LayerNorm and bias-GELU fused), all "
        "graph optimisations, intra-op threads as said, inter-op 1. int8: `quantize_dynamic` of that, int8 weights per "
        "channel" + ("." if vnni else ", to 7 bits (`reduce_range`), as its manual asks where there is no VNNI."),
        "OpenVINO int8: NNCF post-training quantization, `model_type=TRANSFORMER`, calibrated on 300 other movie reviews; one "
        "stream, latency hint, each fixed size compiled for its static shape, warmed up per shape. "
        + ("Hints f32 and bf16 of inference precision stand side by side; the faster counts."
           if any(machine_flag in machine["isa"] for machine_flag in ("avx512_bf16", "amx_bf16"))
           else "Inference precision f32; the processor has no bf16."),
        "torch int8: `quantize_dynamic` of the linear layers per channel, SDPA attention, traced and frozen; embeddings stay fp32.",
    ]  # fmt: skip
    out.append("\n".join(f"- {line}" for line in lines) + "\n")
    return "\n".join(out)


def main():
    raw = json.loads(pathlib.Path(sys.argv[1]).read_text())
    out = pathlib.Path(sys.argv[2])
    picture = out.with_name(out.name + ".png")
    if "fixed" in raw:
        chart(raw, picture)
    written = out.with_name(out.name + ".tmp")
    written.write_text(document(raw, picture), encoding="utf-8")
    os.replace(written, out.with_name(out.name + ".md"))
    print(f"wrote {out}.md")


if __name__ == "__main__":
    main()

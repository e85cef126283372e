"""Run files, and what runs gave."""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import random
import threading

from rows import DATA, rows

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNS = ROOT / ".cache/experiments/runs"
FOLDS = 5
FINISHED = ROOT / "benches/results/training.jsonl"
LOCK = threading.Lock()


@contextlib.contextmanager
def alone():
    """Only one thread of one driver at a time."""
    RUNS.mkdir(parents=True, exist_ok=True)
    with LOCK, open(RUNS / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def directory(data, row, fold):
    return RUNS / data / row / str(fold)


def half():
    """Whether this processor has products in bf16. Where it has none, f32 is faster, and runs take that."""
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def recipe(data, row, fold, bf16=True, device="cpu"):
    """The run file's text."""
    start, plan, stages, *more = rows(DATA[data]["epochs"])[row]
    base, fp32 = "../../../../../minilm-l6-v2", f"../../fp32/{fold}/out/checkpoint"
    lines = [f'model = "{base if start == "base" else fp32}"', 'output = "out"']
    lines.append("threads = 1" if device == "cpu" else f'device = "{device}"')
    if row != "fp32" and bf16:
        lines.append("bf16 = true")
    if any("distill" in stage for stage in stages):
        lines.append(f'teacher = "{fp32}"')
    lines += [f"{key} = {toml(value)}" for keys in more for key, value in keys.items()]
    lines += ["", "[data]", f'train = "../../../../{data}.tsv"', f'text = "{DATA[data]["text"]}"']
    lines += ['label = "label"', f"test = {{ fold = {fold}, of = {FOLDS} }}", "", "[plan]"]
    lines += [f"{key} = {toml(value)}" for key, value in plan.items()]
    for stage in stages:
        lines += ["", "[[stage]]", *(f"{key} = {toml(value)}" for key, value in stage.items())]
    return "\n".join(lines) + "\n"


def key(data, row, fold):
    """Names a run: the same for the same recipe, whatever computes and multiplies in what."""
    digest = hashlib.sha256(recipe(data, row, fold).encode()).hexdigest()
    return data, row, fold, digest[:16]


def finished():
    """What runs gave, by key."""
    lines = FINISHED.read_text().splitlines() if FINISHED.exists() else []
    results = map(json.loads, lines)
    return {(r["data"], r["row"], r["fold"], r["recipe"]): r for r in results}


def answered(data, row, fold):
    """The answers of a run of this machine, by line."""
    answers = (directory(data, row, fold) / "out/answers.jsonl").read_text().splitlines()
    return sorted(map(json.loads, answers), key=lambda answer: answer["line"])


def right(answers):
    """For each whether it (mode int8) is right."""
    return "".join(str(int(answer["int8"] == answer["label"])) for answer in answers)


def unlike(device):
    """What is to be said of runs on this machine, if they are not as others."""
    if device != "cpu":
        return "trained on a GPU with products in f32"
    return None if half() else "trained with products in f32: the processor has none in bf16"


def keep(data, row, fold, result, device):
    """Keeps what a run printed, and which of its answers are right. An fp32 model that was made again, because
    its weights were on another machine, changes nothing: rows made before are compared with the first one,
    rows that start from this one or learn from it with this one."""
    if row == "fp32" and key(data, row, fold) in finished():
        return
    answers = answered(data, row, fold)
    lines = " ".join(str(answer["line"]) for answer in answers)
    new = {
        **dict(zip(("data", "row", "fold", "recipe"), key(data, row, fold))),
        "accuracy": result["int8"]["accuracy"],
        "exact_accuracy": result["exact"]["accuracy"],
        "weight_bytes": result["weight_bytes"],
        "compression_ratio": result["compression_ratio"],
        # Which lines of the data, and for each whether the answer (mode int8) is right.
        "lines": hashlib.sha256(lines.encode()).hexdigest()[:16],
        "right": right(answers),
    }
    if row != "fp32" and (directory(data, "fp32", fold) / "out/answers.jsonl").exists():
        new["fp32"] = right(answered(data, "fp32", fold))
    if note := row != "fp32" and unlike(device):
        new["note"] = note
    with alone():
        known = [r for k, r in finished().items() if k[:3] != (data, row, fold)]
        known.append(new)
        place = {row: number for number, row in enumerate(rows(1))}
        # Rows that are no more come last.
        known.sort(key=lambda r: (r["data"], place.get(r["row"], len(place)), r["fold"]))
        partial = FINISHED.with_suffix(".tmp")
        partial.write_text("".join(json.dumps(r) + "\n" for r in known))
        os.replace(partial, FINISHED)


def learns(row):
    """Whether a row starts from an fp32 model or learns from one."""
    start, _, stages, *_ = rows(1)[row]
    return start == "fp32" or any("distill" in stage for stage in stages)


def reference(data, row, own, other):
    """Which of fp32's answers are right where a row is compared with it: the model's that it starts or learns
    from, else the table's own."""
    return own.get("fp32", other["right"]) if learns(row) else other["right"]


def baselines(data, row, own, base, other, fold):
    """Of two runs that start or learn from different fp32 models those models' right answers; else nothing."""
    fp32 = finished().get(key(data, "fp32", fold))
    if "fp32" in (row, base) or not fp32 or not (learns(row) and learns(base)):
        return None
    pair = reference(data, row, own, fp32), reference(data, base, other, fp32)
    return None if pair[0] == pair[1] else pair


def made_again():
    """Rows whose fp32 model is not the table's own: its accuracy, by fold."""
    known, found = finished(), {}
    for data in DATA:
        for row in rows(1):
            for fold in range(FOLDS):
                own, other = known.get(key(data, row, fold)), known.get(key(data, "fp32", fold))
                if own and other and (beside := reference(data, row, own, other)) != other["right"]:
                    accuracy = 100 * beside.count("1") / len(beside)
                    found.setdefault((data, fold, f"{accuracy:.2f}", f"{100 * other['accuracy']:.2f}"), []).append(row)
    return found


def interval(differences):
    """A 95 % bootstrap interval of the mean over sentences, in points."""
    numbers = random.Random(1)
    means = []
    for _ in range(2000):
        means.append(sum(numbers.choices(differences, k=len(differences))) / len(differences))
    means.sort()
    return 100 * means[50], 100 * means[-51]


@functools.cache
def compared(data, row, base):
    """A row beside another, on the folds for which both are there; None if there is none. For
    when all runs are done: what it finds is remembered."""
    known = finished()
    pairs = [(known.get(key(data, row, fold)), known.get(key(data, base, fold)), fold) for fold in range(FOLDS)]
    pairs = [(own, other, fold) for own, other, fold in pairs if own and other]
    if not pairs:
        return None
    every, differences, apart = [], [], False
    for own, other, fold in pairs:
        assert own["lines"] == other["lines"], f"{data} {row}: other texts than those of {base}"
        beside = reference(data, row, own, other) if base == "fp32" else other["right"]
        every += map(int, own["right"])
        each = [int(a) - int(b) for a, b in zip(own["right"], beside)]
        if models := baselines(data, row, own, base, other, fold):
            # Each beside its own: what is between those is not the rows' doing.
            apart = True
            each = [d - (int(a) - int(b)) for d, a, b in zip(each, *models)]
        differences += each
    return {
        "folds": len(pairs),
        "texts": len(every),
        "accuracy": 100 * sum(every) / len(every),
        "difference": 100 * sum(differences) / len(differences),
        "interval": interval(differences),
        "weight_bytes": pairs[0][0]["weight_bytes"],
        # Whether some runs of the two are of different fp32 models.
        "apart": apart,
    }

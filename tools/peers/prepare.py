"""What is compared: the virtual environment, the models of every runtime, the workloads.

All of it lies in .cache/peers, a step is skipped where its result is there, and every result appears
by one rename. What a result was made with stands in a stamp beside it; another stamp makes it anew.
"""

import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache" / "peers"
PYTHON = CACHE / "venv" / "bin" / "python"
REVIEWS = ROOT / ".cache" / "reviews"
MINILM = ROOT / ".cache" / "minilm-l6-v2"

CALIBRATION_TEXTS = 300
CALIBRATION = REVIEWS / "calibration.txt"
# Our runners of each model, the one to compare with first: what `centroid convert` is given.
# RoBERTa's is its default plan, MiniLM's the plan of models/minilm-l6.centroid.
MODELS = {
    "roberta-base": {"centroid": ["--block", "attention=8,embedding=16"]},
    "minilm-l6": {
        "centroid": ["--block", "ffn=4", "--row-scale"],
        "centroid-default": [],
    },
}


def say(text):
    print(text, file=sys.stderr, flush=True)


def call(*command, **options):
    done = subprocess.run([str(part) for part in command], **options)
    if done.returncode:
        sys.exit(f"peers: {' '.join(map(str, command))} ended with status {done.returncode}")


def digest(*paths):
    """Of files, and of the Rust files in directories."""
    total = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*.rs")) if path.is_dir() else [path]:
            total.update(file.read_bytes())
    return total.hexdigest()


def stamped(stamp, value):
    return stamp.is_file() and stamp.read_text() == value


def environment():
    requirements = HERE / "requirements.txt"
    stamp, value = CACHE / "venv" / "stamp", digest(requirements)
    if stamped(stamp, value):
        return
    if sys.version_info < (3, 11):
        sys.exit("peers: Python 3.11 or later is needed")
    say("installing the runtimes into .cache/peers/venv (about 3 GB to download, 5 GB there)")
    if not PYTHON.exists():
        call(sys.executable, "-m", "venv", CACHE / "venv")
    call(PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", requirements)
    stamp.write_text(value)


def build():
    """Paths of `centroid` and of its runner."""
    call("cargo", "build", "--release", "--locked", "--bin", "centroid", "--example", "peers_centroid", cwd=ROOT)
    metadata = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"]
    metadata = json.loads(subprocess.run(metadata, cwd=ROOT, check=True, capture_output=True).stdout)
    release = pathlib.Path(metadata["target_directory"]) / "release"
    return release / "centroid", release / "examples" / "peers_centroid"


def export(*arguments):
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "TRANSFORMERS_VERBOSITY": "error"}
    call(PYTHON, HERE / "export.py", *arguments, env=environment, stdout=sys.stderr)


def checkpoint(name, centroid):
    target = CACHE / name / "checkpoint"
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if name == "minilm-l6":
        work = CACHE / name / "checkpoint.tmp"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(MINILM, work)
        # Without it texts may be as long as there are positions, 512, and not 256 as its authors chose.
        (work / "sentence_bert_config.json").unlink()
        work.rename(target)
        return
    say(f"{name}: a checkpoint with random weights")
    work = CACHE / name / "checkpoint.tmp"
    shutil.rmtree(work, ignore_errors=True)
    export("checkpoint", name, work)
    # The generated tokenizer has the real one's size, which is what opening a file depends on.
    generated = work / "generated.centroid"
    call(centroid, "convert", "--random", name, "-o", generated, "--scheme", "int4", "--share", 12,
         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    script = "import json, sys; from read_centroid import load; json.dump(load(sys.argv[1]).tokenizer, sys.stdout)"
    with open(work / "tokenizer.json", "w", encoding="utf-8") as out:
        call(PYTHON, "-c", script, generated, cwd=ROOT / "tools" / "goldens", stdout=out)
    generated.unlink()
    work.rename(target)


def convert(name, centroid, file, arguments):
    target, stamp = CACHE / name / file, CACHE / name / f"{file}.stamp"
    parts = [ROOT / "src" / part for part in ("convert", "quant", "artifact")]
    parts += [argument for argument in arguments if isinstance(argument, pathlib.Path)]
    arguments = [str(argument) for argument in arguments]
    value = digest(*parts) + " ".join(arguments)
    if target.exists() and stamped(stamp, value):
        return
    say(f"{name}: {file}")
    call(centroid, "convert", CACHE / name / "checkpoint", "-o", target, "--force", *arguments,
         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    stamp.write_text(value)


def peers(name):
    directory = CACHE / name
    stamp, value = directory / "peers.stamp", digest(HERE / "requirements.txt", HERE / "export.py")
    steps = {
        "fp32.onnx": ["onnx"],
        "onnxruntime-fp32.onnx": ["onnxruntime-fp32"],
        "onnxruntime-int8.onnx": ["onnxruntime-int8"],
        "openvino-int8.xml": ["openvino-int8"],
        "torch-int8.pt": ["torch-int8"],
    }
    if not stamped(stamp, value):
        for file in steps:
            (directory / file).unlink(missing_ok=True)
        stamp.write_text(value)
    for file, [step] in steps.items():
        if not (directory / file).exists():
            say(f"{name}: {file}")
            more = [directory / "calibration.json"] if step == "openvino-int8" else []
            export(step, directory, *more)


def texts():
    """Ids of the movie reviews, in an order drawn by digest, by MiniLM's tokenizer."""
    out = CACHE / "reviews.json"
    if not out.exists():
        lines = (REVIEWS / "movie.tsv").read_text(encoding="utf-8").split("\n")
        lines = [line.split("\t")[1] for line in lines if line]
        lines.sort(key=lambda line: hashlib.sha256(line.encode()).digest())
        drawn = CACHE / "reviews.txt"
        drawn.write_text("\n".join(lines) + "\n", encoding="utf-8")
        export("ids", MINILM, drawn, CACHE / "reviews.json.tmp")
        os.replace(CACHE / "reviews.json.tmp", out)
    return json.loads(out.read_text())


class Workloads:
    """Files of batches of ids. RoBERTa gets the reviews' ids from MiniLM's tokenizer, between special
    tokens of its own: there is no vocabulary for its random weights, and all but their number is the
    same to them."""

    def __init__(self, name):
        self.directory = CACHE / name / "work"
        self.directory.mkdir(parents=True, exist_ok=True)
        config = json.loads((CACHE / name / "checkpoint" / "config.json").read_text())
        self.vocabulary = config["vocab_size"]
        self.first, self.last = (0, 2) if config["model_type"] == "roberta" else (101, 102)
        self.texts = [[self.first, *ids[1:-1], self.last] for ids in texts()]
        self.calibration = self.texts[-CALIBRATION_TEXTS:]
        (CACHE / name / "calibration.json").write_text(json.dumps(self.calibration))

    def file(self, name, batches):
        path = self.directory / f"{name}.json"
        text = json.dumps(batches)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        return str(path)

    def fixed(self, batch, tokens):
        draw = random.Random(f"{batch}x{tokens}")
        ids = [[draw.randrange(1000, self.vocabulary) for _ in range(tokens)] for _ in range(batch)]
        for text in ids:
            text[-1], text[0] = self.last, self.first
        return self.file(f"{batch}x{tokens}", [ids])

    def reviews(self, count, ordered):
        """Batches of 32 in slices of about eight batches: the files, and the number of texts of each.
        Sorted by length, the batches stand in a drawn order, so that slices are alike."""
        chosen = self.texts[:count]
        if ordered:
            chosen = sorted(chosen, key=len)
        batches = [chosen[at : at + 32] for at in range(0, len(chosen), 32)]
        if ordered:
            random.Random(0).shuffle(batches)
        slices = [batches[at : at + 8] for at in range(0, len(batches), 8)]
        name = f"reviews-{count}-{'sorted' if ordered else 'as-they-come'}"
        files = [self.file(f"{name}-{at}", slice) for at, slice in enumerate(slices)]
        return files, [sum(map(len, slice)) for slice in slices]


def everything(models):
    """Makes all that is missing; gives the runner of this runtime."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if not (MINILM / "model.safetensors").exists():
        call(ROOT / "tools" / "fetch-minilm", stdout=sys.stderr)
    call(ROOT / "tools" / "fetch-reviews", stdout=sys.stderr)
    if not CALIBRATION.exists():
        call(ROOT / "tools" / "calibration-text", stdout=sys.stderr)
    environment()
    centroid, runner = build()
    for name in models:
        checkpoint(name, centroid)
        Workloads(name)
        peers(name)
        for own, arguments in MODELS[name].items():
            convert(name, centroid, f"{own}.centroid", arguments)
        convert(name, centroid, "f32.centroid", ["--scheme", "f32"])
    return runner

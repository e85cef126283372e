"""The rows of the table: what each run file says. A small EfficientNet-Lite of its own, on Fashion-MNIST."""

SEEDS = 5

# 482,474 parameters; most are in matrices that are large beside a codebook.
NETWORK = """\
[network.shape]
size = 28
stem = 32
features = 768
blocks = [
    { expanded = 32, channels = 32 },
    { expanded = 64, channels = 64, stride = 2, kernel = 5 },
    { expanded = 256, channels = 64 },
    { expanded = 256, channels = 128, stride = 2, kernel = 5 },
    { expanded = 512, channels = 128 },
    { expanded = 512, channels = 128 },
]
"""

# Blocks of 8 in the three matrices that have the shortest rows for their size, whose scales weigh most.
WIDE = [{"pattern": f"{name}.weight", "block": 8} for name in ("features", "blocks.4.expand", "blocks.5.expand")]
# Filters by rows: as one block each, the first layer's 32 have 8 centroids among them.
ROWS = [{"pattern": f"blocks.{i}.depthwise.weight", "block": side} for i, side in enumerate((3, 5, 3, 5, 3, 3))]
# What that costs is little; together, closer to 14 times below f32.
FINER = [*ROWS, *(wide for wide in WIDE if not wide["pattern"].startswith("blocks.4"))]
# Early to late, as the paper has it for convolutional networks.
PARTS = [["blocks.0-2"], ["blocks.3"], ["blocks.4-5"], ["features.weight", "classifier"]]
PROXY = {"form": "proxy", "rate": 0.1}
QAT = {"form": "exact", "rate": 1.0}
TEACH = {"hidden": 1.0}
# Fine-tuning: relative to the size of a row.
TUNE = {"learning-rate": 2e-3}
EPOCHS = 2
# Pictures that layers' inputs are measured on.
CALIBRATED = 2000
SMALL = {"learning-rate": 1e-3, "centroid-learning-rate": 2e-3}


def stage(name, epochs, **keys):
    return {"name": name, "epochs": epochs, **keys}


def ipq(noise=None, **keys):
    """A part at a time; the rest is trained on after each, with noise if there was some before."""
    stages = []
    for number, part in enumerate(PARTS):
        more = {"noise": noise} if noise and number + 1 < len(PARTS) else {}
        rates = {"learning-rate": 2e-3, "centroid-learning-rate": 5e-3}
        stages.append(stage(f"codes-{number}", 1, quantize=part, **rates, **more, **keys))
    return stages


def calibrated(noise=None, **keys):
    """As `ipq`, with codes that higher rates would harm."""
    stages = ipq(noise, calibrate=CALIBRATED, **keys)
    return [{**stage, **SMALL} for stage in stages]


def rows():
    """By name: whether it starts from the seed's fp32 network, the plan, and the stages."""
    int8, int4, pq = ({"scheme": scheme} for scheme in ("int8", "int4", "pq"))
    finer = {**pq, "tensors": FINER}
    pq["tensors"] = WIDE
    scalar = lambda form, rate: [stage("noise", EPOCHS, noise={"form": form, "rate": rate}, **TUNE)]
    every = [name for part in PARTS for name in part]
    noisy = lambda noise: stage("noise", EPOCHS, noise=noise, **TUNE)
    first = stage("tune", 8, **{"learning-rate": 1e-2})
    return {
        "fp32": (False, {"scheme": "f32"}, [first]),
        # As long as the others are trained on, without anything else: what epochs alone do.
        "fp32-more": (True, {"scheme": "f32"}, [stage("tune", EPOCHS, **TUNE)]),
        "int8": (True, int8, [stage("none", 0)]),
        "int8-qat": (True, int8, scalar("int8", 1.0)),
        "int8-noise": (True, int8, scalar("int8", 0.5)),
        "int4": (True, int4, [stage("none", 0)]),
        "int4-qat": (True, int4, scalar("int4", 1.0)),
        "int4-noise": (True, int4, scalar("int4", 0.5)),
        "pq": (True, pq, [stage("codes", 0, quantize=every)]),
        "pq-ipq": (True, pq, ipq()),
        "pq-qat-ipq": (True, pq, [noisy(QAT), *ipq()]),
        "pq-noise-ipq": (True, pq, [noisy(PROXY), *ipq(PROXY)]),
        # As long as fp32 and pq-ipq together, with noise from the first step, as the paper trains convolutional
        # networks.
        "pq-noise-start": (False, pq, [{**first, "noise": PROXY}, *ipq(PROXY)]),
        "pq-noise-distil": (True, pq, [noisy(PROXY), *ipq(PROXY, distill=TEACH)]),
        # Codes for what each layer really gets, and epochs after the last of them.
        "pq-noise-longer": (True, pq, [noisy(PROXY), *calibrated(PROXY), stage("rest", 5, **SMALL)]),
        # The same without noise, and with the teacher's answers.
        "pq-longer": (True, pq, [*calibrated(), stage("rest", 5, **SMALL)]),
        "pq-longer-distil": (True, pq, [*calibrated(distill=TEACH), stage("rest", 5, distill=TEACH, **SMALL)]),
        # Finer blocks, and more epochs.
        "finer-distil": (True, finer, [*calibrated(distill=TEACH), stage("rest", 12, distill=TEACH, **SMALL)]),
    }


# What the paper found: the first of two is better.
ORDERS = [
    ("int8-noise", "int8-qat"),
    ("int4-noise", "int4-qat"),
    ("int4-noise", "int4"),
    ("pq-ipq", "pq"),
    ("pq-noise-ipq", "pq-ipq"),
    ("pq-noise-ipq", "pq-qat-ipq"),
    ("pq-noise-start", "pq-ipq"),
    ("pq-noise-distil", "pq-noise-ipq"),
    ("pq-noise-longer", "pq-noise-ipq"),
    ("pq-noise-longer", "pq-longer"),
    ("pq-longer-distil", "pq-longer"),
    ("finer-distil", "pq-longer-distil"),
]

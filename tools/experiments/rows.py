"""The rows of the table: what each run file says. Model: MiniLM-L6, fine-tuned."""

# Everything that is quantized: to one byte for 8 (ffn, embedding, position) or 4 (attention, head) weights.
ALL = ["ffn", "embedding", "attention", "position", "head"]

DATA = {
    "movie": {"text": "sentence", "epochs": 3},
    "trec": {"text": "question", "epochs": 5},
}


def stage(name, epochs, **keys):
    return {"name": name, "epochs": epochs, **keys}


# Ablations.
RATES = [0, 0.05, 0.1, 0.2, 0.5, 1]
BLOCKS = [4, 8, 16]
# What the paper found: the first of two is better.
ORDERS = [
    ("pq-ipq", "pq"),
    ("pq-noise-ipq", "pq-ipq"),
    ("pq-noise-ipq", "pq-qat-ipq"),
    ("pq-noise-distil", "pq-noise-ipq"),
    # The two above differ in more than distillation; these in noise alone.
    ("pq-noise-distil", "pq-distil"),
    ("int8-noise", "int8-qat"),
    ("int8-noise", "int8"),
    ("int4-noise", "int4-qat"),
    ("int4-noise", "int4"),
    ("int4-qat", "int4"),
]

# Texts, more than there are for training of TREC-6.
CALIBRATED = 4000

NOISE = {"form": "proxy", "rate": 0.1}
DISTIL = {"logits": 1.0, "hidden": 1.0}
# Also texts that the teacher was not trained with.
OTHERS = {**DISTIL, "splice": 0.5, "replace": 0.4}
# Higher rates do harm to calibrated codes.
SMALL = {"learning-rate": 3e-5, "centroid-learning-rate": 5e-5}


def ipq(noise=None):
    """FFN, then embeddings, then attention and the head; the rest is trained on after each."""
    stages = []
    for groups in (["ffn"], ["embedding", "position"], ["attention", "head"]):
        keys = {"quantize": groups, "learning-rate": 3e-5, "centroid-learning-rate": 1e-3}
        if noise and groups[0] != "attention":
            keys["noise"] = noise
        stages.append(stage(groups[0], 2, **keys))
    return stages


def blocks(**of):
    """A plan with other blocks for some groups."""
    return {"scheme": "pq", "groups": {group: {"block": block} for group, block in of.items()}}


def rows(epochs):
    """By name: the start ("base" or the fold's "fp32"), the plan, the stages, and other keys, if any."""
    tune = {"learning-rate": 5e-5}
    int8, int4, pq = ({"scheme": scheme} for scheme in ("int8", "int4", "pq"))
    scalar = lambda form, rate: stage("noise", epochs, noise={"form": form, "rate": rate}, **tune)
    return {
        "fp32": ("base", {"scheme": "f32"}, [stage("tune", epochs, **tune)]),
        "int8": ("fp32", int8, [stage("none", 0)]),
        "int8-qat": ("base", int8, [scalar("int8", 1.0)]),
        "int8-noise": ("base", int8, [scalar("int8", 0.5)]),
        "int4": ("fp32", int4, [stage("none", 0)]),
        "int4-qat": ("base", int4, [scalar("int4", 1.0)]),
        "int4-noise": ("base", int4, [scalar("int4", 0.5)]),
        "pq": ("fp32", pq, [stage("codes", 0, quantize=ALL)]),
        # Codes as `convert --calibrate` makes them, with (nearly) all training texts.
        "pq-calibrated": ("fp32", pq, [stage("codes", 0, quantize=ALL, calibrate=CALIBRATED)]),
        "pq-ipq": ("fp32", pq, ipq()),
        "pq-qat-ipq": ("base", pq, [stage("noise", epochs, noise={"form": "exact", "rate": 1.0}, **tune), *ipq()]),
        "pq-noise-ipq": ("base", pq, [stage("noise", epochs, noise=NOISE, **tune), *ipq(NOISE)]),
        # The teacher's answers in place of labels, codes that are made for them, and texts with other words.
        "pq-distil": ("fp32", pq_tables(), staged(), {"dropout": 0.0}),
        "pq-noise-distil": ("fp32", pq_tables(), [noisy(), *staged()], {"dropout": 0.0}),
        # At last with what the mode int8 rounds.
        "pq-noise-distil-int8": ("fp32", pq_tables(), [noisy(), *staged(), rounded()], {"dropout": 0.0}),
        # Blocks of 4 everywhere but in tables, and row scales.
        "pq4-calibrated": ("fp32", pq4(), [stage("codes", 0, quantize=ALL, calibrate=CALIBRATED)]),
        "pq4-distil": ("fp32", pq4(), [*staged(), rounded()], {"dropout": 0.0}),
        # Adjacent layers share weights; and of three such pairs the middle one is left out. Nothing trains them so
        # before tables get codes; the paper's models were trained with sharing from the beginning.
        "pq-share": ("fp32", pq_tables(), staged(), {"dropout": 0.0, "share": 2}),
        "pq-share-prune": ("fp32", pq_tables(), staged(), {"dropout": 0.0, "share": 2, "layers": [0, 1, 4, 5]}),
        # Noise alone before codes; and blocks of one size for all.
        **{f"rate-{rate}": ("base", pq, only_noise(rate, epochs)) for rate in RATES},
        **{
            f"block-{size}": ("fp32", blocks(**{group: size for group in ALL}), at_once(), {"dropout": 0.0})
            for size in BLOCKS
        },
    }


def pq_tables(**groups):
    """Blocks of 8 / 4 / 8, and a codebook for each block of the token table's rows."""
    tables = {"embedding": {"codebooks": 48}, "position": {"block": 4, "codebooks": 4}}
    return {"scheme": "pq", "groups": {**tables, **groups}}


def pq4():
    scaled = {"row-scale": True}
    return pq_tables(ffn={"block": 4, **scaled}, attention=scaled, embedding={"codebooks": 48, **scaled})


def noisy():
    return stage("noise", 1, noise=NOISE, distill=DISTIL, **SMALL)


def staged():
    """Tables first: their errors are the largest, and all other weights are trained to live with them."""
    groups = [("tables", ["embedding", "position"], 3), ("attention", ["attention", "head"], 2), ("ffn", ["ffn"], 2)]
    keys = {"calibrate": CALIBRATED, "warmup": 0.05, "distill": OTHERS, **SMALL}
    return [stage(name, epochs, quantize=of, **keys) for name, of, epochs in groups]


def at_once():
    return [stage("codes", 4, quantize=ALL, calibrate=CALIBRATED, warmup=0.05, distill=OTHERS, **SMALL)]


def rounded():
    return stage("int8", 1, int8=True, distill=OTHERS, **SMALL)


def only_noise(rate, epochs):
    """Exact noise: the other forms end below a rate of 1."""
    noise = {"noise": {"form": "exact", "rate": float(rate)}} if rate else {}
    tune = stage("noise", epochs, **noise, **{"learning-rate": 5e-5})
    return [tune, stage("codes", 0, quantize=ALL)]

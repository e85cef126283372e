"""The rows of the table: what each run file says. Model: MiniLM-L6, fine-tuned."""

# Everything that is quantized to one byte for 8 (ffn, embedding, position) or 4 (attention, head) weights.
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
    ("int8-noise", "int8-qat"),
    ("int4-noise", "int4-qat"),
]

# Texts, more than there are for training of TREC-6.
CALIBRATED = 4000

NOISE = {"form": "proxy", "rate": 0.1}
DISTIL = {"logits": 1.0, "hidden": 1.0}


def ipq(noise=None, distil=None):
    """FFN, then embeddings, then attention and the head; the rest is trained on after each."""
    stages = []
    for groups in (["ffn"], ["embedding", "position"], ["attention", "head"]):
        keys = {"quantize": groups, "learning-rate": 3e-5, "centroid-learning-rate": 1e-3}
        if noise and groups[0] != "attention":
            keys["noise"] = noise
        if distil:
            keys["distill"] = distil
        stages.append(stage(groups[0], 2, **keys))
    return stages


def at_once(epochs, distil):
    keys = {"quantize": ALL, "learning-rate": 3e-4, "centroid-learning-rate": 1e-3}
    return stage("codes", epochs, distill=distil, **keys)


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
        "pq-noise-distil": ("fp32", pq, distilled()),
        # Codes that change while centroids are trained; and at last what is rounded in use.
        "pq-noise-distil-reassign": ("fp32", pq, distilled(reassign=50)),
        "pq-noise-distil-int8": (
            "fp32",
            pq,
            [
                *distilled(),
                stage("int8", 1, int8=True, distill=DISTIL, **{"learning-rate": 1e-4, "centroid-learning-rate": 3e-4}),
            ],
        ),
        # From calibrated codes it takes small steps; and with blocks of 4 everywhere but in tables.
        "pq-distil": ("fp32", pq, gentle(), {"dropout": 0.0}),
        "pq4-calibrated": ("fp32", blocks(ffn=4), [stage("codes", 0, quantize=ALL, calibrate=CALIBRATED)]),
        "pq4-distil": ("fp32", blocks(ffn=4), gentle(), {"dropout": 0.0}),
        # The same with higher rates, codes that change, and half of the texts spliced.
        "pq4-spliced": ("fp32", blocks(ffn=4), spliced(), {"dropout": 0.0}),
        # Adjacent layers share weights; and of three such pairs the middle one is left out.
        "pq-share": ("fp32", pq, distilled(), {"share": 2}),
        "pq-share-prune": ("fp32", pq, distilled(), {"share": 2, "layers": [0, 1, 4, 5]}),
        # Noise alone before codes; and blocks of one size for all.
        **{f"rate-{rate}": ("base", pq, only_noise(rate, epochs)) for rate in RATES},
        **{
            f"block-{size}": ("fp32", blocks(**{group: size for group in ALL}), distilled())
            for size in BLOCKS
        },
    }


def distilled(**keys):
    noise = stage("noise", 1, noise=NOISE, distill=DISTIL, **{"learning-rate": 5e-5})
    return [noise, {**at_once(4, DISTIL), **keys}]


def gentle():
    """Small steps from calibrated codes; at last with what is rounded in use."""
    rates = {"learning-rate": 5e-5, "centroid-learning-rate": 1e-4}
    codes = stage("codes", 3, quantize=ALL, calibrate=CALIBRATED, distill=DISTIL, **rates)
    return [codes, stage("int8", 1, int8=True, distill=DISTIL, **rates)]


def spliced():
    distil = {**DISTIL, "splice": 0.5}
    rates = {"learning-rate": 1e-4, "centroid-learning-rate": 1e-4}
    keys = {"quantize": ALL, "calibrate": CALIBRATED, "reassign": 20, "warmup": 0.05}
    codes = stage("codes", 4, distill=distil, **keys, **rates)
    return [codes, stage("int8", 1, int8=True, distill=distil, **{**rates, "learning-rate": 5e-5})]


def only_noise(rate, epochs):
    """Exact noise: the other forms end below a rate of 1."""
    noise = {"noise": {"form": "exact", "rate": float(rate)}} if rate else {}
    tune = stage("noise", epochs, **noise, **{"learning-rate": 5e-5})
    return [tune, stage("codes", 0, quantize=ALL)]

#!/usr/bin/env python3
"""A peer's side of tools/peers/run: a process that runs batches of token ids on request and says how
long they took. tools/peers/centroid.rs is this runtime's side and speaks the same lines.

    peer.py RUNTIME MODEL_DIR THREADS FIRST.json

RUNTIME is one of RUNTIMES below. A JSON file holds a workload: a list of batches, each a list of
texts, each a list of ids; texts of one batch are padded to the longest. The model is opened and FIRST
is run once; the first line of output says how long that took, imports not counted. Then each line of
standard input is a request, {"work": FILE, "warm": N, "calls": N, "outputs": BOOL}, and each line of
output its answer: the nanoseconds of each call, the peak of resident memory, and, where asked for,
the outputs of the last call. A call runs every batch of the workload. Padding and conversion to the
runtime's arrays happen before the clock starts.
"""

import json
import pathlib
import sys
import time

RUNTIMES = [
    "onnxruntime-fp32",
    "onnxruntime-int8",
    "openvino-fp32",
    "openvino-int8-f32",  # The last part is the hint on the precision of what is not int8.
    "openvino-int8-bf16",
    "openvino-int8-f32-dynamic",
    "torch-int8",
]


def memory(field):
    """VmRSS or VmHWM, resident memory now and at its peak, in bytes; None where Linux is not."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def padded(batch, pad):
    """Ids and mask as int64 arrays [texts, longest]."""
    import numpy as np

    ids = np.full((len(batch), max(map(len, batch))), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(batch):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return ids, mask


class Onnxruntime:
    """Sequential execution, every graph optimisation, one pool of THREADS that spins (the default)."""

    def __init__(self, file):
        import numpy  # noqa: F401  Its import is not part of opening a model.
        import onnxruntime

        self.file, self.version = file, onnxruntime.__version__

    def open(self, directory, threads):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = ort.InferenceSession(
            str(directory / self.file), options, providers=["CPUExecutionProvider"]
        )

    def prepare(self, batches):
        return [{"input_ids": ids, "attention_mask": mask} for ids, mask in batches]

    def run(self, batch):
        return self.session.run(None, batch)[0]


class Openvino:
    """One stream of THREADS. A workload with batches of one shape gets a model compiled for just that
    shape, the fastest that OpenVINO has; others, and all where `dynamic`, one for any shape."""

    def __init__(self, file, hint, dynamic):
        import numpy  # noqa: F401
        import openvino

        self.file, self.hint, self.dynamic = file, hint, dynamic
        self.version = openvino.__version__.split("-")[0]
        self.compiled = {}

    def open(self, directory, threads):
        import openvino

        self.core = openvino.Core()
        self.model = self.core.read_model(directory / self.file)
        self.settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.hint,
        }

    def prepare(self, batches):
        shapes = {ids.shape for ids, _ in batches}
        shape = (-1, -1) if self.dynamic or len(shapes) > 1 else shapes.pop()
        if shape not in self.compiled:
            # Only one at a time, or memory would grow by the weights with every workload.
            self.compiled = {}
            self.model.reshape({port: list(shape) for port in self.model.inputs})
            compiled = self.core.compile_model(self.model, "CPU", self.settings)
            self.compiled[shape] = compiled.create_infer_request()
        self.request = self.compiled[shape]
        return [{"input_ids": ids, "attention_mask": mask} for ids, mask in batches]

    def run(self, batch):
        return self.request.infer(batch, share_inputs=True, share_outputs=True)[0]


class Torch:
    """Linear layers with int8 weights and activations quantized per call, the rest in fp32, traced
    and frozen."""

    def __init__(self):
        import torch

        self.version = torch.__version__

    def open(self, directory, threads):
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        torch.set_grad_enabled(False)
        self.model = torch.jit.load(str(directory / "torch-int8.pt"))

    def prepare(self, batches):
        import torch

        return [(torch.from_numpy(ids), torch.from_numpy(mask)) for ids, mask in batches]

    def run(self, batch):
        return self.model(*batch).numpy()


def runtime(name):
    if name.startswith("onnxruntime-"):
        return Onnxruntime(f"{name}.onnx")
    if name == "openvino-fp32":
        return Openvino("fp32.onnx", "f32", False)
    if name.startswith("openvino-int8-"):
        return Openvino("openvino-int8.xml", name.split("-")[2], name.endswith("-dynamic"))
    return Torch()


def main():
    name, directory, threads, first = sys.argv[1:]
    directory, threads = pathlib.Path(directory), int(threads)
    pad = json.loads((directory / "checkpoint" / "config.json").read_text())["pad_token_id"]
    memory_before = memory("VmRSS")

    start = time.perf_counter_ns()
    if name not in RUNTIMES:
        sys.exit(f"peer: {name} is none of {', '.join(RUNTIMES)}")
    peer = runtime(name)
    imported = time.perf_counter_ns() - start
    work = [padded(batch, pad) for batch in json.loads(pathlib.Path(first).read_text())]

    start = time.perf_counter_ns()
    peer.open(directory, threads)
    batches = peer.prepare(work)
    opened = time.perf_counter_ns() - start
    for batch in batches:
        peer.run(batch)
    first_result = time.perf_counter_ns() - start
    say = {
        "open_ns": opened,
        "first_ns": first_result,
        "import_ns": imported,
        "memory_before": memory_before,
        "memory_peak": memory("VmHWM"),
        "about": {"version": peer.version},
    }
    print(json.dumps(say), flush=True)

    path = first
    for line in sys.stdin:
        request = json.loads(line)
        if request["work"] != path:
            path = request["work"]
            work = json.loads(pathlib.Path(path).read_text())
            batches = peer.prepare([padded(batch, pad) for batch in work])
        for _ in range(request.get("warm", 0)):
            for batch in batches:
                peer.run(batch)
        times, outputs = [], []
        for _ in range(request["calls"]):
            start = time.perf_counter_ns()
            outputs = [peer.run(batch) for batch in batches]
            times.append(time.perf_counter_ns() - start)
        answer = {"ns": times, "memory_peak": memory("VmHWM")}
        if request.get("outputs"):
            # Outputs may lie in memory that the next batch overwrites: run again, copying.
            rows = [row.tolist() for batch in batches for row in peer.run(batch)]
            answer["outputs"] = rows
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""A peer's side of tools/peers/networks, and what makes the peers' models:

    peer_network.py RUNTIME MODEL_DIR THREADS FIRST.json      answers requests as peer.py does
    peer_network.py export NAME SIZE MODEL_DIR                fp32.onnx and openvino-int8.xml

RUNTIME is onnxruntime-fp32, openvino-fp32, openvino-int8-f32 or openvino-int8-bf16 (the hint on the precision of
what is not int8). A workload is {"images": N}: images are made up before the clock starts.
"""

import json
import os
import pathlib
import sys
import time

import numpy as np
from peer import memory

CALIBRATION = 32


def images(count, size):
    values = np.random.default_rng(1).uniform(-1, 1, (count, 3, size, size))
    return [image[None] for image in values.astype(np.float32)]


def export(name, size, directory):
    """A network with random weights, as its author's package makes it."""
    import nncf
    import openvino
    import torch
    from efficientnet_pytorch import EfficientNet

    torch.manual_seed(0)
    model = EfficientNet.from_name(name, image_size=size).eval()
    model.set_swish(memory_efficient=False)
    # Untrained networks' activations die away: statistics of their own batches keep them about 1.
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.from_numpy(np.concatenate(images(8, size))))
    model.eval()
    written = directory / "fp32.onnx.tmp"
    torch.onnx.export(model, torch.zeros(1, 3, size, size), str(written), dynamo=False, opset_version=17,
                      input_names=["image"], output_names=["logits"])  # fmt: skip
    os.replace(written, directory / "fp32.onnx")
    quantized = nncf.quantize(
        openvino.Core().read_model(directory / "fp32.onnx"),
        nncf.Dataset(images(CALIBRATION, size), lambda image: {"image": image}),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=CALIBRATION,
    )
    openvino.save_model(quantized, directory / "openvino-int8.xml", compress_to_fp16=False)


class Onnxruntime:
    def __init__(self, directory, threads):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = ort.InferenceSession(str(directory / "fp32.onnx"), options, providers=["CPUExecutionProvider"])
        self.size = self.session.get_inputs()[0].shape[2]
        self.version = ort.__version__

    def run(self, image):
        return self.session.run(None, {"image": image})[0]


class Openvino:
    def __init__(self, file, hint, threads):
        import openvino

        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_PRECISION_HINT": hint}  # fmt: skip
        model = openvino.Core().compile_model(file, "CPU", settings)
        self.size = model.input(0).shape[2]
        self.request = model.create_infer_request()
        self.version = openvino.__version__.split("-")[0]

    def run(self, image):
        return self.request.infer([image], share_inputs=True, share_outputs=True)[0]


def main():
    if sys.argv[1] == "export":
        name, size, directory = sys.argv[2:]
        export(name, int(size), pathlib.Path(directory))
        return
    runtime, directory, threads, first = sys.argv[1:]
    directory, threads = pathlib.Path(directory), int(threads)
    memory_before = memory("VmRSS")
    start = time.perf_counter_ns()
    __import__("onnxruntime" if runtime.startswith("onnx") else "openvino")
    imported = time.perf_counter_ns() - start

    start = time.perf_counter_ns()
    match runtime.split("-"):
        case ["onnxruntime", "fp32"]:
            peer = Onnxruntime(directory, threads)
        case ["openvino", "fp32"]:
            peer = Openvino(directory / "fp32.onnx", "f32", threads)
        case ["openvino", "int8", hint]:
            peer = Openvino(directory / "openvino-int8.xml", hint, threads)
        case _:
            sys.exit(f"peer_network: {runtime} is unknown")
    opened = time.perf_counter_ns() - start
    made = time.perf_counter_ns()
    work = images(json.loads(pathlib.Path(first).read_text())["images"], peer.size)
    made = time.perf_counter_ns() - made
    for image in work:
        peer.run(image)
    first_result = time.perf_counter_ns() - start - made
    say = {"open_ns": opened, "first_ns": first_result, "import_ns": imported, "memory_before": memory_before,
           "memory_peak": memory("VmHWM"), "about": {"version": peer.version}}  # fmt: skip
    print(json.dumps(say), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        work = images(json.loads(pathlib.Path(request["work"]).read_text())["images"], peer.size)
        for _ in range(request.get("warm", 0)):
            for image in work:
                peer.run(image)
        times = []
        for _ in range(request["calls"]):
            start = time.perf_counter_ns()
            for image in work:
                peer.run(image)
            times.append(time.perf_counter_ns() - start)
        print(json.dumps({"ns": times, "memory_peak": memory("VmHWM")}), flush=True)


if __name__ == "__main__":
    main()

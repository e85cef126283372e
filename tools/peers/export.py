#!/usr/bin/env python3
"""Makes the models of the comparison, one step a process:

    export.py ids MINILM FILE OUT              token ids of FILE, one text a line
    export.py checkpoint roberta-base DIR      a checkpoint with random weights
    export.py onnx DIR                         fp32, for both runtimes that read ONNX
    export.py onnxruntime-fp32 DIR             fused for onnxruntime
    export.py onnxruntime-int8 DIR             the same, quantized
    export.py openvino-int8 DIR CALIBRATION    quantized by NNCF
    export.py torch-int8 DIR

DIR/checkpoint holds the checkpoint, DIR the rest. Every model takes input_ids and attention_mask,
int64 of [texts, tokens], and gives logits, or embeddings of norm 1 pooled over the tokens.
"""

import json
import os
import pathlib
import sys

import numpy as np


def load(directory, attention):
    """The checkpoint as a module of the signature above."""
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification

    checkpoint = directory / "checkpoint"
    config = json.loads((checkpoint / "config.json").read_text())
    classifier = config["architectures"][0].endswith("ForSequenceClassification")
    kind = AutoModelForSequenceClassification if classifier else AutoModel
    model = kind.from_pretrained(checkpoint, attn_implementation=attention, dtype=torch.float32)

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            positions = {}
            if config["model_type"] == "roberta":
                # As the model does itself, but with the mask instead of a comparison with the pad.
                positions = {"position_ids": torch.cumsum(attention_mask, 1) * attention_mask + 1}
            outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, **positions)
            if classifier:
                return outputs.logits
            weights = attention_mask[:, :, None].to(torch.float32)
            mean = (outputs.last_hidden_state * weights).sum(1) / weights.sum(1)
            return mean / mean.norm(dim=1, keepdim=True)

    torch.set_grad_enabled(False)
    return Wrapped().eval(), config


def example(config):
    """Two texts of different length."""
    import torch

    ids = torch.randint(5, config["vocab_size"], (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    ids[1, 6:] = config["pad_token_id"]
    return ids, mask


def replace(written, path):
    os.replace(written, path)
    print(f"wrote {path.name}: {path.stat().st_size:,} bytes")


def ids(minilm, texts, out):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lines = texts.read_text(encoding="utf-8").splitlines()
    out.write_text(json.dumps([encoding.ids for encoding in tokenizer.encode_batch(lines)]))


def checkpoint(name, directory):
    import torch
    from transformers import RobertaConfig, RobertaForSequenceClassification

    if name != "roberta-base":
        sys.exit(f"export: no random weights for {name}")
    config = RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, num_labels=3, layer_norm_eps=1e-5
    )
    torch.manual_seed(0)
    RobertaForSequenceClassification(config).save_pretrained(directory)


def export_onnx(directory):
    import torch

    model, config = load(directory, "eager")
    written = directory / "fp32.onnx.tmp"
    inputs = ["input_ids", "attention_mask"]
    torch.onnx.export(
        model,
        example(config),
        str(written),
        dynamo=False,  # Its graphs are the ones that onnxruntime's fusions know.
        opset_version=17,
        input_names=inputs,
        output_names=["output"],
        dynamic_axes={name: {0: "texts", 1: "tokens"} for name in inputs} | {"output": {0: "texts"}},
    )
    replace(written, directory / "fp32.onnx")


def onnxruntime_fp32(directory):
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    config = json.loads((directory / "checkpoint" / "config.json").read_text())
    model = optimizer.optimize_model(
        str(directory / "fp32.onnx"),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        optimization_options=FusionOptions("bert"),
        opt_level=1,
        use_gpu=False,
    )
    fused = {name: count for name, count in model.get_fused_operator_statistics().items() if count}
    print("fused:", fused)
    layers = config["num_hidden_layers"]
    norms = fused.get("SkipLayerNormalization", 0)
    gelus = fused.get("BiasGelu", 0) + fused.get("Gelu", 0) + fused.get("FastGelu", 0)
    if fused.get("Attention") != layers or norms < 2 * layers or gelus < layers:
        sys.exit(f"export: onnxruntime's fusions did not find all of the {layers} layers")
    written = directory / "onnxruntime-fp32.onnx.tmp"
    model.save_model_to_file(str(written), use_external_data_format=False)
    (directory / "onnxruntime-fused.json").write_text(json.dumps(fused))
    replace(written, directory / "onnxruntime-fp32.onnx")


def onnxruntime_int8(directory):
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Without VNNI, products of 8-bit weights overflow 16 bits: onnxruntime's manual asks for 7 bits
    # there. The instructions and so the speed are the same.
    vnni = {"avx512_vnni", "avx_vnni"} & cpu_flags()
    written = directory / "onnxruntime-int8.onnx.tmp"
    quantize_dynamic(
        str(directory / "onnxruntime-fp32.onnx"),
        str(written),
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=not vnni,
        # The fused operators are not ONNX's own, so it cannot tell what comes out of them.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    replace(written, directory / "onnxruntime-int8.onnx")


def openvino_int8(directory, calibration):
    import nncf
    import openvino

    pad = json.loads((directory / "checkpoint" / "config.json").read_text())["pad_token_id"]
    texts = json.loads(pathlib.Path(calibration).read_text())

    def inputs(batch):
        ids = np.full((len(batch), max(map(len, batch))), pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(batch):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        return {"input_ids": ids, "attention_mask": mask}

    model = openvino.Core().read_model(directory / "fp32.onnx")
    quantized = nncf.quantize(
        model,
        nncf.Dataset([[text] for text in texts], inputs),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(texts),
    )
    written = directory / "openvino-tmp.xml"
    openvino.save_model(quantized, written, compress_to_fp16=False)
    os.replace(written.with_suffix(".bin"), directory / "openvino-int8.bin")
    replace(written, directory / "openvino-int8.xml")


def torch_int8(directory):
    import torch

    model, config = load(directory, "sdpa")
    per_channel = torch.ao.quantization.per_channel_dynamic_qconfig
    quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear: per_channel})
    traced = torch.jit.freeze(torch.jit.trace(quantized, example(config)).eval())
    written = directory / "torch-int8.pt.tmp"
    torch.jit.save(traced, str(written))
    replace(written, directory / "torch-int8.pt")


def cpu_flags():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split(":")[1].split())
    return set()


STEPS = {
    "onnx": export_onnx,
    "onnxruntime-fp32": onnxruntime_fp32,
    "onnxruntime-int8": onnxruntime_int8,
    "openvino-int8": openvino_int8,
    "torch-int8": torch_int8,
}

if __name__ == "__main__":
    step, *arguments = sys.argv[1:]
    if step == "ids":
        ids(*map(pathlib.Path, arguments))
    elif step == "checkpoint":
        checkpoint(arguments[0], pathlib.Path(arguments[1]))
    else:
        STEPS[step](pathlib.Path(arguments[0]), *arguments[1:])

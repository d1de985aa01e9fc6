#!/usr/bin/python3
"""Compares what ebb computes with what other runtimes make of the ONNX files that it writes.

  compare.py FOLDER [--modules FOLDER] [--require]

FOLDER holds NAME.onnx and NAME.safetensors from interop_cases. Needs Debian's python3-onnx (its checker); python3-opencv
(cv2.dnn) and a folder with npm's onnxruntime-node are used when they are there, and named when they are not. --require makes
that a failure. Prints a table of
the largest absolute differences. Exit codes: 0 all within 1e-5, 1 not, 2 usage.
"""
import argparse
import pathlib
import shutil
import subprocess
import sys

import numpy
import onnx

from tensors import read_safetensors

TOLERANCE = 1e-5
# What OpenCV 4.6 does not read: sequences of any number (it takes N for 1), whole numbers as inputs, asymmetric padding of a
# transposed convolution, and some ops (Greater, Where, ReduceSum, Shape, Pow of two tensors).
NOT_OPENCV = """attention attention_causal conv_transpose dense_sequence embedding embedding_float group_norm gru layer_norm lstm
net_attention op_batch_norm op_broadcast op_choice op_class_token op_compare op_index op_layout op_matmul op_mean_over_batch
op_powers op_reduce op_reduce_image position_embedding simple_rnn""".split()


def with_opencv(cv2, folder, name):
    try:
        net = cv2.dnn.readNetFromONNX(str(folder / f"{name}.onnx"))
        file = read_safetensors(folder / f"{name}.safetensors")
        net.setInput(file["input"])
        got = net.forward()
        if got.shape != file["output"].shape:
            return f"shape {got.shape} for {file['output'].shape}"
        return float(numpy.abs(got - file["output"]).max())
    except cv2.error as e:
        return str(e).strip().splitlines()[-1][:60]


def with_onnxruntime(modules, folder, names):
    script = pathlib.Path(__file__).with_name("compare.mjs")
    run = subprocess.run(["node", str(script), str(modules), str(folder), *names], stdout=subprocess.PIPE, text=True, check=True)
    out = {}
    for line in run.stdout.splitlines():
        name, _, result = line.partition(" ")
        out[name] = result[7:] if result.startswith("error: ") else float(result)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--modules", type=pathlib.Path, help="folder with node_modules/onnxruntime-node")
    parser.add_argument("--require", action="store_true", help="fail when a runtime is not installed")
    o = parser.parse_args()
    names = sorted(p.stem for p in o.folder.glob("*.onnx"))
    if not names:
        sys.exit(f"compare.py: no models in {o.folder}")
    try:
        import cv2
    except ImportError:
        cv2 = None
        print("skipped: OpenCV (python3-opencv is not installed)")
    ort = {}
    if not o.modules or not (o.modules / "node_modules/onnxruntime-node").is_dir() or not shutil.which("node"):
        print("skipped: onnxruntime (needs node, and npm's onnxruntime-node in the folder that --modules names)")
    else:
        ort = with_onnxruntime(o.modules.resolve(), o.folder, names)
    wrong = 0
    if o.require and not (cv2 and ort):
        return 1
    print(f"{'model':24} {'checker':8} {'onnxruntime':>12} {'cv2.dnn':>12}")
    for name in names:
        checked = "valid"
        try:
            model = onnx.load(str(o.folder / f"{name}.onnx"))
            onnx.checker.check_model(model, full_check=True)
        except Exception as e:
            checked = "invalid"
            print(f"  {name}: {str(e).strip().splitlines()[0]}")
        a = ort.get(name)
        b = with_opencv(cv2, o.folder, name) if cv2 and name not in NOT_OPENCV else None
        text = ["-" if r is None else f"{r:.1e}" if isinstance(r, float) else r for r in (a, b)]
        good = checked == "valid" and all(r is None or (isinstance(r, float) and r <= TOLERANCE) for r in (a, b))
        wrong += not good
        print(f"{name:24} {checked:8} {text[0]:>12} {text[1]:>12}{'' if good else '  WRONG'}")
    print(f"{len(names) - wrong} of {len(names)} models agree within {TOLERANCE}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

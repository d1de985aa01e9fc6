#!/usr/bin/python3
"""Compares what ebb computes with what other runtimes make of the ONNX files that it writes.

  compare.py FOLDER [--modules FOLDER] [--only NAME,...]

FOLDER holds NAME.onnx and NAME.safetensors from interop_cases. Needs Debian's python3-onnx (its checker); python3-opencv
(cv2.dnn) and a folder with npm's onnxruntime-node are used when they are there, and named when they are not. Prints a table of
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
# What OpenCV 4.6 reads; it knows no other number of samples than that of a model of its own, and no whole numbers.
OPENCV = """net_mlp net_cnn net_best net_residual dense dense_no_bias conv conv_same_stride conv_pad_dilation conv_groups
conv_relu_pool depthwise depthwise_multiplier conv_transpose max_pool avg_pool global_avg_pool global_max_pool flatten
dropout spatial_dropout batch_norm_rows batch_norm_image residual concat act_relu act_sigmoid act_tanh act_leaky_relu act_elu
act_softmax act_image_relu act_image_sigmoid act_image_tanh""".split()


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
    parser.add_argument("--only", default="")
    o = parser.parse_args()
    names = sorted(p.stem for p in o.folder.glob("*.onnx"))
    if o.only:
        names = [n for n in names if n in o.only.split(",")]
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
        b = with_opencv(cv2, o.folder, name) if cv2 and True else None
        text = ["-" if r is None else f"{r:.1e}" if isinstance(r, float) else r for r in (a, b)]
        good = checked == "valid" and all(r is None or (isinstance(r, float) and r <= TOLERANCE) for r in (a, b))
        wrong += not good
        print(f"{name:24} {checked:8} {text[0]:>12} {text[1]:>12}{'' if good else '  WRONG'}")
    print(f"{len(names) - wrong} of {len(names)} models agree within {TOLERANCE}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

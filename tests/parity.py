#!/usr/bin/env python3
"""Reference vectors from PyTorch: values and gradients of ops, losses and layers, and trajectories of optimizers, in float64.

  tests/parity.py --ops GRADCHECK FILE         writes FILE (tests/parity.json is seed 1)
  tests/parity.py --ops GRADCHECK --live TESTS new random vectors, read at once by TESTS (the program ebb_tests)

GRADCHECK is the program gradcheck: the cases of ops, their inputs and what PyTorch is asked for come from the table of ops
(apps/gradcheck/op_table_*.cpp). Needs Debian's python3-torch. Images and kernels are turned from ebb's NHWC and HWIO on the way
in, and back on the way out.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import zlib

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)


def uniform(*shape, low=-1.0, high=1.0):
    return torch.rand(*shape) * (high - low) + low


def packed(t):
    return {"shape": list(t.shape), "values": t.detach().reshape(-1).tolist()}


# ---- words of the expressions in the table of ops ----

def conv(x, k, **options):
    return F.conv2d(x.permute(0, 3, 1, 2), k.permute(3, 2, 0, 1), **options).permute(0, 2, 3, 1)


def conv_back(x, k, **options):
    return F.conv_transpose2d(x.permute(0, 3, 1, 2), k.permute(3, 2, 0, 1), **options).permute(0, 2, 3, 1)


def padded(x, top, bottom, left, right):
    return F.pad(x, (0, 0, left, right, top, bottom))


def max_pool(x, size, **options):
    return F.max_pool2d(x.permute(0, 3, 1, 2), size, **options).permute(0, 2, 3, 1)


def avg_pool(x, size, **options):
    return F.avg_pool2d(x.permute(0, 3, 1, 2), size, count_include_pad=False, **options).permute(0, 2, 3, 1)


def columns(x, kernel):  # patches with the channels last
    n, h, w, c = x.shape
    patches = F.unfold(x.permute(0, 3, 1, 2), kernel).reshape(n, c, kernel[0] * kernel[1], h - kernel[0] + 1, w - kernel[1] + 1)
    return patches.permute(0, 3, 4, 2, 1).flatten(3)


def from_columns(x, image, kernel):
    n, h, w, size = x.shape
    taps = kernel[0] * kernel[1]
    patches = x.reshape(n, h * w, taps, size // taps).permute(0, 3, 2, 1).reshape(n, size, h * w)
    return F.fold(patches, image, kernel).permute(0, 2, 3, 1)


# ---- layers ----

def channels_first(f):  # over images and what goes with them
    return lambda x, *more: f(x.permute(0, 3, 1, 2), *more).permute(0, 2, 3, 1)


def gates(w, order):  # (..., gates * u) from one order of gates to another
    parts = w.chunk(len(order), -1)
    return torch.cat([parts[i] for i in order], -1)


def recurrent(kind, order):
    """A layer of torch from (in, gates * u) kernels in Keras' order of gates; all states."""
    def f(x, w, u, b, c=None):
        c = torch.zeros_like(b) if c is None else c
        weights = [gates(w, order).T, gates(u, order).T, gates(b, order), gates(c, order)]
        start = torch.zeros(1, x.shape[0], u.shape[0])
        start = (start, start) if kind is torch.lstm else start
        return kind(x, start, weights, True, 1, 0.0, True, False, True)[0]
    return f


def attention(x, *p):  # query, key, value, output: weight (in, out) and bias each
    w = [t.T for t in p[::2]]
    y, _ = F.multi_head_attention_forward(
        x.transpose(0, 1), x.transpose(0, 1), x.transpose(0, 1), x.shape[2], 2, torch.cat(w[:3]), torch.cat(p[1:6:2]), None, None, False,
        0.0, w[3], p[7], attn_mask=torch.triu(torch.full((x.shape[1], x.shape[1]), -torch.inf), 1))
    return y.transpose(0, 1)


def attention_inputs():
    return (uniform(2, 3, 4),) + tuple(uniform(4, 4) if i % 2 == 0 else uniform(4) for i in range(8))


LAYERS = {
    "batch_norm": (channels_first(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True, eps=1e-3)),
                   lambda: (uniform(3, 2, 4, 3), uniform(3), uniform(3))),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b, eps=1e-3), lambda: (uniform(2, 3, 4), uniform(4), uniform(4))),
    "group_norm": (channels_first(lambda x, w, b: F.group_norm(x, 2, w, b, eps=1e-3)), lambda: (uniform(2, 3, 2, 4), uniform(4), uniform(4))),
    "conv2d_grouped": (lambda x, k: conv(x, k, groups=2, stride=2), lambda: (uniform(2, 5, 6, 4), uniform(3, 2, 2, 6))),
    "conv2d_transposed": (lambda x, k: conv_back(x, k, stride=2, padding=1), lambda: (uniform(2, 3, 4, 3), uniform(4, 4, 2, 3))),
    "rnn": (recurrent(torch.rnn_tanh, [0]), lambda: (uniform(2, 4, 3), uniform(3, 2), uniform(2, 2), uniform(2))),
    "gru": (recurrent(torch.gru, [1, 0, 2]), lambda: (uniform(2, 4, 3), uniform(3, 6), uniform(2, 6), uniform(6), uniform(6))),
    "lstm": (recurrent(torch.lstm, [0, 1, 2, 3]), lambda: (uniform(2, 4, 3), uniform(3, 8), uniform(2, 8), uniform(8))),
    "attention": (attention, attention_inputs),
}

# NAdam is not here: that of PyTorch 1.13 computes its corrections in float32, which moves a trajectory by 2e-5.
# ebb's Adam and Adagrad follow Keras, whose eps stands elsewhere: a tiny one or none makes the two formulas meet.
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
    "sgd_momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "sgd_nesterov": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.001, alpha=0.9, eps=1e-7),
    "rmsprop_centered": lambda p: torch.optim.RMSprop(p, lr=0.001, alpha=0.9, eps=1e-7, centered=True),
    "rmsprop_momentum": lambda p: torch.optim.RMSprop(p, lr=0.001, alpha=0.9, eps=1e-7, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.001, eps=1e-14),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.001, eps=1e-14, weight_decay=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01, initial_accumulator_value=0.1, eps=0),
}


def vector(name, seed, f, make):
    torch.manual_seed(seed + zlib.crc32(name.encode()))  # the others stay as they are when one is added
    inputs = [t.requires_grad_() for t in make()]
    y = f(*inputs)
    cotangent = torch.rand_like(y)
    gradients = torch.autograd.grad(y, inputs, cotangent)
    return {"inputs": [packed(t) for t in inputs], "output": packed(y), "cotangent": packed(cotangent),
            "gradients": [packed(g) for g in gradients]}


def expression(text):
    return lambda *xs: eval(text, globals(), dict(zip("xyz", xs)) | {"xs": xs})


def vectors(program, seed):
    out = {"source": f"PyTorch {torch.__version__}, float64, seed {seed}", "ops": {}, "layers": {}, "optimizers": {}}
    cases = subprocess.run([program, "--vectors", "--seed", str(seed)], stdout=subprocess.PIPE, text=True, check=True).stdout
    for case in map(json.loads, cases.splitlines()):
        name, text = case["name"], case["torch"]
        try:
            out["ops"][name] = {"torch": text} | vector(
                name, seed, expression(text), lambda: [torch.tensor(x["values"]).reshape(x["shape"]) for x in case["inputs"]])
        except Exception as e:
            sys.exit(f"parity.py: {name}: {text}: {e}")
    for name, (f, make) in LAYERS.items():
        out["layers"][name] = vector(name, seed, f, make)
    torch.manual_seed(seed)
    # A curved slope: the gradient is 4 (A w)^3 A + w + 9, taken by hand so that only the optimizer is compared. It has no
    # minimum nearby, where dividing by the root of a vanishing mean square would blow rounding up.
    a, start = uniform(4, 4), uniform(4)
    for name, make in OPTIMIZERS.items():
        w = start.clone()
        optimizer = make([w])
        path = []
        for step in range(100):
            w.grad = 4 * (a @ w) ** 3 @ a + w + 9
            optimizer.step()
            if step % 10 == 9:
                path.append(w.tolist())
        out["optimizers"][name] = path
    out["valley"] = {"a": packed(a), "start": packed(start)}
    return out


def lines(all_vectors):
    """JSON with one case a line, as a diff can show it."""
    groups = []
    for key, group in all_vectors.items():
        if isinstance(group, dict):
            rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in group.items())
            groups.append(f"{json.dumps(key)}: {{\n{rows}\n}}")
        else:
            groups.append(f"{json.dumps(key)}: {json.dumps(group)}")
    return "{\n" + ",\n".join(groups) + "\n}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?")
    parser.add_argument("--ops", metavar="GRADCHECK", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--live", metavar="TESTS")
    args = parser.parse_args()
    if args.live:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            f.write(lines(vectors(args.ops, random.randrange(1 << 30))))
            f.flush()
            return subprocess.run([args.live, "-tc=parity*"], env=os.environ | {"EBB_PARITY": f.name}).returncode
    if not args.file:
        parser.error("name a file, or --live TESTS")
    text = lines(vectors(args.ops, args.seed))
    with open(args.file, "w") as f:
        f.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Reference vectors from PyTorch: values and gradients of ops, losses and layers, and trajectories of optimizers, in float64.

  tests/parity.py FILE [--seed N]      writes FILE (tests/parity.json is seed 1)
  tests/parity.py --live PROGRAM       new random vectors, read at once by PROGRAM (ebb_tests)

Needs Debian's python3-torch. Images and kernels are turned from ebb's NHWC and HWIO on the way in, and back on the way out.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)


def uniform(*shape, low=-1.0, high=1.0):
    return torch.rand(*shape) * (high - low) + low


def positive(*shape):
    return uniform(*shape, low=0.3, high=2.0)


def away_from_zero(*shape):
    x = uniform(*shape)
    return x + 0.2 * torch.sign(x)


def packed(t):
    return {"shape": list(t.shape), "values": t.detach().reshape(-1).tolist()}


def conv(**options):
    def f(x, k):
        return F.conv2d(x.permute(0, 3, 1, 2), k.permute(3, 2, 0, 1), **options).permute(0, 2, 3, 1)
    return f


def conv_same(x, k):  # what Keras calls "same": the odd zero goes to the bottom and right
    x = F.pad(x.permute(0, 3, 1, 2), (0, 1, 0, 1))
    return F.conv2d(x, k.permute(3, 2, 0, 1), stride=2).permute(0, 2, 3, 1)


def pool(kind, *args, **options):
    return lambda x: kind(x.permute(0, 3, 1, 2), *args, **options).permute(0, 2, 3, 1)


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


def weighted(x):  # Keras divides by the number of rows, PyTorch's mean by the sum of their weights
    return F.cross_entropy(x, LABELS, weight=WEIGHTS, reduction="sum") / len(LABELS)


LABELS = torch.tensor([2, 0, 1, 2])
SHARES = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
WEIGHTS = torch.tensor([0.5, 2.0, 1.5])
INDICES = torch.tensor([3, 0, 3, 1])

OPS = {
    "add": (lambda a, b: a + b, lambda: (uniform(2, 3), uniform(3))),
    "sub": (lambda a, b: a - b, lambda: (uniform(2, 1), uniform(2, 3))),
    "mul": (lambda a, b: a * b, lambda: (uniform(2, 3), uniform(2, 3))),
    "div": (lambda a, b: a / b, lambda: (uniform(2, 3), positive(2, 3))),
    "pow": (lambda a, b: a**b, lambda: (positive(2, 3), uniform(2, 3))),
    "pow_scalar": (lambda a: a**2.5, lambda: (positive(2, 3),)),
    "maximum": (torch.maximum, lambda: (uniform(2, 3), uniform(2, 3))),
    "minimum": (torch.minimum, lambda: (uniform(2, 3), uniform(2, 3))),
    "exp": (torch.exp, lambda: (uniform(5),)),
    "log": (torch.log, lambda: (positive(5),)),
    "log1p": (torch.log1p, lambda: (positive(5),)),
    "sqrt": (torch.sqrt, lambda: (positive(5),)),
    "square": (torch.square, lambda: (uniform(5),)),
    "reciprocal": (torch.reciprocal, lambda: (positive(5),)),
    "abs": (torch.abs, lambda: (away_from_zero(5),)),
    "sin": (torch.sin, lambda: (uniform(5),)),
    "cos": (torch.cos, lambda: (uniform(5),)),
    "erf": (torch.erf, lambda: (uniform(5),)),
    "tanh": (torch.tanh, lambda: (uniform(5),)),
    "sigmoid": (torch.sigmoid, lambda: (uniform(5, low=-6, high=6),)),
    "softplus": (F.softplus, lambda: (uniform(5, low=-6, high=6),)),
    "relu": (F.relu, lambda: (away_from_zero(5),)),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.3), lambda: (away_from_zero(5),)),
    "elu": (F.elu, lambda: (away_from_zero(5),)),
    "selu": (F.selu, lambda: (away_from_zero(5),)),
    "gelu": (F.gelu, lambda: (uniform(5),)),
    "silu": (F.silu, lambda: (uniform(5),)),
    "clip": (lambda x: torch.clamp(x, -0.5, 0.5), lambda: (uniform(9),)),
    "sum": (lambda x: x.sum(1), lambda: (uniform(2, 3, 2),)),
    "mean": (lambda x: x.mean((0, 2)), lambda: (uniform(2, 3, 2),)),
    "max": (lambda x: x.amax(1), lambda: (uniform(2, 3, 2),)),
    "min": (lambda x: x.amin(1), lambda: (uniform(2, 3, 2),)),
    "variance": (lambda x: x.var(1, unbiased=False), lambda: (uniform(2, 5),)),
    "logsumexp": (lambda x: x.logsumexp(1), lambda: (uniform(2, 5),)),
    "transpose": (lambda x: x.permute(2, 0, 1), lambda: (uniform(2, 3, 2),)),
    "slice": (lambda x: x[:, 1:6:2], lambda: (uniform(2, 7),)),
    "pad": (lambda x: F.pad(x, (1, 2)), lambda: (uniform(2, 3),)),
    "concat": (lambda a, b: torch.cat((a, b), 1), lambda: (uniform(2, 3), uniform(2, 2))),
    "stack": (lambda a, b: torch.stack((a, b), 1), lambda: (uniform(2, 3), uniform(2, 3))),
    "gather": (lambda x: x[INDICES], lambda: (uniform(4, 3),)),
    "pick": (lambda x: x.gather(1, LABELS[:, None])[:, 0], lambda: (uniform(4, 3),)),
    "matmul": (torch.matmul, lambda: (uniform(3, 4), uniform(4, 2))),
    "matmul_tt": (lambda a, b: a.T @ b.T, lambda: (uniform(4, 3), uniform(2, 4))),
    "matmul_batch": (torch.matmul, lambda: (uniform(2, 3, 4), uniform(2, 4, 2))),
    "linear": (lambda x, w, b: F.linear(x, w.T, b), lambda: (uniform(3, 4), uniform(4, 2), uniform(2))),
    "conv2d": (conv(), lambda: (uniform(2, 5, 4, 3), uniform(3, 2, 3, 2))),
    "conv2d_stride_pad": (conv(stride=2, padding=1), lambda: (uniform(1, 6, 5, 2), uniform(3, 3, 2, 2))),
    "conv2d_dilation": (conv(dilation=2), lambda: (uniform(1, 7, 6, 2), uniform(3, 2, 2, 2))),
    "conv2d_same": (conv_same, lambda: (uniform(1, 6, 4, 2), uniform(3, 3, 2, 2))),
    "max_pool2d": (pool(F.max_pool2d, 2), lambda: (uniform(1, 5, 4, 2),)),
    "max_pool2d_overlap": (pool(F.max_pool2d, 3, stride=1), lambda: (uniform(1, 5, 4, 2),)),
    "avg_pool2d": (pool(F.avg_pool2d, 2), lambda: (uniform(1, 5, 4, 2),)),
    "avg_pool2d_pad": (pool(F.avg_pool2d, 3, stride=2, padding=1, count_include_pad=False), lambda: (uniform(1, 5, 4, 2),)),
    "softmax": (lambda x: F.softmax(x, -1), lambda: (uniform(2, 4),)),
    "log_softmax": (lambda x: F.log_softmax(x, -1), lambda: (uniform(2, 4),)),
    "cross_entropy": (lambda x: F.cross_entropy(x, LABELS), lambda: (uniform(4, 3, low=-3, high=3),)),
    "cross_entropy_smooth": (lambda x: F.cross_entropy(x, LABELS, label_smoothing=0.1), lambda: (uniform(4, 3),)),
    "cross_entropy_shares": (lambda x: F.cross_entropy(x, SHARES), lambda: (uniform(4, 3),)),
    "bce_with_logits": (F.binary_cross_entropy_with_logits, lambda: (uniform(2, 3), uniform(2, 3, low=0, high=1))),
    "mse": (F.mse_loss, lambda: (uniform(2, 3), uniform(2, 3))),
    "mae": (F.l1_loss, lambda: (uniform(2, 3), uniform(2, 3))),
    "huber": (lambda a, b: F.huber_loss(a, b, delta=0.4), lambda: (uniform(2, 3), uniform(2, 3))),
    "kl_divergence": (lambda x, t: F.kl_div(F.log_softmax(x, -1), t, reduction="batchmean"), lambda: (uniform(2, 3), positive(2, 3))),
    "cross_entropy_weights": (weighted, lambda: (uniform(4, 3),)),
    "batch_norm": (channels_first(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True, eps=1e-3)),
                   lambda: (uniform(3, 2, 4, 3), uniform(3), uniform(3))),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b, eps=1e-3), lambda: (uniform(2, 3, 4), uniform(4), uniform(4))),
    "group_norm": (channels_first(lambda x, w, b: F.group_norm(x, 2, w, b, eps=1e-3)), lambda: (uniform(2, 3, 2, 4), uniform(4), uniform(4))),
    "conv2d_grouped": (conv(groups=2, stride=2), lambda: (uniform(2, 5, 6, 4), uniform(3, 2, 2, 6))),
    "conv2d_depthwise": (conv(groups=3, padding=1), lambda: (uniform(1, 5, 4, 3), uniform(3, 3, 1, 3))),
    "conv2d_transposed": (channels_first(lambda x, k: F.conv_transpose2d(x, k.permute(3, 2, 0, 1), stride=2, padding=1)),
                          lambda: (uniform(2, 3, 4, 3), uniform(4, 4, 2, 3))),
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


def vectors(seed):
    torch.manual_seed(seed)
    out = {"source": f"PyTorch {torch.__version__}, float64, seed {seed}", "ops": {}, "optimizers": {}}
    for name, (f, make) in OPS.items():
        inputs = [t.requires_grad_() for t in make()]
        y = f(*inputs)
        cotangent = torch.rand_like(y)
        gradients = torch.autograd.grad(y, inputs, cotangent)
        out["ops"][name] = {"inputs": [packed(t) for t in inputs], "output": packed(y), "cotangent": packed(cotangent),
                            "gradients": [packed(g) for g in gradients]}
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--live", metavar="PROGRAM")
    args = parser.parse_args()
    if args.live:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            json.dump(vectors(random.randrange(1 << 30)), f)
            f.flush()
            return subprocess.run([args.live, "-tc=parity*"], env=os.environ | {"EBB_PARITY": f.name}).returncode
    if not args.file:
        parser.error("name a file, or --live PROGRAM")
    with open(args.file, "w") as f:
        json.dump(vectors(args.seed), f)
        f.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
"""Weights and arrays of ebb in PyTorch, NumPy and Keras' HDF5 layouts, and back.

  exchange.py PROGRAM FOLDER [--require]

PROGRAM is interop_exchange; FOLDER takes the files. Uses Debian's python3-torch, python3-numpy and python3-h5py where they are
installed, and names what it skips, which --require makes a failure. Prints the largest absolute differences. Exit codes: 0 all as they should be, 1 not, 2 usage.
"""
import pathlib
import subprocess
import sys

import numpy

from tensors import read_safetensors, write_safetensors

failures = 0


def report(what, difference, most=1e-5):
    global failures
    good = difference <= most
    failures += not good
    print(f"{what:32} {difference:.1e}{'' if good else '  WRONG'}")


def torch_models():
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, body, shortcut=()):
            super().__init__()
            self.body, self.shortcut = nn.Sequential(*body), nn.Sequential(*shortcut)

        def forward(self, x):
            return self.shortcut(x) + self.body(x)

    class Concat(nn.Module):
        def __init__(self, *branches):
            super().__init__()
            self.branches = nn.ModuleList(nn.Sequential(*b) for b in branches)

        def forward(self, x):
            return torch.cat([b(x) for b in self.branches], 1)

    def conv(i, o, k=3, **more):
        return nn.Conv2d(i, o, k, **more)

    def same(i, o):
        return nn.Conv2d(i, o, 3, padding=1)

    norm = {"eps": 1e-3}
    images = {
        "mlp": [nn.Flatten(), nn.BatchNorm1d(60, **norm), nn.Dropout(), nn.Linear(60, 8), nn.ReLU(), nn.Linear(8, 5)],
        "cnn": [conv(3, 4), nn.ReLU(), nn.MaxPool2d(2), conv(4, 6, 2, groups=2), nn.BatchNorm2d(6, **norm), nn.ReLU(),
                conv(6, 12, 2, groups=6), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(108, 8), nn.Tanh(), nn.Linear(8, 5)],
        "residual": [same(3, 4), nn.ReLU(), Residual([same(4, 4), nn.ReLU(), same(4, 4)]),
                     Residual([same(4, 6)], [nn.Conv2d(4, 6, 1)]),
                     Concat([same(6, 2), nn.ReLU()], [same(6, 3), nn.ReLU(), same(3, 2)]), nn.ConvTranspose2d(4, 3, 2, stride=2),
                     nn.GroupNorm(3, 3, **norm), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)],
    }
    out = {}
    for name, layers in images.items():
        net = nn.Sequential(*layers)
        out[name] = net, lambda x, net=net: net(x.permute(0, 3, 1, 2))
    for name, layer in {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}.items():
        net = nn.Sequential(layer(4, 3, batch_first=True))
        out[name] = net, lambda x, net=net: net[0](x)[0][:, -1]
    net = nn.Sequential(nn.LayerNorm(4, **norm), nn.MultiheadAttention(4, 2, batch_first=True))
    out["attention"] = net, lambda x, net=net: net[1](net[0](x), net[0](x), net[0](x), need_weights=False)[0]
    net = nn.Sequential(nn.Embedding(7, 4))
    out["embedding"] = net, lambda x, net=net: net(x.long())
    return out


def with_torch(folder):
    import torch
    torch.manual_seed(1)
    for name, (net, run) in torch_models().items():
        net.eval()
        state = {k: torch.from_numpy(v) if v.ndim else torch.tensor(v.item()) for k, v in read_safetensors(folder / f"{name}.torch.safetensors").items()}
        net.load_state_dict(state, strict=True)
        io = read_safetensors(folder / f"{name}.io.safetensors")
        x = torch.from_numpy(io["input"])
        with torch.no_grad():
            report(f"{name} in PyTorch", numpy.abs(run(x).numpy() - io["output"]).max())
            for key, p in net.state_dict().items():  # other values, for the way back
                if p.is_floating_point():
                    p.copy_(torch.rand_like(p) + 0.5 if key.endswith("running_var") else p + 0.3 * torch.randn_like(p))
            write_safetensors(folder / f"{name}.from_torch.safetensors", {k: v.numpy() for k, v in net.state_dict().items()})
            write_safetensors(folder / f"{name}.from_torch.io.safetensors", {"input": io["input"], "output": run(x).numpy()})


def with_numpy(folder):
    ours = read_safetensors(folder / "arrays.safetensors")
    npz = numpy.load(folder / "arrays.npz")
    report("numpy.load of names", set(npz.files) != set(ours), 0)
    for name, t in ours.items():
        for a in (npz[name], numpy.load(folder / f"{name}.npy")):
            report(f"numpy.load of {name}", not (a.dtype == t.dtype and a.shape == t.shape and numpy.array_equal(a, t)), 0)
    random = numpy.random.default_rng(1)
    arrays = {"f4": random.standard_normal((3, 4), "f4"), "fortran": numpy.asfortranarray(random.standard_normal((2, 3, 4))),
              "i4": numpy.array([[1, -2], [2**31 - 1, -2**31]], "i4"), "i8": numpy.array([2**53], "i8"), "bool": random.random(9) < 0.5,
              "u1": random.integers(0, 256, (2, 2), "u1"), "scalar": numpy.array(2.5), "none": numpy.zeros((0, 3), "f4"), "large": random.standard_normal(100000)}
    numpy.savez(folder / "numpy.npz", **arrays)
    numpy.savez_compressed(folder / "numpy_deflated.npz", **arrays)
    for name, a in arrays.items():
        numpy.save(folder / f"numpy_{name}.npy", a)
    kinds = {"i4": "i8", "bool": "u1"}
    write_safetensors(folder / "numpy.safetensors", {k: v.astype(kinds.get(k, v.dtype)) for k, v in arrays.items()})


# Where Keras 3 puts weight number i of a layer; of attention each part has two.
PARTS = {"query": "query_dense", "key": "key_dense", "value": "value_dense", "attention_output": "output_dense"}


def with_h5py(folder):
    import h5py
    for file in folder.glob("*.keras.safetensors"):
        name = file.name.split(".")[0]
        layers = {}
        order = [n for n in ORDER[name]]
        tensors = read_safetensors(file)
        for key, t in tensors.items():
            layer, _, weight = key.partition("/")
            layers.setdefault(layer, {})[weight] = t
        assert set(order) == set(layers), (order, list(layers))
        for kind in ("keras2", "keras2_model"):  # weights alone; a whole model
            with h5py.File(folder / f"{name}.{kind}.h5", "w") as f:
                top = f if kind == "keras2" else f.create_group("model_weights")
                names = ["input_1", *order, "dropout"]
                top.attrs["layer_names"] = [n.encode() for n in names] if kind == "keras2" else numpy.array(names, dtype=h5py.string_dtype())
                for layer in names:
                    weights = {w: layers[layer][w] for w in sorted(layers[layer], key=rank)} if layer in layers else {}
                    group = top.create_group(layer)
                    group.attrs["weight_names"] = [f"{layer}/{w}:0".encode() for w in weights]
                    for w, t in weights.items():
                        group.create_dataset(f"{layer}/{w}:0", data=t)
        with h5py.File(folder / f"{name}.keras3.weights.h5", "w") as f:
            for layer, weights in layers.items():
                count = {}
                for w in sorted(weights, key=rank):
                    part = PARTS[w.split("/")[0]] if "/" in w else "cell" if layer in ("simple_rnn", "gru", "lstm") else ""
                    group = f"layers/{layer}/{part}/vars" if part else f"layers/{layer}/vars"
                    f[f"{group}/{count.get(part, 0)}"] = weights[w]
                    count[part] = count.get(part, 0) + 1
            f["layers/dropout/seed_generator/vars/0"] = numpy.array([1, 2], "u4")
            f["optimizer/vars/0"] = numpy.array(3)


# The order in which Keras lists the weights of a layer, and the layers of a model.
WEIGHTS = ["query/kernel", "query/bias", "key/kernel", "key/bias", "value/kernel", "value/bias", "attention_output/kernel", "attention_output/bias",
           "kernel", "recurrent_kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "embeddings"]
rank = WEIGHTS.index
ORDER = {
    "mlp": ["batch_normalization", "dense", "dense_1"],
    "cnn": ["conv2d", "conv2d_1", "batch_normalization", "depthwise_conv2d", "dense", "dense_1"],
    "residual": ["conv2d", "conv2d_1", "conv2d_2", "conv2d_3", "conv2d_4", "conv2d_5", "conv2d_6", "conv2d_7", "conv2d_transpose", "group_normalization", "dense"],
    "rnn": ["simple_rnn"], "gru": ["gru"], "lstm": ["lstm"], "attention": ["layer_normalization", "multi_head_attention"], "embedding": ["embedding"],
}


def main():
    require = sys.argv[3:] == ["--require"]
    if len(sys.argv) != 3 and not require:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    subprocess.run([program, "write", str(folder)], check=True)
    with_numpy(folder)
    skipped = False
    for module, package, use in (("torch", "python3-torch", with_torch), ("h5py", "python3-h5py", with_h5py)):
        try:
            __import__(module)
        except ImportError:
            print(f"skipped: {module} ({package} is not installed)")
            skipped = True
            continue
        use(folder)
    back = subprocess.run([program, "read", str(folder)], stdout=subprocess.PIPE, text=True)
    print(back.stdout, end="")
    if ".h5 " not in back.stdout:
        print("skipped: reading .h5 (a build with -DEBB_HDF5=ON, and python3-h5py)")
        skipped = True
    return 1 if failures or back.returncode or (require and skipped) else 0


if __name__ == "__main__":
    sys.exit(main())

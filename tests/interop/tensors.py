"""safetensors in a few lines, by the format's description."""
import json
import pathlib

import numpy

KINDS = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "U8": "|u1"}


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    out = {}
    for name, t in json.loads(data[8:begin]).items():
        if name != "__metadata__":
            first, last = t["data_offsets"]
            out[name] = numpy.frombuffer(data[begin + first:begin + last], KINDS[t["dtype"]]).reshape(t["shape"]).copy()
    return out


def write_safetensors(path, tensors):
    header, parts, at = {}, [], 0
    for name, t in tensors.items():
        t = numpy.array(t, order="C")  # ascontiguousarray would give a scalar an axis
        kind = next(k for k, v in KINDS.items() if numpy.dtype(v) == t.dtype)
        header[name] = {"dtype": kind, "shape": list(t.shape), "data_offsets": [at, at + t.nbytes]}
        parts.append(t.tobytes())
        at += t.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))

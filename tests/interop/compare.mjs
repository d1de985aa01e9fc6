// compare.mjs MODULE_FOLDER CASE_FOLDER NAME...: runs NAME.onnx in onnxruntime on the input in NAME.safetensors; prints a line
// "NAME DIFFERENCE" for each, the largest absolute difference from the output there, or "NAME error: REASON".
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [modules, folder, ...names] = process.argv.slice(2);
const ort = createRequire(modules + "/")("onnxruntime-node");

function tensors(file) {
  const bytes = readFileSync(file);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
  const kinds = { F32: ["float32", Float32Array], F64: ["float64", Float64Array], I64: ["int64", BigInt64Array], U8: ["uint8", Uint8Array] };
  const out = {};
  for (const [name, t] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [type, array] = kinds[t.dtype];
    const part = bytes.subarray(8 + length + t.data_offsets[0], 8 + length + t.data_offsets[1]);
    out[name] = new ort.Tensor(type, new array(part.buffer.slice(part.byteOffset, part.byteOffset + part.length)), t.shape);
  }
  return out;
}

for (const name of names) {
  try {
    const { input, output } = tensors(`${folder}/${name}.safetensors`);
    const session = await ort.InferenceSession.create(`${folder}/${name}.onnx`, { logSeverityLevel: 3, intraOpNumThreads: 1 });
    const got = (await session.run({ input })).output;
    if (got.dims.join() !== output.dims.join() || got.type !== output.type)
      throw new Error(`expected ${output.type} (${output.dims}), got ${got.type} (${got.dims})`);
    let most = 0;
    for (let i = 0; i < output.data.length; ++i) {
      const d = Math.abs(Number(got.data[i]) - Number(output.data[i]));
      if (!(d <= most)) most = d; // also NaN
    }
    console.log(`${name} ${most}`);
  } catch (e) {
    console.log(`${name} error: ${String(e.message).split("\n")[0]}`);
  }
}

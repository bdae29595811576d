// Answers the questions of one job with ONNX Runtime's JavaScript interface, in Node as in a browser; see answer.py.

const WARM_UPS = 3;
const ARRAYS = { uint8: Uint8Array, int8: Int8Array, float32: Float32Array, int64: BigInt64Array };

async function answered(ort, question, job, place) {
  const session = await ort.InferenceSession.create(await place.model(question.model), {
    executionProviders: place.providers, intraOpNumThreads: job.threads, interOpNumThreads: 1, logSeverityLevel: 3,
  });
  const inputs = [];
  for (const { name, file, type, shape } of question.inputs) {
    inputs.push({ name, type, shape, values: new ARRAYS[type](await place.read(file)) });
  }
  const n = inputs[0].shape[0], batch = question.batch, parts = [], times_ms = [];
  const starts = Array(job.timed ? WARM_UPS : 0).fill(0);
  const warm_ups = starts.length;
  for (let start = 0; start < n; start += batch) starts.push(start);
  for (const start of starts) {
    const feed = {};
    for (const { name, type, shape, values } of inputs) {
      const row = values.length / n, end = Math.min(start + batch, n);
      feed[name] = new ort.Tensor(type, values.slice(start * row, end * row), [end - start, ...shape.slice(1)]);
    }
    const before = performance.now();
    const found = await session.run(feed, question.outputs);
    times_ms.push(performance.now() - before);
    parts.push(question.outputs.map((name) => ({ type: found[name].type, dims: found[name].dims, data: found[name].data.slice() })));
    await place.say(`${question.name} ${Math.min(start + batch, n)} ${n}`);
  }
  const outputs = [];
  for (const [index, name] of question.outputs.entries()) {
    const of_all = parts.slice(warm_ups).map((part) => part[index]);
    const rows = of_all.reduce((sum, one) => sum + one.dims[0], 0);
    const file = `${question.name}.${index}.raw`;
    await place.write(file, of_all.map((one) => one.data));
    outputs.push({ name, file, type: of_all[0].type, shape: [rows, ...of_all[0].dims.slice(1)] });
  }
  await session.release();
  return { outputs, placement: null, times_ms: job.timed ? times_ms.slice(warm_ups) : null };
}

export async function answer(ort, job, place) {
  const files = {};
  for (const question of job.files) {
    try {
      files[question.name] = await answered(ort, question, job, place);
    } catch (error) {
      files[question.name] = { error: String(error.message ?? error).split("\n")[0] };
    }
    await place.publish({ format_version: 1, versions: place.versions, machine: place.machine, features: null, files });
    await place.say(`${question.name} done`);
  }
}

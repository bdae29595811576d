"use strict";
/* One runtime in a worker of its own, which is this page's fresh process. Messages in and out, one at a time. */

let ort = null;
const sessions = {};
const feeds = {};

const actions = {
  async open({ script, wasm, threads }) {
    const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    ort = await import(address);
    ort.env.logLevel = "error";
    ort.env.wasm.wasmBinary = wasm;
    ort.env.wasm.numThreads = threads;
    return null;
  },
  async load({ name, model, provider }) {
    const began = performance.now();
    const options = { executionProviders: [provider], graphOptimizationLevel: "all", logSeverityLevel: 3 };
    sessions[name] = await ort.InferenceSession.create(new Uint8Array(model), options);
    return performance.now() - began;
  },
  async run({ name, inputs, outputs }) {
    const found = await sessions[name].run(tensors(inputs), outputs);
    return Object.fromEntries(outputs.map((output) => [output, Float32Array.from(found[output].data, Number)]));
  },
  async prepare({ name, inputs }) {
    feeds[name] = tensors(inputs);
    return (await timed(name, 1))[0];
  },
  time: ({ name, queries }) => timed(name, queries),
  clock: async () => {
    let smallest = Infinity;
    for (let k = 0; k < 20; k++) {
      const began = performance.now();
      let now = began;
      while (now === began) now = performance.now();
      smallest = Math.min(smallest, now - began);
    }
    return smallest;
  },
};

function tensors(inputs) {
  const made = {};
  for (const [name, { type, data, dims }] of Object.entries(inputs)) made[name] = new ort.Tensor(type, data, dims);
  return made;
}

async function timed(name, queries) {
  const session = sessions[name], feed = feeds[name], durations = new Array(queries);
  for (let k = 0; k < queries; k++) {
    const began = performance.now();
    await session.run(feed);
    durations[k] = performance.now() - began;
  }
  return durations;
}

onmessage = async ({ data }) => {
  try {
    postMessage({ value: await actions[data.action](data) });
  } catch (error) {
    postMessage({ error: String((error && error.message) || error).slice(0, 300) });
  }
};

// node answer.mjs FOLDER NODE_MODULES: answers a job's questions with onnxruntime-node; see answer.py.

import { createRequire } from "node:module";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { answer } from "./questions.mjs";

const [folder, modules] = process.argv.slice(2);
const require = createRequire(join(modules, "/"));
const ort = require("onnxruntime-node");

const bytes = (name) => {
  const read = readFileSync(join(folder, name));
  return read.buffer.slice(read.byteOffset, read.byteOffset + read.byteLength);
};
await answer(ort, JSON.parse(readFileSync(join(folder, "job.json"), "utf8")), {
  providers: ["cpu"],
  versions: { "onnxruntime-node": require("onnxruntime-node/package.json").version, node: process.versions.node },
  machine: process.arch,
  model: async (name) => join(folder, name),
  read: async (name) => bytes(name),
  write: async (name, parts) => {
    writeFileSync(join(folder, name), Buffer.concat(parts.map((one) => Buffer.from(one.buffer, one.byteOffset, one.byteLength))));
  },
  publish: async (found) => {
    writeFileSync(join(folder, "answer.json.new"), JSON.stringify(found));
    renameSync(join(folder, "answer.json.new"), join(folder, "answer.json"));
  },
  say: async (line) => { process.stdout.write(`${line}\n`); },
});

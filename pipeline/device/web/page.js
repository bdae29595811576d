/* The page: checks itself, answers the golden images, times the model, hands out device.json. It asks nobody anything. */

const page = { facts: null, files: {}, golden: null, legs: new Map(), busy: false };

// --- what the page holds, and whether it is what was bundled ---

function sha256(bytes) {
  const k = sha256.k || (sha256.k = sha256Constants());
  const h = Int32Array.from([0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19]);
  const length = bytes.length, tail = new Uint8Array(((length + 9 + 63) & ~63) - (length & ~63));
  tail.set(bytes.subarray(length & ~63));
  tail[length & 63] = 0x80;
  const view = new DataView(tail.buffer);
  view.setUint32(tail.length - 8, Math.floor(length / 0x20000000));
  view.setUint32(tail.length - 4, (length << 3) >>> 0);
  const w = new Int32Array(64);
  for (let at = 0; at + 64 <= length; at += 64) sha256Block(bytes, at, h, k, w);
  for (let at = 0; at < tail.length; at += 64) sha256Block(tail, at, h, k, w);
  return Array.from(h, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

function sha256Constants() {
  const found = [];
  for (let n = 2; found.length < 64; n++) {
    if (found.every(([prime]) => n % prime)) found.push([n, (Math.cbrt(n) % 1) * 4294967296]);
  }
  return Int32Array.from(found, ([, value]) => value | 0);
}

function sha256Block(bytes, at, h, k, w) {
  for (let t = 0; t < 16; t++, at += 4) w[t] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
  for (let t = 16; t < 64; t++) {
    const x = w[t - 15], y = w[t - 2];
    const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
    const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
    w[t] = (w[t - 16] + s0 + w[t - 7] + s1) | 0;
  }
  let [a, b, c, d, e, f, g, i] = h;
  for (let t = 0; t < 64; t++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const one = (i + s1 + ((e & f) ^ (~e & g)) + k[t] + w[t]) | 0;
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const two = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    i = g; g = f; f = e; e = (d + one) | 0; d = c; c = b; b = a; a = (one + two) | 0;
  }
  [a, b, c, d, e, f, g, i].forEach((word, n) => { h[n] = (h[n] + word) | 0; });
}

async function held(name, digest) {
  const block = document.getElementById(`data:${name}`);
  if (!block) throw new Error(`${name} is missing from this page.`);
  let content;
  try {
    const packed = atob(block.textContent), bytes = new Uint8Array(packed.length);
    for (let k = 0; k < packed.length; k++) bytes[k] = packed.charCodeAt(k);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    content = new Uint8Array(await new Response(stream).arrayBuffer());
  } catch (error) {
    throw new Error(`${name} was changed after this page was bundled (it cannot be unpacked).`);
  }
  if (sha256(content) !== digest) throw new Error(`${name} was changed after this page was bundled (its sha256 is another).`);
  return content;
}

function refuseWeakened() {
  const own = document.currentScript ? document.currentScript.textContent : "";
  const digest = btoa(sha256(new TextEncoder().encode(own)).replace(/../g, (pair) => String.fromCharCode(parseInt(pair, 16))));
  const policies = Array.from(document.querySelectorAll("meta[http-equiv='Content-Security-Policy']"), (one) => one.content);
  const policy = `default-src 'none'; script-src 'sha256-${digest}' 'wasm-unsafe-eval' blob:; `;
  if (policies.length !== 1 || !policies[0].startsWith(policy) || !policies[0].includes("connect-src 'none'")) {
    throw new Error("the page's own policy was changed after it was bundled.");
  }
  return sha256(new TextEncoder().encode(own));
}

function array(bytes) {
  const length = bytes[8] | (bytes[9] << 8), header = new TextDecoder().decode(bytes.subarray(10, 10 + length));
  const shape = /'shape': \(([^)]*)\)/.exec(header)[1].split(",").filter((part) => part.trim()).map(Number);
  const content = bytes.slice(10 + length);
  return { shape, data: header.includes("'<f4'") ? new Float32Array(content.buffer) : content };
}

// --- what is computed ---

function worker() {
  const address = URL.createObjectURL(new Blob([IDENTITY.worker], { type: "text/javascript" }));
  const own = new Worker(address);
  const asked = [];
  own.onmessage = ({ data }) => {
    const { resolve, reject } = asked.shift();
    if (data.error) reject(new Error(data.error));
    else resolve(data.value);
  };
  own.onerror = (event) => asked.splice(0).forEach(({ reject }) => reject(new Error(event.message || "the worker failed")));
  return {
    ask: (action, message = {}) => new Promise((resolve, reject) => {
      asked.push({ resolve, reject });
      own.postMessage({ action, ...message });
    }),
    end: () => { own.terminate(); URL.revokeObjectURL(address); },
  };
}

async function runtimeFor(provider) {
  const flavour = provider === "webgpu" ? "ort-webgpu" : "ort-wasm";
  for (const name of [`${flavour}.mjs`, `${flavour}.wasm`]) {
    page.files[name] = page.files[name] || await held(name, IDENTITY.runtime[name]);
  }
  return { script: new TextDecoder().decode(page.files[`${flavour}.mjs`]), wasm: page.files[`${flavour}.wasm`].buffer };
}

async function opened(leg) {
  const own = worker();
  try {
    await own.ask("open", { ...await runtimeFor(leg.provider), threads: leg.threads });
  } catch (error) {
    own.end();
    throw error;
  }
  return own;
}

/* Uint8Array [channels · height · width] → the model's input, as the run makes it; every step rounds to float32. */
function toInput(pixels) {
  const form = page.facts.preprocessing, { channels } = form;
  const area = form.image_size * form.image_width, floats = form.input_type === "float32";
  const made = floats ? new Float32Array(pixels.length) : new Uint8Array(pixels.length);
  for (let c = 0; c < channels; c++) {
    const source = (form.channel_order === "BGR" ? channels - 1 - c : c) * area;
    const mean = Math.fround(form.mean[c]), std = Math.fround(form.std[c]);
    for (let k = 0; k < area; k++) {
      const value = pixels[source + k];
      const place = form.layout === "NHWC" ? k * channels + c : c * area + k;
      made[place] = floats ? Math.fround(Math.fround(Math.fround(value / 255) - mean) / std) : value;
    }
  }
  const dims = form.layout === "NHWC" ? [1, form.image_size, form.image_width, channels] : [1, channels, form.image_size, form.image_width];
  return { type: form.input_type, data: made, dims };
}

function mapOf(gradient) {
  const { channels, image_size: height, image_width: width, layout } = page.facts.preprocessing;
  const area = height * width, map = new Float32Array(area);
  for (let k = 0; k < area; k++) {
    let sum = 0;
    for (let c = 0; c < channels; c++) sum = Math.fround(sum + Math.abs(gradient[layout === "NHWC" ? k * channels + c : c * area + k]));
    map[k] = Math.fround(sum / channels);
  }
  return map;
}

async function answer(own, pixels, target) {
  const { facts } = page, image = toInput(pixels);
  const outputs = (await own.ask("run", { name: "model", inputs: { [facts.input]: image }, outputs: [facts.output] }))[facts.output];
  if (!page.hasMaps) return { outputs, map: null };
  const wanted = target === null ? outputs.indexOf(outputs.reduce((a, b) => Math.max(a, b))) : target;
  const inputs = { [facts.input]: image, target: { type: "int64", data: BigInt64Array.of(BigInt(wanted)), dims: [1] } };
  const { saliency } = await own.ask("run", { name: "twin", inputs, outputs: ["saliency"] });
  return { outputs, map: mapOf(saliency), explained: wanted };
}

async function loaded(leg) {
  const own = await opened(leg);
  try {
    await own.ask("load", { name: "model", model: page.files["model.onnx"].buffer, provider: leg.provider });
    if (page.hasMaps) await own.ask("load", { name: "twin", model: page.files["model.saliency.onnx"].buffer, provider: leg.provider });
  } catch (error) {
    own.end();
    throw error;
  }
  return own;
}

function sameBits(one, other) {
  const a = new Uint32Array(one.buffer, one.byteOffset, one.length), b = new Uint32Array(other.buffer, other.byteOffset, other.length);
  return a.length === b.length && a.every((word, k) => word === b[k]);
}

function distance(map, reference) {
  let difference = 0, norm = 0;
  for (let k = 0; k < map.length; k++) { difference += (map[k] - reference[k]) ** 2; norm += reference[k] ** 2; }
  return Math.sqrt(difference) / (norm > 0 ? Math.sqrt(norm) : 1);
}

function ranks(values) {
  const order = Array.from(values.keys()).sort((a, b) => values[a] - values[b]), found = new Float64Array(values.length);
  for (let first = 0; first < order.length;) {
    let last = first;
    while (last + 1 < order.length && values[order[last + 1]] === values[order[first]]) last++;
    for (let k = first; k <= last; k++) found[order[k]] = (first + last) / 2 + 1;
    first = last + 1;
  }
  return found;
}

function spearman(map, reference) {
  const a = ranks(map), b = ranks(reference), mean = (map.length + 1) / 2;
  let product = 0, ofA = 0, ofB = 0;
  for (let k = 0; k < a.length; k++) { product += (a[k] - mean) * (b[k] - mean); ofA += (a[k] - mean) ** 2; ofB += (b[k] - mean) ** 2; }
  return ofA && ofB ? Math.min(1, Math.max(-1, product / Math.sqrt(ofA * ofB))) : 0;
}

function compared(found, golden, reference) {
  const wanted = Float32Array.from(golden.outputs), { bounds } = page.facts;
  const largest = found.outputs.reduce((most, value, k) => Math.max(most, Math.abs(value - wanted[k])), 0);
  const away = found.map ? distance(found.map, reference) : 0;
  const finite = found.outputs.every(Number.isFinite) && (!found.map || found.map.every(Number.isFinite));
  const exact = sameBits(found.outputs, wanted) && (!found.map || sameBits(found.map, reference));
  return { largest, away, exact, same: finite && largest <= bounds.outputs && away <= bounds.maps };
}

async function checkLeg(leg, tell) {
  const own = await loaded(leg), { golden } = page.facts;
  const outputs = [], maps = { distances: [], spearman: [] };
  let largest = 0, away = 0, exact = true, same = true;
  try {
    for (let k = 0; k < golden.length; k++) {
      const found = await answer(own, page.pixels(k), golden[k].explained);
      const reference = page.hasMaps ? page.map(k) : null, one = compared(found, golden[k], reference);
      outputs.push(Array.from(found.outputs));
      if (found.map) { maps.distances.push(one.away); maps.spearman.push(spearman(found.map, reference)); }
      largest = Math.max(largest, one.largest); away = Math.max(away, one.away);
      exact = exact && one.exact; same = same && one.same;
      tell(k, found, one);
    }
  } finally {
    own.end();
  }
  return { provider: leg.provider, threads: leg.threads, outputs, maps: page.hasMaps ? maps : null, largest, away, exact, same };
}

function draws(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffled(items, random) {
  const order = items.slice();
  for (let k = order.length - 1; k > 0; k--) {
    const other = Math.floor(random() * (k + 1));
    [order[k], order[other]] = [order[other], order[k]];
  }
  return order;
}

/* Fresh workers of every leg in each start, blocks in turns drawn at random, the first queries left out: the report's rules.
 * A slow device is asked less often per round, so that a leg takes about a minute; n says what that is worth. */
async function timeLegs(legs, tell) {
  const rules = { ...page.facts.timing }, random = draws(rules.seed), image = toInput(page.pixels(0));
  const found = new Map(legs.map((leg) => [leg, { durations_ms: [], load_ms: [], first_inference_ms: [], clock_ms: 0 }]));
  for (let start = 0; start < rules.processes; start++) {
    const workers = new Map(), blocks = new Map(legs.map((leg) => [leg, []]));
    try {
      for (const leg of shuffled(legs, random)) workers.set(leg, await opened(leg));
      for (const leg of shuffled(legs, random)) {
        const own = workers.get(leg), of = found.get(leg);
        of.load_ms.push(await own.ask("load", { name: "model", model: page.files["model.onnx"].buffer, provider: leg.provider }));
        of.first_inference_ms.push(await own.ask("prepare", { name: "model", inputs: { [page.facts.input]: image } }));
        of.clock_ms = Math.max(of.clock_ms, await own.ask("clock"));
        const warm = await own.ask("time", { name: "model", queries: Math.max(5, rules.warmup_queries) });
        if (start === 0) {
          const typical = warm.sort((a, b) => a - b)[warm.length >> 1];
          const affordable = Math.floor(60000 / (rules.processes * rules.rounds * Math.max(typical, 1e-3)));
          rules.queries_per_round = Math.max(5, Math.min(rules.queries_per_round, affordable));
        }
      }
      for (let turn = 0; turn < rules.rounds; turn++) {
        for (const leg of shuffled(legs, random)) {
          const block = await workers.get(leg).ask("time", { name: "model", queries: 2 + rules.queries_per_round });
          blocks.get(leg).push(block.slice(2).map((ms) => Math.max(0, Number(ms.toFixed(4)))));
        }
        tell(start * rules.rounds + turn + 1, rules.processes * rules.rounds);
      }
    } finally {
      workers.forEach((own) => own.end());
    }
    legs.forEach((leg) => found.get(leg).durations_ms.push(blocks.get(leg)));
  }
  legs.forEach((leg) => { found.get(leg).rules = rules; });
  return found;
}

// --- what is shown ---

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made && name !== "role") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const STOPS = ["000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "f7d13d", "fcffa4"]
  .map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

function colour(level) {
  const at = level * (STOPS.length - 1), low = Math.min(STOPS.length - 2, Math.floor(at));
  return STOPS[low].map((value, c) => value + (STOPS[low + 1][c] - value) * (at - low));
}

function picture(pixels, map, label) {
  const { channels, image_size: height, image_width: width } = page.facts.preprocessing, area = height * width;
  const canvas = element("canvas", { width, height, role: "img", "aria-label": label });
  const image = new ImageData(width, height), most = map ? map.reduce((a, b) => Math.max(a, b), 0) : 0;
  for (let k = 0; k < area; k++) {
    const rgb = channels === 3 ? [pixels[k], pixels[area + k], pixels[2 * area + k]] : [pixels[k], pixels[k], pixels[k]];
    const gray = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
    const level = map && most > 0 ? map[k] / most : 0, opacity = 0.85 * Math.sqrt(level), over = colour(level);
    for (let c = 0; c < 3; c++) image.data[4 * k + c] = map ? gray * (1 - opacity) + over[c] * opacity : rgb[c];
    image.data[4 * k + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function figure(canvas, caption) {
  return element("figure", {}, canvas, element("figcaption", { textContent: caption }));
}

function shares(outputs) {
  const { kind } = page.facts.answers;
  if (kind === "probabilities" || kind === "sigmoid") return Array.from(outputs);
  if (page.facts.task === "multi_label" || outputs.length === 1) return Array.from(outputs, (value) => 1 / (1 + Math.exp(-value)));
  const most = outputs.reduce((a, b) => Math.max(a, b)), powers = Array.from(outputs, (value) => Math.exp(value - most));
  const total = powers.reduce((a, b) => a + b);
  return powers.map((value) => value / total);
}

function named(index) {
  return page.facts.classes[index] ?? `class ${index}`;
}

function inWords(outputs) {
  if (page.facts.answers.kind === "label") return named(Math.round(outputs[0]));
  const found = shares(outputs), percent = (share) => `${(100 * share).toFixed(1)} %`;
  if (outputs.length === 1) return `${named(found[0] > 0.5 ? 1 : 0)}, ${percent(Math.max(found[0], 1 - found[0]))}`;
  if (page.facts.task === "multi_label") {
    const yes = found.map((share, k) => [share, k]).filter(([share]) => share > 0.5).sort((a, b) => b[0] - a[0]);
    return yes.length ? yes.map(([share, k]) => `${named(k)} ${percent(share)}`).join(", ") : `none above 50 % (${named(found.indexOf(Math.max(...found)))} ${percent(Math.max(...found))})`;
  }
  const best = found.indexOf(Math.max(...found));
  return `${named(best)}, ${percent(found[best])}`;
}

function few(value) {
  return value === 0 ? "0" : value < 1e-3 || value >= 1e4 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

function row(list, name, value) {
  list.append(element("dt", { textContent: name }), element("dd", { textContent: value }));
}

function verdict(state, title, detail) {
  const sign = { same: "✓", different: "✗", wait: "…" }[state];
  const box = document.getElementById("verdict");
  box.className = `verdict ${state}`;
  box.replaceChildren(
    element("div", { className: "sign", "aria-hidden": "true", textContent: sign }),
    element("div", {}, element("strong", { textContent: title }), element("span", { textContent: detail })),
  );
}

function card(golden, index) {
  const pictures = element("div", { className: "pictures" }, figure(picture(page.pixels(index), null, `golden image ${index + 1}`), "image"));
  if (page.hasMaps) pictures.append(figure(picture(page.pixels(index), page.map(index), `reviewed map of image ${index + 1}`), "reviewed map"));
  const facts = element("dl", { className: "facts" });
  row(facts, "reviewed", inWords(Float32Array.from(golden.outputs)));
  return element("li", { className: "card", id: `golden-${index}` },
    element("header", {}, element("h3", { textContent: golden.name }), element("span", { className: "state wait", textContent: "waiting" })), pictures, facts);
}

function showGolden(index, found, one) {
  const own = document.getElementById(`golden-${index}`), state = own.querySelector(".state"), facts = own.querySelector("dl");
  own.classList.toggle("different", !one.same);
  state.className = `state ${one.same ? "same" : "different"}`;
  state.textContent = one.same ? "same" : "different";
  if (found.map) own.querySelector(".pictures").append(figure(picture(page.pixels(index), found.map, `this device's map of image ${index + 1}`), "this device"));
  row(facts, "this device", inWords(found.outputs));
  row(facts, "differs by", one.exact ? "nothing, bit for bit" : `${few(one.largest)}${found.map ? `, map ${few(100 * one.away)} %` : ""}`);
}

function legName(leg) {
  if (leg.provider === "webgpu") return "WebGPU";
  return `WebAssembly, ${leg.threads} thread${leg.threads > 1 ? "s" : ""}`;
}

function build() {
  const { facts } = page, main = document.getElementById("kit");
  const section = (id, title, ...children) => element("section", { "aria-labelledby": id }, element("h2", { id, textContent: title }), ...children);
  const cards = element("ul", { className: "cards" }, ...facts.golden.map(card));
  const measure = element("button", { id: "measure", type: "button", textContent: "Measure latency", disabled: true });
  const name = element("input", { id: "name", type: "text", value: deviceName(), maxLength: 40, autocomplete: "off", spellcheck: false, "aria-describedby": "name-form" });
  const save = element("button", { id: "save", type: "button", textContent: "Save device.json", disabled: true });
  const file = element("input", { id: "own", type: "file", accept: "image/png,image/jpeg,image/bmp,image/webp", disabled: true });
  main.replaceChildren(
    element("h1", { textContent: "Does this device answer as reviewed?" }),
    element("p", { className: "lead quiet", textContent: `${facts.variant} of the run ${facts.run}, ${facts.golden.length} golden images${facts.images === "generated" ? ", generated" : ""}` }),
    element("p", { className: "note", textContent: `No medical device: nothing shown here may decide about a patient.${facts.synthetic ? " Synthetic images." : ""}` }),
    element("div", { id: "verdict", role: "status", className: "verdict wait" }),
    section("images", "Golden images", element("p", { className: "quiet", textContent: page.hasMaps ? "Bright is where the answer would change most if the pixel did. Each map is scaled to its own maximum." : "This kit has no maps." }), cards),
    section("speed", "How fast", element("p", { className: "quiet", textContent: timingNote() }), element("div", { className: "actions" }, measure, element("progress", { id: "timing", value: 0, max: 1, hidden: true, "aria-label": "timing" })), element("div", { id: "times" })),
    section("result", "Take it into the report", element("label", { htmlFor: "name", textContent: "Name of this device" }), name, element("p", { id: "name-form", className: "quiet", textContent: "Small letters, digits, . _ and -. No name of a person or a ward." }), element("div", { className: "actions" }, save), element("p", { className: "quiet", textContent: "Then: edgeproof import RUN device.json. The file holds what ran, its answers and times, and what this browser calls itself. Nothing leaves this page unless you save it." })),
    section("yours", "Your own image", element("p", { className: "note", textContent: "No medical device. Look at the answer as a demonstration; the image stays on this device." }), element("label", { htmlFor: "own", textContent: "An image (PNG, JPEG, BMP or WebP)" }), file, element("p", { className: "quiet", textContent: ownNote() }), element("div", { id: "own-answer", className: "own", role: "status" })),
    whatRan(),
  );
  measure.addEventListener("click", guarded(measureAll));
  save.addEventListener("click", guarded(saveDevice));
  file.addEventListener("change", guarded(() => answerOwn(file.files[0])));
}

function timingNote() {
  const more = self.isSecureContext ? "several" : "several, and WebGPU,";
  const isolated = self.crossOriginIsolated ? "" : ` One thread only: browsers give ${more} to pages that serve.py shows on this machine itself or over https.`;
  return `Fresh workers in turns, by the rules of the report. Takes a minute or two.${isolated}`;
}

function ownNote() {
  const form = page.facts.preprocessing;
  const fit = { pad: "padded with black", stretch: "stretched", crop: "cropped at the centre" }[form.fit];
  return `It is ${fit} to ${form.image_width} × ${form.image_size} pixels with the run's own filter. Where it may differ from the run: a browser decodes JPEG in its own way by a gray value or two, takes 8 of 16 bits, and reads no DICOM.`;
}

function whatRan() {
  const list = element("dl", { className: "facts" });
  row(list, "kit.json", IDENTITY.facts_sha256);
  for (const [name, { sha256: digest }] of Object.entries(page.facts.files)) row(list, name, digest);
  row(list, "onnxruntime-web", IDENTITY.runtime_version);
  row(list, "bound, answers", few(page.facts.bounds.outputs));
  row(list, "bound, maps", `${few(100 * page.facts.bounds.maps)} % of their norm`);
  return element("details", {}, element("summary", { textContent: "What ran, and what the bounds mean" }), list, element("p", { className: "quiet", textContent: page.facts.bounds.derivation }));
}

function guarded(work) {
  return async () => {
    if (page.busy) return;
    page.busy = true;
    const buttons = Array.from(document.querySelectorAll("button, input[type=file]"));
    buttons.forEach((one) => { one.disabled = true; });
    try {
      await work();
    } catch (error) {
      verdict("different", "Something failed", error.message);
    } finally {
      buttons.forEach((one) => { one.disabled = false; });
      page.busy = false;
    }
  };
}

// --- what a person does ---

function deviceName() {
  const agent = navigator.userAgent;
  const system = [["android", /Android/], ["ios", /iPhone|iPad/], ["windows", /Windows/], ["mac", /Mac OS/], ["linux", /Linux/]].find(([, form]) => form.test(agent));
  const browser = [["edge", /Edg\//], ["firefox", /Firefox\//], ["chrome", /Chrome\//], ["safari", /Safari\//]].find(([, form]) => form.test(agent));
  return `${system ? system[0] : "device"}-${browser ? browser[0] : "browser"}`;
}

async function legsOfThisDevice() {
  const legs = [{ provider: "wasm", threads: 1 }], cores = Math.min(8, navigator.hardwareConcurrency || 1);
  if (self.crossOriginIsolated && cores > 1) legs.push({ provider: "wasm", threads: cores });
  if (navigator.gpu && await navigator.gpu.requestAdapter().catch(() => null)) legs.push({ provider: "webgpu", threads: 1 });
  return legs;
}

async function checkAll() {
  verdict("wait", "Checking…", "The runtime is being opened.");
  const leg = { provider: "wasm", threads: 1 };
  const found = await checkLeg(leg, (index, one, outcome) => {
    showGolden(index, one, outcome);
    verdict("wait", "Checking…", `${index + 1} of ${page.facts.golden.length} golden images.`);
  });
  page.legs.set(legName(leg), found);
  const { bounds } = page.facts;
  const answers = found.largest === 0 ? "answers equal" : `answers differ by at most ${few(found.largest)} (bound ${few(bounds.outputs)})`;
  const far = page.hasMaps ? `${answers}, maps differ by at most ${few(100 * found.away)} % (bound ${few(100 * bounds.maps)} %)` : answers;
  if (found.same) verdict("same", "Same", found.exact ? `All ${page.facts.golden.length} answers and maps are the reviewed ones, bit for bit.` : `All ${page.facts.golden.length} are the reviewed ones within the bound: ${far}.`);
  else verdict("different", "Different", `This device does not answer as reviewed: ${far}.`);
}

async function measureAll() {
  const bar = document.getElementById("timing"), legs = [];
  bar.hidden = false;
  bar.removeAttribute("value");
  for (const leg of await legsOfThisDevice()) {
    if (!page.legs.has(legName(leg))) {
      try {
        page.legs.set(legName(leg), await checkLeg(leg, () => {}));
      } catch (error) {
        page.legs.set(legName(leg), { provider: leg.provider, threads: leg.threads, outputs: null, maps: null, reason: error.message });
        continue;
      }
    } else if (!page.legs.get(legName(leg)).outputs) continue;
    legs.push(leg);
  }
  const found = await timeLegs(legs, (done, total) => { bar.value = done / total; });
  found.forEach((timing, leg) => { page.legs.get(legName(leg)).timing = timing; });
  bar.hidden = true;
  showTimes();
}

function quantile(values, share) {
  const order = Float64Array.from(values).sort();
  const fewest = Math.floor(Math.max(Math.log(0.025) / Math.log(share), Math.log(0.025) / Math.log(1 - share))) + 1;
  return order.length < fewest ? null : order[Math.max(0, Math.ceil(share * order.length) - 1)];
}

function showTimes() {
  const body = element("tbody");
  for (const [name, leg] of page.legs) {
    const cells = [];
    if (leg.timing) {
      const all = leg.timing.durations_ms.flat(2), tooCoarse = quantile(all, 0.5) < 10 * leg.timing.clock_ms;
      for (const share of [0.5, 0.9, 0.99]) {
        const value = quantile(all, share);
        cells.push(tooCoarse || value === null ? "–" : few(value));
      }
      cells.push(few(all.reduce((a, b) => a + b, 0) / all.length), String(all.length));
    } else cells.push("–", "–", "–", "–", "0");
    const answers = !leg.outputs ? "failed" : leg.exact ? "same bits" : leg.same ? "same" : "different";
    body.append(element("tr", {}, element("th", { scope: "row", textContent: name }), ...cells.map((text) => element("td", { textContent: text })), element("td", {}, element("span", { className: `state ${leg.same ? "same" : "different"}`, textContent: answers }))));
  }
  const head = element("thead", {}, element("tr", {}, element("td"), ...["p50", "p90", "p99", "mean", "n", "answers"].map((text) => element("th", { scope: "col", textContent: text }))));
  const scroll = element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "times" }, element("table", {}, element("caption", { textContent: "Milliseconds for one image; – where n or the browser's clock carries no percentile." }), head, body));
  document.getElementById("times").replaceChildren(scroll);
}

async function saveDevice() {
  const name = document.getElementById("name").value;
  if (!/^[a-z0-9][a-z0-9_.-]{0,39}$/.test(name)) {
    document.getElementById("name").focus();
    document.getElementById("name-form").textContent = "Small letters, digits, . _ and - only, at most 40, a letter or digit first. Please change the name.";
    return;
  }
  const text = JSON.stringify(deviceFile(name)), address = URL.createObjectURL(new Blob([`${text}\n`], { type: "application/json" }));
  const link = element("a", { href: address, download: "device.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function deviceFile(name) {
  const files = Object.fromEntries(Object.entries(page.facts.files).map(([file, { sha256: digest }]) => [file, digest]));
  const legs = Array.from(page.legs.values(), (leg) => ({
    provider: leg.provider, threads: leg.threads, outputs: leg.outputs, maps: leg.maps,
    ...(leg.timing ? { timing: leg.timing } : {}), ...(leg.reason ? { reason: leg.reason } : {}),
  }));
  return {
    format_version: 1, name, way: "browser", kit_sha256: IDENTITY.facts_sha256, files: { ...files, "page script": page.script_sha256 },
    device: { system: (navigator.userAgent || "unknown").slice(0, 300), processor: "not told by browsers", cores: navigator.hardwareConcurrency || null },
    versions: { "onnxruntime-web": IDENTITY.runtime_version }, legs,
  };
}

async function answerOwn(file) {
  const box = document.getElementById("own-answer");
  if (!file) return;
  box.replaceChildren(element("p", { textContent: "Answering…" }));
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" });
    if (bitmap.width * bitmap.height > 64e6) throw new Error("too large");
  } catch (error) {
    box.replaceChildren(element("p", { textContent: "This is no image that the browser can read, or it has more than 64 million pixels. Take another." }));
    return;
  }
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height), context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
  const pixels = fitImage(rgba, bitmap.width, bitmap.height, page.facts.preprocessing);
  const own = await loaded({ provider: "wasm", threads: 1 });
  try {
    const found = await answer(own, pixels, null), facts = element("dl", { className: "facts" });
    page.own = { pixels, outputs: found.outputs };
    row(facts, "answer", inWords(found.outputs));
    const pictures = element("div", { className: "pictures" }, figure(picture(pixels, null, "your image as the model sees it"), "as the model sees it"));
    if (found.map) pictures.append(figure(picture(pixels, found.map, "map of your image"), `map of ${named(found.explained)}`));
    box.replaceChildren(pictures, facts);
  } finally {
    own.end();
  }
}

// --- from the top ---

async function start(script) {
  const simd = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(simd) || typeof DecompressionStream !== "function") {
    throw new Error("this browser is too old: it lacks WebAssembly SIMD or DecompressionStream. Take one of 2023 or later, or measure.py.");
  }
  page.script_sha256 = script;
  page.facts = JSON.parse(new TextDecoder().decode(await held("kit.json", IDENTITY.facts_sha256)));
  for (const [name, { sha256: digest }] of Object.entries(page.facts.files)) page.files[name] = await held(name, digest);
  const images = array(page.files["golden/images.npy"]), size = images.shape.slice(1).reduce((a, b) => a * b);
  page.hasMaps = "golden/maps.npy" in page.files;
  page.pixels = (index) => images.data.subarray(index * size, (index + 1) * size);
  if (page.hasMaps) {
    const maps = array(page.files["golden/maps.npy"]), area = maps.shape[1] * maps.shape[2];
    page.map = (index) => maps.data.slice(index * area, (index + 1) * area);
  }
  await runtimeFor("wasm");
  if ("ort-webgpu.wasm" in IDENTITY.runtime) await runtimeFor("webgpu");
  build();
  await guarded(checkAll)();
}

function refuse(error) {
  document.getElementById("kit").replaceChildren(
    element("h1", { textContent: "Nothing was checked" }),
    element("div", { id: "verdict", role: "alert", className: "verdict different" },
      element("div", { className: "sign", "aria-hidden": "true", textContent: "✗" }),
      element("div", {}, element("strong", { textContent: "Not the kit that was bundled, or no browser for it" }), element("span", { textContent: error.message }))),
    element("p", { className: "lead", textContent: "Take the kit anew from whoever bundled it." }),
  );
}

try {
  start(refuseWeakened()).catch(refuse);
} catch (error) {
  refuse(error);
}

// Proves a bundle where it lies: node verify.mjs [BUNDLE]. Needs Node 18 or later and nothing else for the files; the
// outputs and the time are checked if onnxruntime-node or onnxruntime-web is installed beside the bundle or where you are.
//
// Exit codes: 0 all is right; 2 something is not, and it is said what; 4 the files are right, and no runtime was found (or
// none for a graph with its tokenizer in it), so that the outputs were not checked.

import { createHash } from "node:crypto";
import { lstat, readFile, readdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { inflateSync } from "node:zlib";

const MANIFEST = "manifest.json", ARTIFACT = "artifact.json", GOLDEN = "golden.json";
const UNCHECKED = 4, WRONG = 2;
const WARM_UP = 5, PASSES = 20;

class Refusal extends Error {}

const refuse = (what, fix) => {
  throw new Refusal(`${what}\ntry: ${fix}`);
};
const COPY = "It was changed after its export: copy the bundle again from where it was made.";
const sha256 = (data) => createHash("sha256").update(data).digest("hex");
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

async function readObject(bundle, name) {
  try {
    const value = JSON.parse(await readFile(join(bundle, name), "utf8"));
    if (isObject(value)) return value;
  } catch (error) {
    refuse(`${name}: ${error.message}`, COPY);
  }
  return refuse(`${name}: holds no object`, COPY);
}

// ---- The files: those that are listed, whole, and no others.

function checkName(name) {
  const parts = name.split("/");
  if (/[\\:\u0000-\u001f]/.test(name) || parts.some((part) => part === "" || part === "." || part === "..")) {
    refuse(`${MANIFEST}: names the unsafe path ${JSON.stringify(name)}`, COPY);
  }
}

async function namesBelow(bundle, folder = "") {
  const found = [];
  for (const entry of await readdir(join(bundle, folder), { withFileTypes: true })) {
    const name = folder ? `${folder}/${entry.name}` : entry.name;
    if (entry.isSymbolicLink()) refuse(`${name}: is a link`, "Copy the file itself in its place.");
    if (entry.isDirectory()) {
      const below = await namesBelow(bundle, name);
      if (!below.length) refuse(`${name}: is not listed`, "Remove it: nothing else belongs here.");
      found.push(...below);
    } else if (entry.isFile()) found.push(name);
    else refuse(`${name}: is no file`, COPY);
  }
  return found;
}

async function checkFiles(bundle, files) {
  const present = await namesBelow(bundle);
  const sealed = present.includes(ARTIFACT) ? (await readObject(bundle, ARTIFACT)).files : null;
  for (const name of present) {
    const known = Object.hasOwn(files, name) || name === MANIFEST || (name === ARTIFACT && isObject(sealed));
    if (!known) refuse(`${name}: is not listed`, "Remove it: nothing else belongs here.");
  }
  for (const [name, entry] of Object.entries(files)) {
    checkName(name);
    if (!present.includes(name)) refuse(`${name}: is missing`, COPY);
    const { size } = await lstat(join(bundle, name));
    if (size !== entry?.bytes) refuse(`${name}: has ${size} bytes, recorded ${entry?.bytes}`, COPY);
    const found = sha256(await readFile(join(bundle, name)));
    if (found !== entry.sha256) refuse(`${name}: does not match its recorded digest`, COPY);
    if (sealed && sealed[name]?.sha256 !== found) refuse(`${ARTIFACT}: is of other files than ${name}`, COPY);
  }
}

// The same as compress writes into the reports of devices: of every file but the page.
function digestOf(files) {
  const names = Object.keys(files).filter((name) => name !== "README.md").sort();
  return sha256(`{${names.map((name) => `${JSON.stringify(name)}:"${files[name].sha256}"`).join(",")}}`);
}

// ---- The outputs: the golden ones, within their tolerance.

async function findRuntime() {
  const here = createRequire(join(process.cwd(), "here.js"));
  for (const name of ["onnxruntime-node", "onnxruntime-web"]) {
    for (const find of [() => name, () => pathToFileURL(here.resolve(name)).href]) {
      try {
        const found = await import(find());
        return { name, ort: found.InferenceSession ? found : found.default };
      } catch (error) {
        if (!["ERR_MODULE_NOT_FOUND", "MODULE_NOT_FOUND"].includes(error.code)) throw error;
      }
    }
  }
  return null;
}

async function openSession({ name, ort }, bundle, model, threads) {
  const path = join(bundle, model);
  const data = await readFile(path);
  if (model.endsWith(".onnx") && data.includes("\n\blocation")) refuse(`${model}: keeps weights outside the file`, COPY);
  if (name === "onnxruntime-web") ort.env.wasm.numThreads = threads;
  const options = { intraOpNumThreads: threads, interOpNumThreads: 1, logSeverityLevel: 3 };
  return ort.InferenceSession.create(name === "onnxruntime-web" ? data : path, options).catch((error) =>
    refuse(`${model}: the runtime does not read it (${error.message})`, COPY));
}

const whole = (ort, values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
const ones = (ort, count) => whole(ort, Array(count).fill(1));

function feedsOf(ort, session, example) {
  const given = {};
  if (example.pixel_values) {
    const bytes = inflateSync(Buffer.from(example.pixel_values.data, "base64"));
    const values = Float32Array.from({ length: bytes.length / 4 }, (_, at) => bytes.readFloatLE(4 * at));
    given.pixel_values = new ort.Tensor("float32", values, [1, ...example.pixel_values.shape]);
  } else {
    const ids = example.input_ids;
    given.input_ids = whole(ort, ids);
    given.attention_mask = ones(ort, ids.length);
    given.token_type_ids = whole(ort, example.token_type_ids ?? ids.map(() => 0));
  }
  return Object.fromEntries(session.inputNames.map((name) => [name, given[name]]));
}

// The first output, or logits and boxes side by side, which are one answer.
function answerOf(session, outputs) {
  const names = session.outputNames;
  const parts = ["logits", "pred_boxes"].filter((name) => names.includes(name));
  const used = parts.includes(names[0]) ? parts : [names[0]];
  const widths = used.map((name) => outputs[name].dims.at(-1));
  const rows = outputs[used[0]].data.length / widths[0];
  const answer = [];
  for (let row = 0; row < rows; row++) {
    used.forEach((name, at) => answer.push(...outputs[name].data.slice(row * widths[at], (row + 1) * widths[at])));
  }
  return answer;
}

const highest = (values) => values.indexOf(Math.max(...values));
const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

const notTaken = (error) => refuse(`${GOLDEN}: the model refuses an example (${error.message})`, COPY);

function checkGap(number, gap, tolerance) {
  if (gap <= tolerance) return gap;
  return refuse(
    `${GOLDEN}: example ${number} differs by ${gap.toPrecision(3)}, allowed ${tolerance}`,
    "This machine computes something else than the one that exported: `compress verify` says more.",
  );
}

async function checkOutputs(ort, session, golden, labels) {
  let worst = 0, same = 0;
  for (const [number, example] of golden.examples.entries()) {
    const outputs = await session.run(feedsOf(ort, session, example)).catch(notTaken);
    const found = answerOf(session, outputs);
    const wanted = example.logits;
    if (found.length !== wanted.length) refuse(`${GOLDEN}: example ${number} does not fit the model`, COPY);
    const gap = Math.max(...found.map((value, at) => Math.abs(value - wanted[at])));
    worst = Math.max(worst, checkGap(number, gap, golden.tolerance));
    same += highest(found) === highest(wanted) ? 1 : 0;
  }
  const counted = labels ? `, the same label in ${same}` : "";
  console.log(`outputs   ${golden.examples.length} examples right within ${worst.toPrecision(3)}${counted}`);
}

// What is written: every token with the caches of the tokens before it, as a device writes.

async function* steps(ort, session, encoder, ports, start, example) {
  const empty = (shape) => {
    const dims = shape.map((size) => (typeof size === "number" ? size : size === "batch" ? 1 : 0));
    return new ort.Tensor("float32", new Float32Array(0), dims);
  };
  const shapes = Object.fromEntries(ports.map((port) => [port.name, port.shape]));
  const caches = Object.fromEntries(
    ports.filter((port) => port.name.startsWith("past_")).map((port) => [port.name, empty(port.shape)]),
  );
  const source = example.input_ids.length;
  let states = null, tokens = example.input_ids, written = 0;
  if (encoder) {
    const read = { input_ids: whole(ort, tokens), attention_mask: ones(ort, source) };
    states = (await encoder.run(read).catch(notTaken))[encoder.outputNames[0]];
    tokens = [start];
  }
  for (let first = true; ; first = false) {
    const places = tokens.map((_, at) => written + at);
    written += tokens.length;
    const given = {
      ...caches,
      input_ids: whole(ort, tokens),
      position_ids: whole(ort, places),
      attention_mask: ones(ort, written),
      encoder_attention_mask: ones(ort, source),
      encoder_hidden_states: first ? states : encoder && empty(shapes.encoder_hidden_states),
      use_cache_branch: new ort.Tensor("bool", [!first], [1]),
    };
    const feeds = Object.fromEntries(ports.map(({ name }) => [name, given[name]]));
    const outputs = await session.run(feeds).catch(notTaken);
    for (const [name, value] of Object.entries(outputs)) {
      // The keys and values of a source are made once, by the first step.
      if (name.startsWith("present.") && (first || !name.includes(".encoder."))) {
        caches[name.replace("present.", "past_key_values.")] = value;
      }
    }
    const width = outputs.logits.dims.at(-1);
    tokens = [yield outputs.logits.data.slice(-width)];
  }
}

async function checkWritten(ort, session, encoder, manifest, golden, start) {
  const ports = manifest.inputs.filter((port) => session.inputNames.includes(port.name));
  let worst = 0, count = 0;
  const begin = performance.now();
  for (const [number, example] of golden.examples.entries()) {
    const walk = steps(ort, session, encoder, ports, start, example);
    let before;
    for (const [at, token] of example.written.entries()) {
      const { value: logits } = await walk.next(before);
      const gap = Math.max(Math.abs(logits[token] - example.logits[at]), (logits.reduce(larger) - logits[token]) / 2);
      worst = Math.max(worst, checkGap(number, gap, golden.tolerance));
      before = token;
      count++;
    }
  }
  console.log(`outputs   ${golden.examples.length} texts written right within ${worst.toPrecision(3)}`);
  const each = (performance.now() - begin) / count;
  console.log(`time      ${each.toPrecision(3)} ms for each of ${count} tokens, sources and first steps included`);
}

// A graph that searches by itself: whole texts, and the score of the best where there are several beams.

async function checkSearched(ort, session, golden) {
  let worst = 0;
  const begin = performance.now();
  for (const [number, example] of golden.examples.entries()) {
    const { length } = example.input_ids;
    const feeds = { input_ids: whole(ort, example.input_ids) };
    if (session.inputNames.includes("attention_mask")) feeds.attention_mask = ones(ort, length);
    const { sequences, scores } = await session.run(feeds).catch(notTaken);
    const text = Array.from(sequences.data.slice(0, sequences.dims[1]), Number);
    const same = text.length === example.written.length && text.every((token, at) => token === example.written[at]);
    const gap = !same ? Infinity : scores ? Math.abs(scores.data[0] - example.logits[0]) : 0;
    worst = Math.max(worst, checkGap(number, gap, golden.tolerance));
  }
  const each = (performance.now() - begin) / golden.examples.length;
  console.log(`outputs   ${golden.examples.length} texts found again, their scores within ${worst.toPrecision(3)}`);
  console.log(`time      ${each.toPrecision(3)} ms for each text, the first one included`);
}

const larger = (a, b) => (a > b ? a : b);

async function timeOutputs(ort, session, golden, measurements, threads) {
  const feeds = golden.examples.map((example) => feedsOf(ort, session, example));
  const times = [];
  for (let pass = 0; pass < WARM_UP + PASSES; pass++) {
    for (const feed of feeds) {
      const start = process.hrtime.bigint();
      await session.run(feed);
      if (pass >= WARM_UP) times.push(Number(process.hrtime.bigint() - start) / 1e6);
    }
  }
  const here = median(times), promise = measurements?.bundle?.p50_ms;
  const beside = promise > 0
    ? `, ${promise.toPrecision(3)} ms at the gate (${measurements.environment?.cpu ?? "unknown"}): ` +
      `${(here / promise).toPrecision(3)} times`
    : "";
  console.log(`time      median ${here.toPrecision(3)} ms here, ${threads} thread(s)${beside}`);
}

async function main() {
  const bundle = resolve(process.argv[2] ?? dirname(fileURLToPath(import.meta.url)));
  const manifest = await readObject(bundle, MANIFEST);
  if (manifest.format !== 1 || !isObject(manifest.files)) refuse(`${MANIFEST}: is not of format 1`, COPY);
  for (const name of [GOLDEN, manifest.model]) {
    if (!Object.hasOwn(manifest.files, name)) refuse(`${MANIFEST}: does not list ${name}`, COPY);
  }
  await checkFiles(bundle, manifest.files);
  console.log(`files     ${Object.keys(manifest.files).length} right, and no others`);
  console.log(`bundle    ${digestOf(manifest.files)}`);
  const golden = await readObject(bundle, GOLDEN);
  const limits = Number.isFinite(golden.tolerance) && Array.isArray(golden.examples) && golden.examples.length > 0;
  if (!limits) refuse(`${GOLDEN}: holds no examples, or no tolerance`, COPY);
  if (manifest.inputs.some((port) => port.dtype === "string")) {
    console.log("outputs   NOT checked: it takes texts, for which these runtimes have no operators. Use: compress verify .");
    return UNCHECKED;
  }
  const runtime = await findRuntime();
  if (!runtime) {
    console.log("outputs   NOT checked: there is no runtime. Get one with: npm install onnxruntime-node");
    return UNCHECKED;
  }
  const threads = manifest.measurements?.environment?.threads ?? 1;
  const session = await openSession(runtime, bundle, manifest.model, threads);
  if (session.outputNames.includes("sequences")) {
    await checkSearched(runtime.ort, session, golden);
    return 0;
  }
  if (golden.examples.every((example) => example.written)) {
    const encoder = manifest.encoder ? await openSession(runtime, bundle, manifest.encoder, threads) : null;
    const start = manifest.encoder ? (await readObject(bundle, "generation.json")).start : null;
    await checkWritten(runtime.ort, session, encoder, manifest, golden, start);
    return 0;
  }
  await checkOutputs(runtime.ort, session, golden, manifest.shape?.head?.labels?.length);
  await timeOutputs(runtime.ort, session, golden, manifest.measurements, threads);
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  console.error(`error: ${error.message}`);
  process.exitCode = WRONG;
}

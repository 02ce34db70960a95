// The bundle: its files, each compared with its digest, and the session that runs its model.

import * as ort from "./ort.wasm.bundle.min.js";
import { answerOf } from "./answers.js";
import { Reader } from "./reading.js";

const WASM = "web/ort-wasm-simd-threaded.wasm";

async function bytesOf(name) {
  const response = await fetch(name, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${name} is missing (${response.status})`);
  return new Uint8Array(await response.arrayBuffer());
}

async function digestOf(bytes) {
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return [...new Uint8Array(digest)].map((one) => one.toString(16).padStart(2, "0")).join("");
}

export class Files {
  // Returns the files that manifest.json lists, and what is wrong with them. Without SubtleCrypto, which a browser keeps
  // for https and localhost, only sizes are compared, and `digests` is false.
  static async load() {
    const manifest = JSON.parse(new TextDecoder().decode(await bytesOf("manifest.json")));
    const digests = globalThis.crypto?.subtle !== undefined;
    const held = new Map();
    const problems = [];
    for (const [name, entry] of Object.entries(manifest.files)) {
      try {
        const bytes = await bytesOf(name);
        held.set(name, bytes);
        if (bytes.length !== entry.bytes) problems.push(`${name} has ${bytes.length} bytes, recorded ${entry.bytes}`);
        else if (digests && (await digestOf(bytes)) !== entry.sha256) problems.push(`${name} does not match its digest`);
      } catch (error) {
        problems.push(error.message);
      }
    }
    return new Files(manifest, held, problems, digests);
  }

  constructor(manifest, held, problems, digests) {
    Object.assign(this, { manifest, held, problems, digests });
  }

  bytes(name) {
    if (!this.held.has(name)) throw new Error(`${name} is not in manifest.json`);
    return this.held.get(name);
  }

  json(name) {
    return JSON.parse(new TextDecoder().decode(this.bytes(name)));
  }
}

export class Model {
  static async open(files) {
    ort.env.wasm.numThreads = 1; // more need a page that is isolated from other origins
    ort.env.wasm.wasmBinary = files.bytes(WASM);
    const session = await ort.InferenceSession.create(files.bytes(files.manifest.model), { executionProviders: ["wasm"] });
    return new Model(session, files);
  }

  constructor(session, files) {
    this.session = session;
    this.output = files.manifest.outputs[0].name;
    this.told = files.json("web/page.json");
    this.reader = new Reader(files.json("tokenizer.json"), files.json("tokenizer_config.json"), this.told);
  }

  // Returns the first output for the numbers of one text.
  async run(ids, kinds) {
    const whole = { input_ids: ids, attention_mask: ids.map(() => 1), token_type_ids: kinds };
    const inputs = Object.fromEntries(
      this.session.inputNames.map((name) => [name, new ort.Tensor("int64", BigInt64Array.from(whole[name], BigInt), [1, ids.length])]),
    );
    const outputs = await this.session.run(inputs, [this.output]);
    return outputs[this.output].data;
  }

  read(text, pair) {
    return this.reader.read(text, pair, this.told.placed);
  }

  // Returns the answer to one text or two, and the milliseconds that reading and running took. Texts to be likened are
  // read one by one, all others together.
  async answer(texts) {
    const start = performance.now();
    const apart = this.told.shows === "likeness";
    const given = apart ? texts.map((text) => [text, null]) : [[texts[0], texts[1] ?? null]];
    const readings = [];
    for (const [text, pair] of given) {
      const windows = [];
      for (const window of this.read(text, pair)) windows.push({ window, logits: await this.run(window.ids, window.kinds) });
      readings.push(windows);
    }
    const answer = answerOf(this.told, texts, readings);
    return { answer, milliseconds: performance.now() - start };
  }
}

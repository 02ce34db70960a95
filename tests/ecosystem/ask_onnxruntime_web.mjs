// Logits of onnxruntime-web for the golden examples of bundles: a list of {"bundle"} as JSON in, logits by example each.
import { readFileSync } from 'node:fs';
import * as ort from 'onnxruntime-web';

ort.env.wasm.numThreads = 1;

async function logits({ bundle }) {
  const read = (name) => readFileSync(`${bundle}/${name}`);
  const { model } = JSON.parse(read('manifest.json'));
  const graph = await ort.InferenceSession.create(read(model), { executionProviders: ['wasm'] });
  const found = [];
  for (const { input_ids, token_type_ids } of JSON.parse(read('golden.json')).examples) {
    const rows = { input_ids, token_type_ids, attention_mask: input_ids.map(() => 1) };
    const feeds = {};
    for (const name of graph.inputNames) {
      feeds[name] = new ort.Tensor('int64', BigInt64Array.from(rows[name].map(BigInt)), [1, input_ids.length]);
    }
    const outputs = await graph.run(feeds);
    found.push(Array.from(outputs[graph.outputNames[0]].data));
  }
  return found;
}

const all = [];
for (const asked of JSON.parse(readFileSync(0, 'utf-8'))) all.push(await logits(asked));
console.log(JSON.stringify(all));

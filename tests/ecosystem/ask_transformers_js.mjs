// Answers of transformers.js for bundles that lie side by side: a list of {"bundle", "task", "texts"} as JSON in, a list
// of answers each as JSON out.
import { readFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import {
  AutoModel, AutoModelForCausalLM, AutoModelForQuestionAnswering, AutoModelForTokenClassification, AutoTokenizer, env,
  pipeline,
} from '@huggingface/transformers';

env.allowRemoteModels = false;
// The files lie beside config.json, not in a folder `onnx` of their own.
const where = { subfolder: '', device: 'cpu' };
const greedy = { num_beams: 1, do_sample: false, max_new_tokens: 8 };
const MODELS = {
  'text-generation': AutoModelForCausalLM,
  'token-classification': AutoModelForTokenClassification,
  'question-answering': AutoModelForQuestionAnswering,
  'feature-extraction': AutoModel,
};

async function outputs(name, task, texts) {
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  const model = await MODELS[task].from_pretrained(name, where);
  const found = [];
  for (const text of texts) {
    const read = Array.isArray(text) ? tokenizer(text[0], { text_pair: text[1] }) : tokenizer(text);
    if (task === 'text-generation') { // its pipeline cuts the prompt off by characters, which may be half ones
      const written = (await model.generate({ ...read, ...greedy })).tolist()[0].slice(read.input_ids.dims[1]);
      found.push(tokenizer.decode(written, { skip_special_tokens: true }));
      continue;
    }
    const given = await model(read);
    if (task === 'question-answering') {
      const [start, end] = [given.start_logits.tolist()[0], given.end_logits.tolist()[0]];
      found.push(start.map((value, index) => [value, end[index]]));
    } else found.push((given.last_hidden_state ?? given.logits).tolist()[0]);
  }
  return found;
}

async function answers(name, task, texts) {
  const pipe = await pipeline(task, name, where);
  const found = [];
  for (const text of texts) {
    if (task === 'text-classification') {
      const all = await pipe(text, { top_k: null });
      found.push(Object.fromEntries(all.map(({ label, score }) => [label, score])));
    } else {
      const [answer] = await pipe(text, greedy);
      found.push(answer.generated_text ?? answer.translation_text ?? answer.summary_text);
    }
  }
  return found;
}

const all = [];
for (const { bundle, task, texts } of JSON.parse(readFileSync(0, 'utf-8'))) {
  env.localModelPath = `${dirname(bundle)}/`;
  all.push(await (task in MODELS ? outputs : answers)(basename(bundle), task, texts));
}
console.log(JSON.stringify(all));

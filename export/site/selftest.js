// What the bundle promises, checked here: its files, its numbers for golden inputs, and its tokens for golden texts.

import { chosenOf } from "./answers.js";

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export function checkFiles(files) {
  const count = Object.keys(files.manifest.files).length;
  if (files.problems.length) return { passed: false, said: files.problems.join("; ") };
  if (files.digests) return { passed: true, said: `${count} files have the digests in manifest.json` };
  return { passed: false, said: "no digest was compared: a browser does so on https and on localhost only" };
}

export function checkTokens(model) {
  const wrong = model.told.texts.filter(({ text, pair, windows }) => {
    const found = model.read(text, pair ?? null);
    return !same(found.map(({ ids, kinds }) => [ids, kinds]), windows.map(({ ids, kinds }) => [ids, kinds]));
  });
  const count = model.told.texts.length;
  if (!wrong.length) return { passed: true, said: `${count} texts have the tokens that they had in Python` };
  return { passed: false, said: `${wrong.length} of ${count} texts have other tokens, such as ${JSON.stringify(wrong[0].text)}` };
}

export async function checkAnswers(model, golden) {
  const { told } = model;
  const times = [];
  let worst = 0;
  let others = 0;
  for (const { input_ids, token_type_ids } of golden.examples.slice(0, 1)) await model.run(input_ids, token_type_ids); // warm
  for (const example of golden.examples) {
    const start = performance.now();
    const found = await model.run(example.input_ids, example.token_type_ids);
    times.push(performance.now() - start);
    const gaps = example.logits.map((one, place) => Math.abs(one - found[place]));
    worst = found.length === gaps.length ? Math.max(worst, ...gaps.map((gap) => (Number.isNaN(gap) ? Infinity : gap))) : Infinity;
    others += same(chosenOf(told, found), chosenOf(told, example.logits)) ? 0 : 1;
  }
  const count = golden.examples.length;
  const median = times.sort((one, other) => one - other)[times.length >> 1];
  const said = `${count} golden inputs: largest difference ${worst.toPrecision(2)}, allowed ${golden.tolerance}; ${count - others} with the same labels`;
  return { passed: count > 0 && worst <= golden.tolerance && others === 0, said, milliseconds: median };
}

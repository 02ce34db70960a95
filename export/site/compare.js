// Run by Node.js when a page is made: which texts have other tokens here than they had in Python? Characters are counted
// as Python does, not in units of 16 bits.

import { readFileSync } from "node:fs";
import { Reader } from "./reading.js";

const { tokenizer, config, told, texts } = JSON.parse(readFileSync(0, "utf8"));
const reader = new Reader(tokenizer, config, told);

function counted({ ids, kinds, spans, words }, text) {
  if (!told.placed) return { ids, kinds };
  const places = [];
  for (const [number, character] of [...text].entries()) places.push(...Array(character.length).fill(number));
  places.push([...text].length);
  return { ids, kinds, spans: spans.map(([start, end]) => [places[start], places[end]]), words };
}

function differs({ text, pair = null, windows }) {
  try {
    const found = reader.read(text, pair, told.placed).map((window) => counted(window, pair ?? text));
    return JSON.stringify(found) !== JSON.stringify(windows);
  } catch (error) {
    return true; // a text for which no place is found is one that is read otherwise
  }
}

console.log(JSON.stringify(texts.flatMap((one, number) => (differs(one) ? [number] : []))));

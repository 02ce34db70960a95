// From logits to an answer: what the tasks of the same names in Python do.

const LONGEST = 30; // tokens of an answer
const CANDIDATES = 20; // starts and ends that are tried with each other
const THRESHOLD = 0.5;

export function softmax(logits) {
  const highest = Math.max(...logits);
  const raised = [...logits].map((one) => Math.exp(one - highest));
  const sum = raised.reduce((all, one) => all + one, 0);
  return raised.map((one) => one / sum);
}

// Returns the rows of logits, `width` numbers each.
function rowsOf(logits, width) {
  return Array.from({ length: logits.length / width }, (_, row) => logits.slice(row * width, (row + 1) * width));
}

function topOf(numbers) {
  return numbers.reduce((best, one, place) => (one > numbers[best] ? place : best), 0);
}

function ranked(labels, shares, named) {
  return labels
    .map((label, place) => ({ label, share: shares[place], named: named(place) }))
    .sort((one, other) => other.share - one.share);
}

// Words of a text by their first tokens, with the first character of each and the one behind its last. A tokenizer's word
// ends too where letters or digits meet another character.
function wordsOf(text, { spans, words }) {
  const letter = (character) => /[\p{L}\p{N}]/u.test(character);
  const found = [];
  let number = -1;
  spans.forEach(([start, end], place) => {
    if (start === end) return;
    const last = found.at(-1);
    const before = [...text.slice(0, start)].at(-1);
    const touches = last !== undefined && last.end === start && words[place] === number;
    if (touches && letter(String.fromCodePoint(text.codePointAt(start))) && letter(before)) last.end = end;
    else found.push({ place, start, end });
    number = words[place];
  });
  return found;
}

function tagOf(label) {
  const [prefix, ...kind] = label.split("-");
  return prefix === "B" || prefix === "I" ? [prefix, kind.join("-")] : ["O", ""];
}

// Returns the spans of a text; a tag I- that continues nothing begins one.
function spansOf(labels, text, window, logits) {
  const shares = rowsOf(logits, labels.length).map(softmax);
  const found = [];
  let open = null;
  for (const word of wordsOf(text, window)) {
    const top = topOf(shares[word.place]);
    const [prefix, kind] = tagOf(labels[top]);
    if (open !== null && (prefix !== "I" || kind !== open.label)) open = null;
    if (prefix !== "O" && open === null) found.push((open = { label: kind, start: word.start, end: word.end, scores: [] }));
    if (open !== null) {
      open.end = word.end;
      open.scores.push(shares[word.place][top]);
    }
  }
  return found.map(({ label, start, end, scores }) => ({
    label,
    start,
    end,
    share: scores.reduce((sum, one) => sum + one, 0) / scores.length,
  }));
}

// Returns the best answer of a window: its characters, equal where there is none, and the sum of both logits.
function excerptOf({ spans }, logits) {
  const score = rowsOf(logits, 2);
  const inside = spans.flatMap(([start, end], place) => (end > start ? [place] : []));
  const best = { start: 0, end: 0, score: score[0][0] + score[0][1] };
  const [starts, ends] = [0, 1].map((output) =>
    [...inside].sort((one, other) => score[other][output] - score[one][output]).slice(0, CANDIDATES),
  );
  for (const first of starts) {
    for (const last of ends) {
      const sum = score[first][0] + score[last][1];
      if (last >= first && last - first < LONGEST && sum > best.score) {
        Object.assign(best, { start: spans[first][0], end: spans[last][1], score: sum });
      }
    }
  }
  return best;
}

function cosine(one, other) {
  const dot = (left, right) => left.reduce((sum, value, place) => sum + value * right[place], 0);
  const size = Math.sqrt(dot(one, one) * dot(other, other));
  return size ? dot(one, other) / size : 0;
}

// Each takes the labels, the texts, and the windows of every reading with their logits.
const ANSWERS = {
  class: (labels, texts, [[{ logits }]]) => {
    const shares = softmax(logits);
    const top = topOf(shares);
    return { shares: ranked(labels, shares, (place) => place === top) };
  },
  classes: (labels, texts, [[{ logits }]]) => {
    const shares = [...logits].map((one) => 1 / (1 + Math.exp(-one)));
    return { shares: ranked(labels, shares, (place) => shares[place] > THRESHOLD) };
  },
  number: (labels, texts, [[{ logits }]]) => ({ number: logits[0], of: labels[0] }),
  spans: (labels, [text], [[{ window, logits }]]) => ({ text, spans: spansOf(labels, text, window, logits) }),
  excerpt: (labels, [, context], [windows]) => {
    const each = windows.map(({ window, logits }) => excerptOf(window, logits));
    const told = each.filter((one) => one.end > one.start);
    const { start, end } = (told.length ? told : each).reduce((best, one) => (one.score > best.score ? one : best));
    return { text: context, spans: end > start ? [{ label: "", start, end }] : [] };
  },
  likeness: (labels, texts, [[one], [other]]) => ({ number: cosine(one.logits, other.logits), of: "similarity" }),
};

// Returns the answer to one text or two: `shares` of labels, a `number`, or `spans` of a text.
export function answerOf(told, texts, readings) {
  return ANSWERS[told.shows](told.labels, texts, readings);
}

// Returns the number of the label that the logits of an example choose at each place, or what is chosen of several.
export function chosenOf(told, logits) {
  if (told.shows === "classes") return [...logits].map((one) => Number(one > 0));
  if (told.shows === "class" || told.shows === "spans") return rowsOf(logits, told.labels.length).map(topOf);
  return [];
}

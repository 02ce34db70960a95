// The page: what is typed, what is answered, and what the self-test found. Texts are put in as texts, never as markup.

import { Files, Model } from "./model.js";
import { checkAnswers, checkFiles, checkTokens } from "./selftest.js";

const FIELDS = {
  class: ["Text", "Second text"],
  classes: ["Text", "Second text"],
  number: ["Text", "Second text"],
  spans: ["Text"],
  excerpt: ["Question", "Text that holds the answer"],
  likeness: ["Text", "Text to compare with"],
};

const element = (id) => document.getElementById(id);

function made(tag, text, ...children) {
  const node = document.createElement(tag);
  if (text !== null) node.textContent = text;
  node.append(...children);
  return node;
}

function told(name, { passed, said }) {
  const row = element(`test-${name}`);
  row.dataset.state = passed ? "passed" : "failed";
  row.querySelector("dd").textContent = said;
  return passed;
}

async function checked(name, check) {
  try {
    return told(name, await check());
  } catch (error) {
    return told(name, { passed: false, said: error.message ?? String(error) });
  }
}

function concluded(passed) {
  const summary = element("self-test");
  summary.dataset.state = passed ? "passed" : "failed";
  element("self-test-said").textContent = passed ? "Self-test passed" : "Self-test failed";
  element("self-test-details").open = !passed;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function sharesShown({ shares }) {
  const rows = shares.map(({ label, share, named }) => {
    const meter = made("progress", null);
    meter.max = 1;
    meter.value = share;
    meter.setAttribute("aria-label", `${label}: ${percent(share)}`);
    const row = made("tr", null, made("th", label), made("td", null, meter), made("td", percent(share)));
    row.firstChild.scope = "row";
    row.className = named ? "named" : "";
    return row;
  });
  return made("table", null, made("tbody", null, ...rows));
}

function spansShown({ text, spans }) {
  const parts = [];
  let at = 0;
  for (const { label, start, end, share } of spans) {
    const mark = made("mark", text.slice(start, end));
    if (label) mark.append(made("small", `${label} ${percent(share)}`));
    parts.push(text.slice(at, start), mark);
    at = end;
  }
  if (!spans.length) return made("p", "(nothing found)");
  return made("p", null, ...parts, text.slice(at));
}

function shown(answer) {
  if (answer.shares) return sharesShown(answer);
  if (answer.spans) return spansShown(answer);
  const number = made("p", null, made("strong", answer.number.toFixed(4)), ` ${answer.of}`);
  number.className = "number";
  return number;
}

function prepare(model) {
  const names = FIELDS[model.told.shows].slice(0, model.told.fields);
  names.forEach((name, place) => {
    element(`field-${place}`).hidden = false;
    element(`label-${place}`).textContent = name;
  });
  const fields = names.map((_, place) => element(`text-${place}`));
  element("ask").addEventListener("submit", async (event) => {
    event.preventDefault();
    element("send").disabled = true;
    try {
      const { answer, milliseconds } = await model.answer(fields.map((field) => field.value));
      element("answer").replaceChildren(shown(answer));
      element("took").textContent = `${milliseconds.toFixed(1)} ms`;
      element("result").dataset.state = "answered";
    } catch (error) {
      element("answer").replaceChildren(made("p", `This text cannot be answered: ${error.message ?? error}`));
      element("took").textContent = "";
      element("result").dataset.state = "failed";
    }
    element("result").hidden = false;
    element("send").disabled = false;
  });
  for (const field of fields) {
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element("ask").requestSubmit();
    });
  }
  element("send").disabled = false;
  fields[0].focus();
}

async function start() {
  let files;
  let model;
  const intact = await checked("files", async () => checkFiles((files = await Files.load())));
  const runs = await checked("answers", async () => {
    if (files === undefined) throw new Error("not run");
    model = await Model.open(files);
    const { told: page } = model;
    document.title = page.title;
    element("title").textContent = page.title;
    element("about").textContent = page.about;
    const found = await checkAnswers(model, files.json("golden.json"));
    element("speed").textContent = `${found.milliseconds.toFixed(1)} ms for a golden input (median)`;
    return found;
  });
  const reads = await checked("tokens", async () => {
    if (model === undefined) throw new Error("not run");
    return checkTokens(model);
  });
  if (model !== undefined && !files.problems.length) prepare(model);
  else element("about").textContent = "Nothing is answered: see the self-test.";
  files?.held.clear(); // what is run is in the session now
  concluded(intact && runs && reads);
}

await start();

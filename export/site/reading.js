// From text to token numbers, as the bundle's own tokenizer gives them. The library has no places of tokens in a text,
// and reads a few characters otherwise than BERT's normalizer: both are here.

import { ByteLevelPreTokenizer, Tokenizer } from "./tokenizers.min.mjs";

const BLANKS = /^[\p{White_Space}\x1c-\x1f]+/u; // what Python takes for blank
const bytesOf = new ByteLevelPreTokenizer({ add_prefix_space: false, use_regex: false });

// `told` is what page.json says of reading: templates of special tokens, the longest text, where it is cut, and how many
// tokens the windows of a long second text share.
export class Reader {
  constructor(tokenizer, config, told) {
    this.tokenizer = new Tokenizer(tokenizer, config);
    this.told = told;
    if (tokenizer.normalizer?.type === "BertNormalizer") {
      this.tokenizer.normalizer = (text) => bertNormalized(text, tokenizer.normalizer);
    }
    if (tokenizer.pre_tokenizer?.type === "Whitespace") {
      this.tokenizer.pre_tokenizer = (text) => text.match(/[\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}]+|[^\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\s]+/gu) ?? [];
    }
    const kinds = [tokenizer.pre_tokenizer, ...(tokenizer.pre_tokenizer?.pretokenizers ?? [])];
    this.byBytes = kinds.some((one) => one?.type === "ByteLevel");
    this.continues = tokenizer.model.continuing_subword_prefix ?? "";
  }

  // Returns the windows of a text, or of a text and its pair: ids and kinds of all tokens, and with `placed` the spans
  // of characters and the number of the word of each.
  read(text, pair, placed) {
    const parts = [text, pair].filter((one) => one !== null).map((one) => this.#tokens(one, placed));
    const template = pair === null ? this.told.single : this.told.pair;
    const room = this.told.longest - template.filter((one) => one.id !== undefined).length;
    if (pair !== null && this.told.shared) return this.#windows(template, room, ...parts);
    const kept = keptOf(room, parts.map((part) => part.length));
    const cut = this.told.cut === "left" ? (part, n) => part.slice(part.length - n) : (part, n) => part.slice(0, n);
    return [filled(template, parts.map((part, number) => cut(part, kept[number])))];
  }

  #windows(template, room, question, context) {
    const shared = Math.min(this.told.shared, Math.floor(this.told.longest / 3));
    const asked = question.slice(0, Math.floor(room / 2)).map((token) => ({ ...token, span: [0, 0], word: -1 }));
    const width = room - asked.length;
    const windows = [];
    for (let start = 0; ; start += width - shared) {
      windows.push(filled(template, [asked, context.slice(start, start + width)]));
      if (start + width >= context.length) return windows;
    }
  }

  // Returns the tokens of a text: each with its id and, with `placed`, its span and the number of its word.
  #tokens(text, placed) {
    const { tokenizer } = this;
    const found = [];
    let start = 0;
    let number = 0;
    for (const [index, section] of tokenizer.splitter_unnormalized.split(text).entries()) {
      if (tokenizer.added_tokens_map.has(section)) {
        found.push({ id: tokenizer.added_tokens_map.get(section).id, span: [start, start + section.length], word: number++ });
      } else if (section.length) {
        const origins = placed ? this.#origins(section, start) : null;
        const normalized = tokenizer.normalizer === null ? section : tokenizer.normalizer(section);
        const words = tokenizer.pre_tokenizer === null ? [normalized] : tokenizer.pre_tokenizer(normalized, { section_index: index });
        for (const word of words) {
          const tokens = tokenizer.model([word]);
          const spans = placed ? this.#spans(word, tokens, origins, text) : [];
          tokens.forEach((token, place) => found.push({ id: this.#id(token), span: spans[place], word: number }));
          number += 1;
        }
      }
      start += section.length;
    }
    return found;
  }

  #id(token) {
    const { model } = this.tokenizer;
    return model.tokens_to_ids.get(token) ?? model.unk_token_id;
  }

  // Returns every character that the tokenizer sees of a section, blanks left out, and where it came from in the text.
  #origins(section, start) {
    const { normalizer } = this.tokenizer;
    const found = [];
    let at = start;
    for (const character of section) {
      const seen = normalizer === null ? character : normalizer(character);
      const shown = this.byBytes ? bytesOf.pre_tokenize_text(seen).join("") : seen.replace(/[\s\u2581]/gu, "");
      for (const one of shown) found.push([one, at, at + character.length]);
      at += character.length;
    }
    return { found, next: 0 };
  }

  // Returns the span of every token of a word, the next one of those whose characters are in `origins`.
  #spans(word, tokens, origins, text) {
    let shown = [...(this.byBytes ? word : word.replace(/[\s\u2581]/gu, ""))];
    const { found, next } = origins;
    if (this.byBytes && shown[0] === "\u0120" && found[next]?.[0] !== "\u0120") shown = shown.slice(1); // a blank put before
    if (shown.some((one, place) => found[next + place]?.[0] !== one)) throw new Error(`no place for ${JSON.stringify(word)}`);
    origins.next += shown.length;
    const own = found.slice(next, next + shown.length);
    const blank = this.byBytes ? [...word].length - shown.length : 0;
    let lengths = tokens.map((token, place) => this.#length(token, place, place === 0 ? blank : 0));
    if (lengths.reduce((sum, one) => sum + one, 0) !== shown.length) lengths = null; // a token is unknown: the whole word
    let first = 0;
    return tokens.map((token, place) => {
      const part = lengths === null ? own : own.slice(first, (first += lengths[place]));
      if (!part.length) return [0, 0];
      const [begin, end] = [part[0][1], part.at(-1)[2]];
      const inner = text.slice(begin, end);
      return [begin + inner.length - inner.replace(BLANKS, "").length, end];
    });
  }

  #length(token, place, blank) {
    const tail = this.continues && place && token.startsWith(this.continues) ? token.slice(this.continues.length) : token;
    return [...(this.byBytes ? tail : tail.replace(/[\s\u2581]/gu, ""))].length - blank;
  }
}

// Returns how many tokens each part keeps, the longer one of a pair cut first.
function keptOf(room, lengths) {
  if (lengths.length === 1) return [Math.min(room, lengths[0])];
  let [short, long] = [...lengths].sort((a, b) => a - b);
  if (short + long <= room) return lengths;
  long = short > room ? short : Math.max(short, room - short);
  if (short + long > room) {
    short = Math.floor(room / 2);
    long = short + (room % 2);
  }
  return lengths[0] > lengths[1] ? [long, short] : [short, long];
}

function filled(template, parts) {
  const special = { span: [0, 0], word: -1 };
  const tokens = template.flatMap((one) =>
    one.id === undefined ? parts[one.text].map((token) => ({ ...token, kind: one.kind })) : [{ ...special, id: one.id, kind: one.kind }],
  );
  return Object.fromEntries([["ids", "id"], ["kinds", "kind"], ["spans", "span"], ["words", "word"]].map(([all, each]) => [all, tokens.map((token) => token[each])]));
}

// BERT's normalizer, character by character as it is elsewhere: JavaScript's lower case of a text depends on what stands
// beside a sigma, and the library takes characters beyond 16 bits for two.
function bertNormalized(text, { clean_text, handle_chinese_chars, strip_accents, lowercase }) {
  let found = "";
  for (const character of text) {
    const code = character.codePointAt(0);
    const control = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/u.test(character) && !"\t\n\r".includes(character);
    if (clean_text && (code === 0 || code === 0xfffd || control)) continue;
    const shown = clean_text && /\s/u.test(character) ? " " : character;
    found += handle_chinese_chars && isChinese(code) ? ` ${shown} ` : shown;
  }
  if (strip_accents ?? lowercase) found = found.normalize("NFD").replace(/\p{Mn}/gu, "");
  return lowercase ? [...found].map((character) => character.toLowerCase()).join("") : found;
}

const CHINESE = [
  [0x4e00, 0x9fff], [0x3400, 0x4dbf], [0x20000, 0x2a6df], [0x2a700, 0x2b73f],
  [0x2b740, 0x2b81f], [0x2b920, 0x2ceaf], [0xf900, 0xfaff], [0x2f800, 0x2fa1f],
];

function isChinese(code) {
  return CHINESE.some(([first, last]) => first <= code && code <= last);
}

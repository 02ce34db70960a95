// From text to token numbers, as the bundle's own tokenizer gives them. The library has no places of tokens in a text,
// and reads a few characters otherwise than BERT's normalizer: both are here.

import { ByteLevelPreTokenizer, Tokenizer } from "./tokenizers.min.js";

const BLANKS = /^[\p{White_Space}\x1c-\x1f]+/u; // what Python takes for blank
const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}"; // what Rust takes for part of a word
const PATTERNS = {
  Whitespace: new RegExp(`[${WORD}]+|[^${WORD}\\p{White_Space}]+`, "gu"),
  WhitespaceSplit: /\P{White_Space}+/gu,
};
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
    const kinds = [tokenizer.pre_tokenizer, ...(tokenizer.pre_tokenizer?.pretokenizers ?? [])];
    const made = [this.tokenizer.pre_tokenizer, ...(this.tokenizer.pre_tokenizer?.tokenizers ?? [])];
    for (const [place, kind] of kinds.entries()) {
      const pattern = PATTERNS[kind?.type];
      if (pattern) made[place].pre_tokenize_text = (text) => text.match(pattern) ?? [];
    }
    this.byBytes = kinds.some((one) => one?.type === "ByteLevel");
    this.split = kinds.some((one) => one?.type === "Metaspace" && one.split !== false);
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
        const words = this.#words(normalized, index);
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

  #words(normalized, section_index) {
    const { pre_tokenizer } = this.tokenizer;
    const words = pre_tokenizer === null ? [normalized] : pre_tokenizer(normalized, { section_index });
    return this.split ? words.flatMap((word) => word.match(/\u2581[^\u2581]*|[^\u2581]+/gu) ?? []) : words;
  }

  // Returns the characters of what a tokenizer has made of a text, all blanks as one kind.
  #characters(seen) {
    return [...(this.byBytes ? seen : seen.replace(/[\p{White_Space}\u2581]/gu, " "))];
  }

  // Returns every character that the tokenizer sees of a section, and where it came from in the text. Marks are seen with
  // the character before them where a normalizer makes one of both.
  #origins(section, start) {
    const { normalizer } = this.tokenizer;
    const seenOf = (part) => {
      const seen = normalizer === null ? part : normalizer(part);
      return this.#characters(this.byBytes ? bytesOf.pre_tokenize_text(seen).join("") : seen);
    };
    const found = [];
    let at = start;
    for (const [group] of section.matchAll(/\P{M}\p{M}*|\p{M}+/gu)) {
      const whole = seenOf(group);
      const parts = [...group].map((part) => [part.length, seenOf(part)]);
      const shown = (characters) => characters.filter((one) => one !== " ").join("");
      const apart = shown(parts.flatMap(([, seen]) => seen)) === shown(whole);
      for (const [number, [length, seen]] of parts.entries()) {
        for (const one of apart ? seen : number ? [] : whole) found.push([one, at, at + length]);
        at += length;
      }
    }
    return { found, next: 0 };
  }

  // Returns the origins of a word's characters, the next ones: blanks that no word holds are passed over, and one that was
  // put before a word stands where the word begins; as a byte it has no width.
  #placed(word, origins) {
    const blank = this.byBytes ? "\u0120" : " ";
    return this.#characters(word).map((one) => {
      while (!this.byBytes && one !== blank && origins.found[origins.next]?.[0] === blank) origins.next += 1;
      const origin = origins.found[origins.next];
      if (origin?.[0] === one) origins.next += 1;
      else if (one !== blank || origin === undefined) throw new Error(`no place for ${JSON.stringify(word)}`);
      else if (this.byBytes) return [one, origin[1], origin[1]];
      return origin;
    });
  }

  // Returns the span of every token of a word: unknown ones are one character each, or a single one is what is left. The
  // whole word's where that does not come out.
  #spans(word, tokens, origins, text) {
    const own = this.#placed(word, origins);
    const unknown = tokens.filter((token) => this.#isUnknown(token)).length;
    const lengths = tokens.map((token, place) => (this.#isUnknown(token) ? 1 : this.#length(token, place)));
    const left = own.length - lengths.reduce((sum, one) => sum + one, 0);
    if (left > 0 && unknown === 1) lengths[tokens.findIndex((token) => this.#isUnknown(token))] += left;
    const known = left === 0 || (left > 0 && unknown === 1);
    let first = 0;
    return lengths.map((length) => {
      const part = known ? own.slice(first, (first += length)) : own;
      const [begin, end] = [part[0][1], part.at(-1)[2]];
      const inner = text.slice(begin, end);
      return [begin + inner.length - inner.replace(BLANKS, "").length, end];
    });
  }

  // Returns whether a token stands for characters that it does not name.
  #isUnknown(token) {
    return token === this.tokenizer.model.unk_token;
  }

  #length(token, place) {
    const marked = this.continues && place && token.startsWith(this.continues);
    return [...token].length - (marked ? this.continues.length : 0);
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

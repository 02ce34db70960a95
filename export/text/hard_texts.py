"""Texts on which tokenizers differ: every kind of trouble that Unicode and people make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

_WRITTEN: Final = (
    # Nothing, blanks of all kinds, and the ends of lines.
    "",
    " ",
    " \t\n\r ",
    "\u00a0\u2003\u3000",
    "  two  blanks   before and behind  ",
    "a\u00a0b\u2009c\u202fd\u3000e\u1680f\u205fg",
    "one\u2028two\u2029three\u0085four\u000bfive\u000csix",
    "tab\there\r\nand a line\n\n\n",
    # Accents, composed and decomposed, alone, many on one letter, and in another order.
    "naïve café façade Ångström señor coöperate",
    "nai\u0308ve cafe\u0301 fac\u0327ade A\u030angstro\u0308m",
    "\u0301accent first, e\u0301\u0301\u0301 three, o\u0302\u0323 o\u0323\u0302 \u1ed9",
    "Tiếng Việt ệ ự ằ; Čeština ř ů; Łódź ø đ ħ ŧ",
    "Z\u0351\u036b\u0343a\u0310\u035cl\u0300g\u0306o\u0303 t\u033de\u0342x\u0360t",
    # Letters that change their length, or have more than two cases.
    "İstanbul ISPARTA ıi Iı straße STRASSE ẞ ß ŉ ǰ ΐ ﬁ ﬂ ﬃ ﬅ Ǆ ǅ ǆ Ω Ω Å K ſ",
    "ΑΣ ΣΑΣ ὈΔΥΣΣΕΎΣ ς ᾳ ᾼ ᾘ",
    "DON'T WON'T it's 'S 'T I'LL we've they'd 'RE ’s `quoted` ''",
    # Writing without blanks, and with marks that belong to letters.
    "我喜欢这部电影，但结局不好。",
    "東京タワー はとても高い ｶﾀｶﾅ ㍿ ㈱",
    "한국어 텍스트 \u1112\u1161\u11ab ㄱㄴㄷ 힣",
    "中a文b字1\U00020000\U0002a6df\uf900\U0002f800\u3400",
    "ภาษาไทย ไม่มีช่องว่าง ລາວ မြန်မာ ភាសាខ្មែរ",
    "हिन्दी में लिखा க்ஷ தமிழ் বাংলা ಕನ್ನಡ",
    # From right to left, with marks of direction.
    "שָׁלוֹם עולם العَرَبِيَّة نص عربي ١٢٣ لا",
    "abc \u202edef\u202c \u2067ghi\u2069 \u200fj\u200ek \u061c",
    # Emoji: joined, coloured, flags, keycaps, with and without the selector.
    "👨\u200d👩\u200d👧\u200d👦 👍🏽 🏳\ufe0f\u200d🌈 🇩🇪🇯🇵 1\ufe0f\u20e3 ❤\ufe0f ❤ ☺ 🫠🫡🪿",
    "great👍movie😂😂😂!",
    # What is not seen: no width, soft hyphens, controls, private and never assigned characters.
    "zero\u200bwidth\u200cnon\u200djoiner\u2060word\ufeff soft\u00adhyphen",
    "\ufeffa mark of byte order first",
    "nul\u0000in the middle",
    "\u0000",
    "bell\u0007 escape\u001b[0m delete\u007f unit\u001fseparators\u001c\u001d\u001e",
    "c1\u0080\u0084\u0090\u009f private\ue000\U000f0000\U0010fffd lost\ufffd\ufffc no\ufdd0\ufffe\uffff\U0001ffff",
    "tags\U000e0041\U000e007f variation\U000e0100 \u180e \u034f \u115f \u3164",
    # Punctuation of all kinds, and what only looks like it.
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "¡¿«»‹›“”„‚‘’…–—―‐‑·•§¶†‡‰′″※‼⁇⁈",
    "。，、；：？！（）【】《》「」『』〜・｡｢｣､･",
    "؟ ، ؛ ۔ । ॥ ። ፣ ᠂ ։ ׀ ׃ ๏ ༄ ⸮ ⹁ 𐄀 𝪇",
    "$€£¥₹₿ ±×÷=≠≤≥∞∑√ ©®™ °ªº ^`~|<>+ ←→⇒ ■□▲ ♪♫ ½¼ ² ³ ⁴ ₂ ㎏ Ⅷ ⅷ ① Ⓐ",
    "a.b.c, e-mail@example.org https://example.org/?q=1&r=%20#x C:\\dir\\file.txt",
    "don''t...stop!!! well-known--really?! (maybe) [no] {x} <b>bold</b> &amp; a_b __init__ #hash ##ing ##a",
    "<|endoftext|> <s></s> <unk> <pad>  <mask> [CLS] [SEP] [MASK] [UNK] [PAD] [unused1] <|im_start|>",
    # Digits in many writings.
    "1234567890 3.14 1,000,000 1e-5 0x1F ٣٤٥ ۶۷۸ ४५६ ๑๒๓ １２３ 𝟏𝟐𝟑 𝒜𝓑 ꘡",
    # Words and texts that are very long.
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101 + " " + "é" * 101,
    "antidisestablishmentarianism" * 40,
    "good film " * 700,
    "-" * 300,
    # Writing that came to Unicode late, which an older table does not know.
    "𐖗𐖘 𖫀𖫁 𞤀𞤢 𞋀 Ꟁ ꟁ Ⱟ ⱟ 𑜀 𑅑 𐞀 𐞁 ࡰ ೝ 𝼀 🩷 𞓐 𐵐 𖵀",
)


def hard_texts(special: Iterable[str]) -> list[str]:
    """Return texts that are hard to read; those of a tokenizer's `special` tokens stand in some."""
    return [*_WRITTEN, *_with(special), *_blocks()]


def _with(special: Iterable[str]) -> Iterator[str]:
    for token in special:
        yield f"it says {token} here, {token}{token} and x{token}y, {token.lower()} {token.upper()}"
        yield f"  {token}\n{token} "
        yield f"{token[:-1]} {token[1:]} {token[0]}{token}"


def _blocks() -> Iterator[str]:
    """Yield the assigned planes of Unicode, a few characters of every stretch, within words and alone."""
    for start in (*range(0, 0x3400, 64), *range(0xA000, 0xAC00, 64), *range(0xF900, 0x32000, 512), 0xE0000):
        codes = range(start, start + 64, 5)
        found = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
        yield " ".join(found)
        yield "a".join(found)

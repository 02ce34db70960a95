"""Texts that tokenizers of the same file, written twice, most easily take for different ones."""

from __future__ import annotations

from typing import Final

# Accents, combining marks, case that has no way back, scripts without blanks, right to left, emoji, blanks of all
# kinds, controls, private use, special tokens as text, and words longer than any vocabulary.
DIFFICULT: Final = (
    "naïve café",
    "Ångström ÀÉÎÕÜ ñ ç ß ø",
    "e\u0301 combining o\u0308\u0323 z\u0335",
    "İstanbul ıspanak ǅ \ufb01 \ufb00",
    "ΟΔΥΣΣΕΥΣ ὈΔΥΣΣΕΎΣ σς",
    "東京タワ\u30fc 北京大学 한국어 감사합니다",
    "日本\u8a9eとEnglishの混在",
    "\U00020000\U0002a6d6 \U0002b740 \U0002f800 x\u9fff",
    "\U0001f600 \U0001f603\U0001f44d\U0001f3fd",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea \u263a\ufe0f \U0001fae0\U0001fabf",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u05e2\u05d5\u05dc\u05dd",
    "ह\u093fन\u094dद\u0940 म\u0947\u0902 द\u0947ख\u093fए ไทยภาษา தம\u0bbfழ\u0bcd",
    "tab\tnew\nline\r\nfeed\x0bvt\x0cff\x85nel\u2028ls",
    "zero\u200bwidth\u200djoin\ufeffbom\xadsoft",
    "nul\x00del\x7fbell\x07",
    "\xa0nbsp\u2003em\u3000ideographic",
    "don't can't I'm we'll",
    "3.14 1,000 $5 50% C++ #tag @me a/b\\c",
    "\u201cquotes\u201d \u2018single\u2019 \xabguil\xbb \u2014 \u2013 \u2026 \xb7",
    "\x00\ufffd replaced",
    "",
    "   ",
    "[CLS] [MASK] [SEP] [UNK] [PAD]",
    "x [MASK]y",
    "\xbd \xb2 \u2167 \u2460 \ufdfa Å K",
    "\ue000private \U000e0001tag",
    "ABC def GHI_jkl",
    "mixed\u202eRTL\u202c",
    "\U0001d4b3\U0001d550 \uff41\uff42\uff43",
    "~`^|<>=+&",
    "ำ \u0f0b \u1806 \u2e3a \u30fb",
    "ẞ ŉ ǰ ΐ",
    "\u0643\u0640\u0643",
    "\u1ab0 a\u0903 a\u20dd",
    "a" * 150 + " b",
    "Donaudampfschifffahrtsgesellschaft" * 4,
)

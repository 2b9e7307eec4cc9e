"""Texts to fill pages with: words, numbers, dates, amounts, and columns of old Chinese books."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scripts.train.fonts import DICTIONARY_ROOT, WORD_LISTS, Face, has_glyph
from scripts.train.truth import read_lines

HIRAGANA = "".join(map(chr, range(0x3042, 0x3094)))
KATAKANA = "".join(map(chr, range(0x30A2, 0x30F4)))
# The 3755 most used characters of today's Chinese, as GB 2312 has them in its rows 16 to 55.
COMMON_HAN = bytes(b for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF) for b in (row, cell)).decode(
    "gb2312", "ignore"
)
CHARACTERS = "ABCDEFGHJKLMNPQRSTUVWXYZABDEFGHKMNPRSTWabdefghkmnqrty2345678923456789&"  # most often capitals and figures
UNITS = "元 折 号 寸 克 米 个 件 年 % cm mm kg ml W V".split()  # noqa: SIM905
FORM_LABELS = """
Name Date Address Phone Fax Subject Total Amount Signature Reference Account Quantity Price Description Remarks From To
Attention Department City Code Number Brand Type Approved Received Copies Page Telephone Region Division
""".split()  # noqa: SIM905


class Texts:
    """Random texts.

    Args:
        layouts: folder of `gt_*.txt` whose texts are Chinese columns.
    """

    def __init__(self, layouts: Path) -> None:
        self._words = [
            [word for word in (DICTIONARY_ROOT / name).read_text(encoding="utf-8").split() if len(word) > 1]
            for name in WORD_LISTS.values()
        ]
        columns = [line.text for path in sorted(layouts.glob("gt_*.txt")) for line in read_lines(path)]
        self._han = "".join(c for text in columns for c in text if "\u3400" <= c <= "\u9fff")

    def words(self, rng: np.random.Generator, count: int) -> list[str]:
        """Return `count` words of one language, frequent ones short as in running text."""
        language = self._words[rng.choice(len(self._words), p=[0.4, 0.3, 0.1, 0.1, 0.1])]
        picked = [language[i] for i in rng.integers(len(language), size=2 * count)]
        # Word lists favour long words; of two the shorter one comes closer to running text.
        return [min(pair, key=len) for pair in zip(picked[::2], picked[1::2], strict=True)]

    def prose(self, rng: np.random.Generator, count: int) -> list[str]:
        """Return about `count` words with capitals, punctuation and numbers."""
        out, start = [], True
        for word in self.words(rng, count):
            draw = rng.random()
            text = self.number(rng) if draw < 0.03 else word.removesuffix("'s")
            text = text[:1].upper() + text[1:] if start else text
            start = draw > 0.9
            out.append(text + ("." if start else "," if draw > 0.82 else ""))
        return out

    def phrase(self, rng: np.random.Generator, low: int = 1, high: int = 4) -> str:
        """Return `low` to `high` words, in capitals, title case or as they are."""
        text = " ".join(self.words(rng, int(rng.integers(low, high + 1))))
        return (text.upper(), text.title(), text)[rng.integers(3)]

    def label(self, rng: np.random.Generator) -> str:
        """Return what stands before a field of a form."""
        text = " ".join(rng.choice(FORM_LABELS, rng.integers(1, 4), replace=False))
        return text + (":", "", " #", ".", ":")[rng.integers(5)]

    def number(self, rng: np.random.Generator) -> str:
        """Return a number, a date, a time or an amount."""
        n = rng.integers
        kind = n(7)
        if kind == 0:
            return str(n(10 ** int(n(1, 8))))
        if kind == 1:
            return self.amount(rng)
        if kind == 2:
            return f"{n(1, 29):02}{'/-.'[n(3)]}{n(1, 13):02}{'/-.'[n(3)]}{n(1900, 2030)}"
        if kind == 3:
            return f"{n(24):02}:{n(60):02}" + (f":{n(60):02}" if n(2) else "") + ("", " PM", " AM")[n(3)]
        if kind == 4:
            return f"+{n(1, 99)} {n(100, 999)}-{n(1000, 9999)} {n(10, 99)}"
        if kind == 5:
            return f"{'ABCDEFGHKLMNPRSTX'[n(17)]}{'ABCDEFGHKLMNPRSTX'[n(17)]}-{n(10**6):06}"
        return f"{n(100)}%"

    def token(self, rng: np.random.Generator) -> str:
        """Return the shortest of texts: a mark, a letter, a figure or two, as in check boxes and lists."""
        n = rng.integers
        letter, figure = chr(ord("A") + n(26)), str(n(100))
        return ("X", "x", letter, letter.lower(), figure, figure, f"{figure}.", f"({letter.lower()})", f"({figure})")[
            n(9)
        ]

    def character(self, rng: np.random.Generator, face: Face) -> str:
        """Return a letter or figure that `face` has and that is no mere bar or ring: an initial, a floor, a size."""
        return self.drawable(str(rng.choice(list(CHARACTERS))), face) or "A"

    def amount(self, rng: np.random.Generator) -> str:
        """Return an amount of money."""
        value = float(np.exp(rng.normal(3, 1.5)))
        return ("", "RM ", "$", "EUR ", "", "")[rng.integers(6)] + f"{value:,.2f}"

    def han(self, rng: np.random.Generator, count: int, face: Face, kana: float = 0.0) -> str:
        """Return `count` characters that `face` has: old Chinese, a share `kana` of them Japanese syllables."""
        start = int(rng.integers(max(len(self._han) - 2 * count, 1)))
        syllables = KATAKANA if rng.random() < 0.3 else HIRAGANA
        out: list[str] = []
        for character in self._han[start : start + 2 * count]:
            if len(out) == count:
                break
            while rng.random() < kana and len(out) < count - 1:
                out.append(syllables[rng.integers(len(syllables))])
            if has_glyph(face, character):
                out.append(character)
        return "".join(out) or "一"

    def slogan(self, rng: np.random.Generator, face: Face) -> str:
        """Return Chinese of today's signs in characters that `face` has, at times with figures, Latin, marks."""
        parts = []
        for _ in range(rng.integers(1, 4)):
            draw = rng.random()
            if draw < 0.7:
                parts.append("".join(COMMON_HAN[i] for i in rng.integers(len(COMMON_HAN), size=rng.integers(1, 6))))
            elif draw < 0.9:
                parts.append("".join(self.quantity(rng)))
            else:
                parts.append(self.words(rng, 1)[0].upper())
        joined = rng.choice(["", "", "", " ", "·", "-", "/"]).join(parts)
        return self.drawable(joined + rng.choice(["", "", "", "", "！", "："]), face) or "一"

    def quantity(self, rng: np.random.Generator) -> tuple[str, str]:
        """Return a figure and its unit."""
        return str(rng.integers(10 ** rng.integers(1, 5))), str(rng.choice(UNITS))

    def drawable(self, text: Sequence[str], face: Face) -> str:
        """Return the characters of `text` that `face` has."""
        return "".join(c for c in text if c == " " or has_glyph(face, c))

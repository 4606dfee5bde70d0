"""Tokens as a figure can show them: readable, printable, short, and how wide they are."""

import re
from collections.abc import Iterable
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path

LONGEST = 12  # characters of a token that are drawn
MISSING = "□"  # for what has no glyph
_MARKS = {"\n": "↵", "\r": "↵", "\t": "⇥", "\N{NO-BREAK SPACE}": " "}
_FONT = "DejaVu Sans"  # the style's

# Byte-level BPE names the bytes that print by themselves as Latin-1 and the others from U+0100 on, in their order.
_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = {chr(byte): byte for byte in _PRINTED}
_BYTES |= {chr(0x100 + i): byte for i, byte in enumerate(sorted(set(range(0x100)) - set(_PRINTED)))}


def shown(token: str) -> str:
    """The token as drawn: its text with marks for line ends and tabs, without spaces around it, cut to LONGEST.

    token: as a vocabulary names it (byte-level BPE, SentencePiece) or decoded. To be drawn with parse_math=False: a
    dollar sign is a dollar sign.
    """
    letters = [_MARKS.get(letter, letter) for letter in plain(token)]
    text = "".join(letter if _has_glyph(letter) else MISSING for letter in letters)
    text = re.sub(f"{MISSING}+", MISSING, " ".join(text.split())) or "␣"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def plain(token: str) -> str:
    """The token's own text: markers of the vocabulary undone, the leading space kept."""
    if re.fullmatch(r"<0x[0-9A-F]{2}>", token):  # SentencePiece's single bytes
        return bytes([int(token[3:5], 16)]).decode(errors="replace")
    if not token.isascii() and all(letter in _BYTES for letter in token):
        raw = bytes(_BYTES[letter] for letter in token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            # A part of a letter; or, beside ASCII and with no byte renamed, an accented letter that was decoded before.
            decoded = max(token) <= "\xff" and any(letter.isascii() for letter in token)
            return token if decoded else raw.decode(errors="replace")
    return token.replace("▁", " ")


def width(text: str, size: float, *, bold: bool = False) -> float:
    """Width in inches of the text at a font size in points, the same on every machine."""
    font = FontProperties(family=_FONT, size=size, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def wrapped(words: Iterable[str], *, inches: float, size: float, lines: int, between: str = " · ") -> list[str]:
    """As many of the words as fit, in their order, on at most so many lines of that width."""
    found = [""]
    for word in words:
        longer = found[-1] + between + word if found[-1] else word
        if width(longer, size) <= inches:
            found[-1] = longer
        elif len(found) == lines:
            break
        else:
            found.append(word)
    return found


def _has_glyph(letter: str) -> bool:
    return letter == " " or (
        letter.isprintable() and letter != "\N{REPLACEMENT CHARACTER}" and ord(letter) in _glyphs()
    )


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(_FONT)).get_charmap())

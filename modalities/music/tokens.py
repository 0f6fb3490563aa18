"""The words of ABC notation, by the standard (2.1, sections 4 and 7)."""

import re
from fractions import Fraction

MAX_DIGITS = 9
LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
SHIFTS = {"": 0, "=": 0, "^": 1, "^^": 2, "_": -1, "__": -2, "^/": 1, "_/": -1}
TOKEN = re.compile(
    r"""
    (?P<field>\[[A-Za-z]:[^\]\n]*\])
  | (?P<skip>"[^"\n]*" | ![^!\n]{1,60}! | \+[A-Za-z0-9.(){}<>^]{1,20}\+ | [`$*\\;!] | y\d*/*\d* )
  | (?P<grace>\{[^}\n]*\})
  | (?P<bar>\.?(?: :*\|+\]?:* | \[\|\]? | ::+ )
      (?:\s*\[?\d[\d,.-]*(?=[\s"\[({A-Ga-gxz|^_=~!]))? | \[\d[\d,.-]*)
  | (?P<chord>\[(?P<inner>[^\]\n|]*)\](?P<chord_length>\d*/*\d*))
  | (?P<tuplet>\((?P<p>\d)(?::(?P<q>\d*))?(?::(?P<r>\d*))?)
  | (?P<note>(?P<accidental>\^\^|\^/|\^|__|_/|_|=)?(?P<letter>[A-Ga-g])(?P<octave>[',]*)(?P<length>\d*/*\d*))
  | (?P<rest>[zx](?P<rest_length>\d*/*\d*))
  | (?P<bars_rest>[ZX](?P<count>\d*))
  | (?P<tie>-)
  | (?P<broken>>+|<+)
  | (?P<overlay>&)
  | (?P<mark>[~.H-Wh-w()\s])
  | (?P<unknown>.)
    """,
    re.VERBOSE,
)
MEMBER = re.compile(
    r"""(?P<note>(?P<accidental>\^\^|\^/|\^|__|_/|_|=)?(?P<letter>[A-Ga-g])(?P<octave>[',]*)(?P<length>\d*/*\d*))
    (?P<tie>-)? | "[^"]*" | ![^!]*! | (?P<rest>[zx]\d*/*\d*) | .""",
    re.VERBOSE,
)
GRACE = re.compile(r"[A-Ga-g]")
METRE = re.compile(r"\(?(\d{1,9}(?:\s*\+\s*\d{1,4})*)\)?\s*/\s*(\d{1,9})")
LENGTH = re.compile(r"(\d*)(/*)(\d*)")
UNIT = re.compile(r"(\d{1,9})(?:/(\d{1,9}))?")
PROPAGATION = re.compile(r"propagate-accidentals\s+(not|octave|pitch)")


def length_of(text: str) -> Fraction:
    """3, /, //, 3/2 or /4 as a fraction of a unit."""
    found = LENGTH.match(text)
    above, slashes, below = found.groups() if found else ("", "", "")
    if len(above) > MAX_DIGITS or len(below) > MAX_DIGITS:
        raise ValueError("the number behind a note has too many digits: correct it")
    return Fraction(int(above or 1), max(1, int(below or 2 ** len(slashes))) if slashes else 1)

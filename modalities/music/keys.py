"""Keys of ABC: which letters a key changes, and by how many octaves a clef moves what is written."""

import re
from dataclasses import dataclass, field

SHARPS = "FCGDAEB"  # in the order in which keys take them
CIRCLE = {"C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "F": -1}  # sharps of the major key
MODES = {
    "maj": 0,
    "ion": 0,
    "min": -3,
    "m": -3,
    "aeo": -3,
    "mix": -1,
    "dor": -2,
    "phr": -4,
    "lyd": 1,
    "loc": -5,
}
NAMES = {
    "maj": "major", "ion": "ionian", "min": "minor", "m": "minor", "aeo": "aeolian", "mix": "mixolydian",
    "dor": "dorian", "phr": "phrygian", "lyd": "lydian", "loc": "locrian",
}  # fmt: skip
TONIC = re.compile(r"([A-G])([#b♯♭]?)\s*([A-Za-z]*)")
EXPLICIT = re.compile(r"(\^\^|\^|__|_|=)([A-Ga-g])")
CLEF = re.compile(
    r"(?:clef\s*=\s*)?\"?(?:treble|bass|alto|tenor|soprano|mezzosoprano|baritone|perc|none|[GFC])\d?"
    r"([+-](?:8|15))\b",
    re.IGNORECASE,
)
OCTAVE = re.compile(r"octave\s*=\s*([+-]?\d{1,2})")
TRANSPOSE = re.compile(r"(?:transpose|score|sound|t)\s*=\s*([+-]?\d{1,2})\b")
MARKS = {"^^": 2, "^": 1, "=": 0, "_": -1, "__": -2}


@dataclass(frozen=True)
class Key:
    """By how many semitones a key changes each letter; letters that are not there are natural."""

    changes: dict[str, int] = field(default_factory=dict)

    def change(self, letter: str) -> int:
        """Semitones from the natural note."""
        return self.changes.get(letter, 0)


def key_of(text: str) -> tuple[Key | None, str]:
    """The key that a K: field gives and the name of its mode; None where it gives a clef only."""
    text = text.strip()
    if text[:2] in ("HP", "Hp"):  # the Highland pipes, which play F and C sharp, written or not
        return Key({"F": 1, "C": 1}), ""
    explicit = {letter.upper(): MARKS[mark] for mark, letter in EXPLICIT.findall(text)}
    if text.lower().startswith("none") or not text:
        return Key(explicit), ""
    found = TONIC.match(text)
    if not found or re.match(r"[A-Za-z]+\s*=", text):
        return (Key(explicit) if explicit else None), ""
    tonic, mark, word = found.groups()
    word = word.lower()
    if word.startswith("exp"):
        return Key(explicit), ""
    mode = next((name for name in MODES if word.startswith(name) and (name != "m" or word == "m")), "")
    sharps = CIRCLE[tonic] + {"": 0, "#": 7, "♯": 7, "b": -7, "♭": -7}[mark] + MODES.get(mode or "maj", 0)
    letters = SHARPS[:sharps] if sharps > 0 else SHARPS[sharps:] if sharps < 0 else ""
    changes = dict.fromkeys(letters, 1 if sharps > 0 else -1)
    return Key(changes | explicit), NAMES[mode or "maj"]


def shift_of(text: str) -> int | None:
    """Semitones by which a clef or its properties move what is written; None where they say nothing."""
    found = {"clef": CLEF.search(text), "octave": OCTAVE.search(text), "transpose": TRANSPOSE.search(text)}
    if not any(found.values()):
        return None
    semitones = 0
    if found["clef"]:
        size = found["clef"][1]
        semitones += (24 if size.endswith("15") else 12) * (-1 if size[0] == "-" else 1)
    if found["octave"]:
        semitones += 12 * int(found["octave"][1])
    if found["transpose"]:
        semitones += int(found["transpose"][1])
    return semitones

"""Time-aligned labels beside audio: TextGrid, CTM, Audacity's tracks, .lab files of Festival and HTK, TIMIT.

Each becomes intervals (start, end, label) in seconds. See docs/speech.md.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from modalities.reading.dialects import encoding_of

SUFFIXES = (".textgrid", ".lab", ".phn", ".wrd", ".txt", ".ctm")
TIERS = ("phones", "phone", "phonemes", "segments", "words", "word")  # the first that there is
SLACK_S = 0.1  # by how much an alignment may be longer than its audio
HTK_UNITS = 1e7  # in a second
TIMIT_SUFFIXES = (".phn", ".wrd")
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
LINE = re.compile(rf"^\s*({NUMBER})[\t ]+({NUMBER})[\t ]+(\S.*?)\s*$")
XWAVES = re.compile(rf"^\s*({NUMBER})\s+\S+\s+(\S.*?)\s*$")
TEXTGRID_WORD = re.compile(r'"((?:[^"]|"")*)"|<(exists|absent)>|(' + NUMBER + ")")


class Interval(NamedTuple):
    """A labelled interval of a recording, in seconds."""

    start: float
    end: float
    label: str


class Alignments:
    """The alignment files of a source, found by the name of the audio file.

    A file beside the audio goes first, then the only one of that name in the whole source (`wav/x.wav` and
    `lab/x.lab`). Tables of many recordings (.ctm) name them inside.
    """

    def __init__(self, files: Iterable[Path], tier: str | None = None) -> None:
        self.tier = tier
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._tables: list[Path] = []
        for path in files:
            suffix = path.suffix.lower()
            if suffix == ".ctm":
                self._tables.append(path)
            elif suffix in SUFFIXES and (suffix != ".txt" or is_track(path)):
                self._by_stem[path.stem.lower()].append(path)
        for found in self._by_stem.values():
            found.sort(key=lambda path: (SUFFIXES.index(path.suffix.lower()), path))
        self._rows: dict[str, list[Interval]] = {}
        for table in self._tables:
            for name, interval in read_ctm(table):
                self._rows.setdefault(name, []).append(interval)

    def __bool__(self) -> bool:
        return bool(self._by_stem or self._rows)

    def of(self, audio: Path) -> "Path | list[Interval] | None":
        """What says the intervals of a recording: a file, or they themselves ([] where nothing does).

        None where the source has no alignments at all.
        """
        if not self:
            return None
        found = self._by_stem.get(audio.stem.lower(), [])
        beside = [path for path in found if path.parent == audio.parent]
        chosen = beside or (found if len({path.parent for path in found}) == 1 else [])
        return chosen[0] if chosen else sorted(self._rows.get(audio.stem, []))


def read(path: Path, tier: str | None = None, rate_hz: int | None = None) -> list[Interval]:
    """The intervals of one file, in order; ValueError where it is none of the formats."""
    data = path.read_bytes()
    text = data.decode(encoding_of(data[: 2**16]), "replace").removeprefix("\ufeff")
    suffix = path.suffix.lower()
    if suffix == ".textgrid":
        found = read_textgrid(text, tier)
    elif suffix in TIMIT_SUFFIXES:
        found = [Interval(s.start / (rate_hz or 16_000), s.end / (rate_hz or 16_000), s.label)
                 for s in intervals(text)]  # fmt: skip
    else:
        found = read_lab(text)
    checked = [interval for interval in found if interval.end > interval.start and interval.label]
    if not checked:
        raise ValueError(f"{path.name} holds no labelled interval")
    return sorted(checked)


def is_track(path: Path) -> bool:
    """Whether a .txt file is a label track of Audacity: `start<tab>end<tab>label` in every line."""
    with path.open("rb") as file:
        head = file.read(2**12)
    lines = head.decode("utf-8", "replace").splitlines()[:20]
    filled = [line for line in lines if line.strip() and not line.startswith("\\")]
    return bool(filled) and all(line.count("\t") >= 2 and LINE.match(line) for line in filled[:-1] or filled)


def intervals(text: str) -> list[Interval]:
    """Lines of `start end label`; others are passed over: Audacity has lines of frequencies."""
    found = (LINE.match(line) for line in text.splitlines())
    return [Interval(float(m[1]), float(m[2]), m[3]) for m in found if m]


def read_lab(text: str) -> list[Interval]:
    """A .lab file: of Festival and xwaves (after a line `#`: end, color, label), of HTK, or in seconds.

    HTK counts in units of 100 ns, as whole numbers, often without an end for the last label.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if any(line.strip() == "#" for line in lines):
        start, found = 0.0, []
        for line in lines[[line.strip() for line in lines].index("#") + 1 :]:
            match = XWAVES.match(line)
            if match is None:
                raise ValueError(f"a line is not `end color label`: {line[:40]!r}")
            found.append(Interval(start, float(match[1]), match[2]))
            start = float(match[1])
        return found
    found = intervals(text)
    whole = all(re.fullmatch(r"\d+", part) for line in lines for part in line.split()[:2])
    if whole and found and max(interval.end for interval in found) >= 1e5:
        return [Interval(s.start / HTK_UNITS, s.end / HTK_UNITS, s.label.split()[0]) for s in found]
    return found


def read_ctm(path: Path) -> Iterator[tuple[str, Interval]]:
    """The lines of a CTM file: recording, channel, start, duration, label, and perhaps a confidence."""
    data = path.read_bytes()
    for line in data.decode(encoding_of(data[: 2**16]), "replace").splitlines():
        parts = line.split()
        if len(parts) < 5 or line.startswith(";;"):
            continue
        try:
            start, duration = float(parts[2]), float(parts[3])
        except ValueError:
            continue
        yield parts[0], Interval(start, start + duration, parts[4])


def read_textgrid(text: str, tier: str | None) -> list[Interval]:
    """An interval tier of a TextGrid of Praat, in its long or its short form; ValueError where there is none.

    `tier` None takes the first of `TIERS` that there is, else the first interval tier. Empty labels are left
    out.
    """
    words = [_value(match) for match in TEXTGRID_WORD.finditer(_without_names(text))]
    tiers = dict(_tiers(words))
    if not tiers:
        raise ValueError("the TextGrid has no interval tier")
    if tier is not None:
        if tier not in tiers:
            raise ValueError(f"there is no tier {tier!r}; it has {', '.join(tiers)}")
        return tiers[tier]
    low = {name.lower().rpartition(" - ")[2]: name for name in tiers}
    chosen = next((low[name] for name in TIERS if name in low), next(iter(tiers)))
    return tiers[chosen]


def _without_names(text: str) -> str:
    """A long TextGrid without the words before its values: `xmin = 0` is `0`, and `item [1]:` nothing."""
    kept = []
    for line in text.splitlines():
        bare = line.strip()
        if re.match(r"(item|intervals|points) ?\[\d*\]:?", bare):
            continue
        name, equals, value = bare.partition("=")
        kept.append(value if equals and '"' not in name else bare)
    return "\n".join(kept)


def _value(match: re.Match[str]) -> str | float:
    if match[1] is not None:
        return match[1].replace('""', '"')
    return match[2] if match[2] else float(match[3])


def _tiers(words: Sequence[str | float]) -> Iterator[tuple[str, list[Interval]]]:
    """The interval tiers, from the values alone: class, name, begin, end, number, then three for each."""
    place = 0
    while place < len(words):
        kind = words[place]
        if kind not in ("IntervalTier", "TextTier"):
            place += 1
            continue
        name, number = str(words[place + 1]), int(float(words[place + 4]))
        place += 5
        if kind == "TextTier":
            place += 2 * number
            continue
        found = []
        for _ in range(number):
            start, end, label = words[place : place + 3]
            if str(label).strip():
                found.append(Interval(float(start), float(end), str(label).strip()))
            place += 3
        yield name, found


def within(found: Sequence[Interval], start_s: float, length: int, rate_hz: int) -> str:
    """Intervals as they are stored with a row of `length` steps that begins at `start_s`: JSON in steps.

    ValueError where they go on after the end of the recording by more than `SLACK_S`.
    """
    seconds = length / rate_hz
    steps = []
    for interval in found:
        first, last = round((interval.start - start_s) * rate_hz), round((interval.end - start_s) * rate_hz)
        if min(last, length) > max(first, 0):
            steps.append([max(first, 0), min(last, length), interval.label])
    late = max((interval.end for interval in found), default=0.0)
    if start_s == 0 and late > seconds + SLACK_S:
        raise ValueError(f"its alignment goes to {late:.2f} s, the recording is {seconds:.2f} s long")
    return json.dumps(steps, ensure_ascii=False)

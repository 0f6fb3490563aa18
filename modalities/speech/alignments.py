"""Time-aligned labels beside audio: TextGrid, CTM, Audacity's tracks, .lab files of Festival and HTK, TIMIT.

Each becomes intervals (start, end, label) in seconds. See docs/speech.md.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from modalities.speech.texts import lines_of, text_of

SUFFIXES = (".textgrid", ".lab", ".phn", ".wrd", ".txt", ".ctm")
TIERS = ("phones", "phone", "phonemes", "segments", "words", "word")  # the first that there is
SLACK_S = 0.1  # by how much an alignment may be longer than its audio
HTK_UNITS = 1e7  # in a second
HTK_LEAST = 1e5  # 10 ms: whole numbers that all stay below are no times of HTK
HEAD_BYTES = 2**12  # of which a text is judged
TIMIT_SUFFIXES = (".phn", ".wrd")
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
LINE = re.compile(rf"^\s*({NUMBER})(?:[\t ]+({NUMBER}))?(?:[\t ]+(\S.*?))?\s*$")  # start, end, label
TRACK = re.compile(rf"^\s*{NUMBER}\t\s*{NUMBER}\s*(\t.*)?$")
XWAVES = re.compile(rf"^\s*({NUMBER})\s+\S+\s+(\S.*?)\s*$")
TEXTGRID_WORD = re.compile(r'"((?:[^"]|"")*)"|<(exists|absent)>|(' + NUMBER + ")")


class Interval(NamedTuple):
    """A labelled interval of a recording, in seconds; an infinite end is that of the recording."""

    start: float
    end: float
    label: str


Intervals = list[Interval]


def read(path: Path, tier: str | None = None, rate_hz: int | None = None) -> Intervals:
    """The intervals of one file, in order; ValueError where it is none of the formats."""
    text, suffix = text_of(path), path.suffix.lower()
    try:
        if suffix == ".textgrid":
            found = read_textgrid(text, tier)
        elif suffix in TIMIT_SUFFIXES:
            rate = rate_hz or 16_000
            found = [Interval(s.start / rate, s.end / rate, s.label) for s in intervals(text)]
        else:
            found = read_lab(text)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    checked = [interval for interval in found if interval.end > interval.start and interval.label]
    if not checked:
        raise ValueError(f"{path.name} holds no labelled interval")
    return sorted(checked)


def is_alignment(path: Path) -> bool:
    """Whether a file says when things were said: by its suffix, a .txt or a .lab by its lines.

    A .txt is a label track of Audacity where every line is `start<tab>end<tab>label`, and a label may be
    empty. A .lab is an alignment where any line has times and a label, or is the `#` of xwaves, or where each
    of several lines begins with a time. Any other is a transcript, `1 2 3 4 5` in a single line, too.
    """
    suffix = path.suffix.lower()
    if suffix not in (".txt", ".lab"):
        return suffix in SUFFIXES
    head = text_of(path, HEAD_BYTES)
    lines = _timed_lines(head if path.stat().st_size <= HEAD_BYTES else head.rpartition("\n")[0])
    if suffix == ".txt":
        return all(map(TRACK.match, lines)) and any(line.count("\t") > 1 for line in lines)
    if any(line.strip() == "#" for line in lines):
        return True
    parts = [match for match in map(LINE.match, lines) if match]
    if len(lines) == 1:
        times = [number for match in parts for number in match.group(1, 2) if number]
        spoken = all(number.isdigit() and int(number) < HTK_LEAST for number in times)
        return not spoken and all(match[2] and match[3] for match in parts)
    return any(match[2] and match[3] for match in parts) or len(parts) == len(lines) > 0


def intervals(text: str) -> Intervals:
    """Lines of `start end label`; ValueError where one is nothing of the kind.

    Without an end, as HTK allows, an interval goes on to the start of the next, the last one to the end of
    the recording. A missing label is "".
    """
    parts = []
    for line in _timed_lines(text):
        match = LINE.match(line)
        if match is None or not (match[2] or match[3]):
            raise ValueError(f"a line is not `start end label`: {line[:40]!r}")
        parts.append(match)
    following = [*(float(match[1]) for match in parts[1:]), math.inf]
    return [
        Interval(float(match[1]), float(match[2]) if match[2] else after, match[3] or "")
        for match, after in zip(parts, following, strict=False)
    ]


def read_lab(text: str) -> Intervals:
    """A .lab file: of Festival and xwaves (after a line `#`: end, color, label), of HTK, or in seconds.

    HTK counts in units of 100 ns, as whole numbers.
    """
    lines = lines_of(text)
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
    times = [time for interval in found for time in interval[:2] if math.isfinite(time)]
    if max(times, default=0.0) >= HTK_LEAST and all(time.is_integer() for time in times):
        return [
            Interval(s.start / HTK_UNITS, s.end / HTK_UNITS, " ".join(s.label.split()[:1])) for s in found
        ]
    return found


def read_ctm(path: Path) -> dict[str, Intervals]:
    """What a CTM file says of each recording: lines of recording, channel, start, duration, label."""
    found: dict[str, Intervals] = defaultdict(list)
    for line in lines_of(text_of(path)):
        parts = line.split()
        if len(parts) < 5 or line.startswith(";;"):
            continue
        try:
            start, duration = float(parts[2]), float(parts[3])
        except ValueError:
            continue
        found[parts[0]].append(Interval(start, start + duration, parts[4]))
    return {name: sorted(rows) for name, rows in found.items()}


def read_textgrid(text: str, tier: str | None) -> Intervals:
    """An interval tier of a TextGrid of Praat, in its long or its short form; ValueError where there is none.

    `tier` None takes the first of `TIERS` that there is, else the first interval tier. Tiers of several
    speakers, `anna - phones` and `ben - phones`, are one, in the order of time. Empty labels are left out.
    """
    tiers: dict[str, Intervals] = defaultdict(list)
    for name, found in _tiers([_value(match) for match in TEXTGRID_WORD.finditer(_without_names(text))]):
        tiers[name] += found
    if not tiers:
        raise ValueError("the TextGrid has no interval tier")
    kinds = {name: name.lower().rpartition(" - ")[2] for name in tiers}
    usual = next((name for name in TIERS if name in kinds.values()), next(iter(kinds.values())))
    wanted = usual if tier is None else tier.lower()
    chosen = [tier] if tier in tiers else [name for name, kind in kinds.items() if kind == wanted]
    if not chosen:
        raise ValueError(f"there is no tier {tier!r}; it has {', '.join(tiers)}")
    return sorted(chain.from_iterable(tiers[name] for name in chosen))


def _timed_lines(text: str) -> list[str]:
    """All lines but those of frequencies, which Audacity begins with a backslash."""
    return [line for line in lines_of(text) if not line.startswith("\\")]


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


def _tiers(words: Sequence[str | float]) -> Iterator[tuple[str, Intervals]]:
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


def within(
    found: Sequence[Interval], start_s: float, length: int, total: int, rate_hz: int
) -> list[tuple[int, int, str]]:
    """The intervals within a row of `length` steps that begins at `start_s`, counted in its steps.

    ValueError where they go on after the end of the recording, of `total` steps, by more than `SLACK_S`.
    """
    seconds = total / rate_hz
    late = max((s.end if math.isfinite(s.end) else s.start for s in found), default=0.0)
    if late > seconds + SLACK_S:
        raise ValueError(f"its alignment goes to {late:.2f} s, the recording is {seconds:.2f} s long")
    steps = []
    for interval in found:
        first, last = (round((min(time, seconds) - start_s) * rate_hz) for time in interval[:2])
        if min(last, length) > max(first, 0):
            steps.append((max(first, 0), min(last, length), interval.label))
    return steps

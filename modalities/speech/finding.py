"""Which alignment is of which recording, by their names and places in a source."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from modalities.speech.alignments import SUFFIXES, Intervals, is_alignment, read_ctm
from modalities.speech.audio import AUDIO_SUFFIXES

Place = tuple[str, ...]  # folders below the source, then a name in small letters without its suffix
Shared = dict[tuple[Place, Place], set[Place]]  # places by the ends and beginnings that they have


class Found(NamedTuple):
    """What says when things were said in one recording."""

    place: Place
    rank: int  # of its format; the first counts
    file: Path
    rows: Intervals | None = None  # None: the file has to be read


class Alignments:
    """The alignments of a source, found by the names and places of the audio files.

    Of the recordings with its name, an alignment is of that whose path is most like its own: beside it, else
    the one with the most last folders in common (`wav/s1/x.wav`, `lab/s1/x.lab`), else the most first ones
    (`s1/wav/x.wav`, `s1/lab/x.lab`), else any. A recording likewise has the alignment that is most like it,
    and none that is another's. Tables of many recordings (.ctm) count as a file for each, beside the table.
    """

    def __init__(self, root: Path = Path(), files: Iterable[Path] = ()) -> None:
        self._root = root
        self._sounds: dict[str, set[Place]] = defaultdict(set)  # by name, as all that follows
        self._found: dict[str, list[Found]] = defaultdict(list)
        self._settled: dict[str, dict[Place, Found | str]] = {}
        for path in files:
            suffix, place = path.suffix.lower(), self._place(path)
            if suffix in AUDIO_SUFFIXES:
                self._sounds[place[-1]].add(place)
            elif suffix == ".ctm":
                for name, rows in read_ctm(path).items():
                    self._add(Found((*place[:-1], name.lower()), SUFFIXES.index(suffix), path, rows))
            elif is_alignment(path):
                self._add(Found(place, SUFFIXES.index(suffix), path))

    def __bool__(self) -> bool:
        return bool(self._found)

    def of(self, audio: Path) -> "Path | Intervals | None":
        """What says the intervals of a recording: a file, or they themselves ([] where nothing does).

        None where the source has no alignments at all. ValueError, naming them, where several could be it, or
        where it could be of several recordings.
        """
        if not self:
            return None
        place = self._place(audio)
        name = place[-1]
        if place not in self._sounds[name]:  # a table may name files elsewhere
            self._sounds[name].add(place)
            self._settled.pop(name, None)
        if name not in self._settled:
            self._settled[name] = self._settle(name)
        found = self._settled[name].get(place)
        if isinstance(found, str):
            raise ValueError(found)
        if found is None:
            return []
        return found.file if found.rows is None else found.rows

    def _add(self, found: Found) -> None:
        self._found[found.place[-1]].append(found)

    def _place(self, path: Path) -> Place:
        inside = PurePath(os.path.relpath(path, self._root))
        return (*inside.parts[:-1], inside.stem.lower())

    def _settle(self, name: str) -> dict[Place, Found | str]:
        """The alignment of each recording of a name that has one, or why nothing tells which it is."""
        found: dict[Place, list[Found]] = defaultdict(list)
        for each in self._found.get(name, ()):
            found[each.place].append(each)
        sounds, places = _by_shares(self._sounds[name]), _by_shares(found)
        owners = {place: _nearest(place, sounds) for place in found}
        settled: dict[Place, Found | str] = {}
        for sound in self._sounds[name]:
            near = [
                each for place in _nearest(sound, places) if sound in owners[place] for each in found[place]
            ]
            first_rank = min((each.rank for each in near), default=0)
            best = sorted(each for each in near if each.rank == first_rank)
            if len(best) > 1:
                first, second = (os.path.relpath(each.file, self._root) for each in best[:2])
                settled[sound] = (
                    f"{first} and {second} could both be its alignment: keep one of them, "
                    "or set modality.alignments=false"
                )
            elif best and len(owners[best[0].place]) > 1:
                first, second = ("/".join(owner) for owner in sorted(owners[best[0].place])[:2])
                settled[sound] = (
                    f"{os.path.relpath(best[0].file, self._root)} could be the alignment of {first} or of "
                    f"{second}: put it beside its recording, or set modality.alignments=false"
                )
            elif best:
                settled[sound] = best[0]
        return settled


def _shares(place: Place) -> Iterator[tuple[Place, Place]]:
    """Ends and beginnings of a place, longest first: the sooner another has one, the more alike they are."""
    for first in range(len(place)):
        for begin in range(first, -1, -1):
            yield place[first:], place[:begin]


def _by_shares(places: Iterable[Place]) -> Shared:
    found: Shared = defaultdict(set)
    for place in places:
        for share in _shares(place):
            found[share].add(place)
    return found


def _nearest(place: Place, others: Shared) -> set[Place]:
    """Those places of the same name that are most like a place: several where they are alike, or none."""
    return next((others[share] for share in _shares(place) if share in others), set())

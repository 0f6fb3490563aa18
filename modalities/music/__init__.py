"""Written music: MIDI, MusicXML, kern and ABC as piano rolls or as compound note tokens."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from modalities.music.catalogues import Known, known_of
from modalities.music.folders import Folders, composer_of, top_folder
from modalities.music.labels import KINDS as KINDS_OF_SEGMENTS
from modalities.music.labels import segments_of
from modalities.music.notation import read_text, tunes
from modalities.music.pieces import Piece
from modalities.music.scores import KINDS, read_piece
from modalities.music.views import (
    NUM_FIELDS,
    VOCAB_SIZE,
    RollEncoder,
    channel_names,
    note_tokens,
    piano_roll,
)
from modalities.music.windows import PITCH, Grid, Window
from modalities.reading.groups import Grouping, check_pattern, split_of
from modalities.reading.looking import counted, matching, problem_of
from modalities.reading.notices import noted
from seqssl import Record, Rejected, Rows, Sample, SampleSpec, Suggestion, TokenEncoder, UserError, list_files

# The work that a kern file is a part of; one with a catalogue number is a work by itself, of a collection.
KERN_WORK = re.compile(r"^!!!OPR[^:\n]*:(.*)$", re.MULTILINE)
KERN_CATALOGUE = re.compile(r"^!!!SC[AT]", re.MULTILINE)
MAX_COUNTED = 127  # of a histogram of times; longer ones count as this
MAX_INTERVAL, MAX_BETWEEN = 7, 12  # of a pair of steps: semitones, and positions between onsets
MAX_SHIFT = (-5, 6)  # semitones
MAX_POSITIONS = 96  # in a quarter: 1/384 notes, beyond what is written
MAX_WINDOW_QUARTERS = 4096  # an hour of music


class Music:
    """Windows of pieces, cut at bar lines, on a grid of so many positions a quarter.

    `view` roll: (t, 2 p) onsets and held notes of the pitches `lowest` to `highest` (MIDI numbers); notes:
    (n, 5) ids. `pieces_per_folder` takes so many of each top folder, evenly spread over its sorted files, and
    as many of each split that a folder names.
    """

    endings = tuple(KINDS)

    def __init__(
        self,
        *,
        view: Literal["roll", "notes"] = "roll",
        label: Literal["composer", "metre", "mode"] = "composer",
        positions_per_quarter: int = 12,
        window_quarters: int = 64,
        min_notes: int = 8,
        lowest: int = 21,
        highest: int = 108,
        pieces_per_folder: int | None = None,
        frames_per_quarter: int = 1,
        transpose: bool = True,
        segments: Literal["none", "root", "key", "voice"] = "none",
        group_pattern: str | None = None,
    ) -> None:
        check_pattern(group_pattern, "modality.group_pattern")
        self.view, self.label = view, label
        self.positions_per_quarter, self.window_quarters = positions_per_quarter, window_quarters
        self.min_notes, self.lowest, self.highest = min_notes, lowest, highest
        self.pieces_per_folder = pieces_per_folder
        if group_pattern is not None:  # older prepared folders know no such setting
            self.group_pattern = group_pattern
        self._frames_per_quarter = frames_per_quarter  # private: these do not change what is stored
        self._transpose, self._segments = transpose, segments
        self._check()
        if view == "roll":
            names = channel_names(lowest, highest)
            self.spec = SampleSpec(
                dtype="float32",
                units=f"1 = begins (onset) or sounds (hold), steps of 1/{positions_per_quarter} quarter",
                channels=len(names),
                max_len=window_quarters * positions_per_quarter,
                channel_names=names,
            )
        else:
            self.spec = SampleSpec(
                dtype="int64",
                units=f"1 + value of a field, 0 unknown; times in 1/{positions_per_quarter} quarter",
                channels=NUM_FIELDS,
                vocab_size=VOCAB_SIZE,
                channel_names=("pitch", "duration", "shift", "position", "part"),
            )

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """Score files of a folder, or one; each tune of an ABC file is a record. Folders may name splits."""
        if source.is_file() and source.suffix.lower() not in KINDS:
            raise UserError(f"{source} is no score file: its name must end in one of {', '.join(KINDS)}.")
        root = source.parent if source.is_file() else source
        files = {PurePosixPath(path.relative_to(root).as_posix()): path for path in list_files(source)}
        scores = {name: path for name, path in files.items() if path.suffix.lower() in KINDS}
        places, (known, said) = Folders.of(scores), known_of(files, scores)
        doubt = "" if getattr(self, "group_pattern", None) else places.doubt
        folders: dict[tuple[str, str], list[Record]] = {}
        for name, path in scores.items():
            told = known.get(name, Known())
            given, folder = told.split or split_of(str(name)), top_folder(name)
            try:
                group = self._given_group(str(name))
            except ValueError as error:
                if split == "all":
                    yield Rejected.of(str(name), error)
                continue
            for piece in self._pieces_in(path, name, places, told):
                piece = replace(piece, split=given, group=group or piece.group)
                folders.setdefault((given, folder), []).append(piece)
        for pieces in folders.values():
            size = min(len(pieces), self.pieces_per_folder or len(pieces))
            chosen = [pieces[number * len(pieces) // size] for number in range(size)]
            of_many = f"modality.pieces_per_folder: {size:,} of {len(pieces):,} pieces of a folder are taken"
            sentences = [said, doubt, of_many if size < len(pieces) else ""]
            for record in chosen:
                if split in ("all", record.split):
                    yield noted(record, *sentences)

    @classmethod
    def suggest(cls, source: Path) -> Suggestion | None:
        """Folders with scores."""
        found = matching(source, lambda path: path.suffix.lower() in KINDS)
        if not found:
            return None
        problem = problem_of(cls().records(source, "all"))
        return Suggestion(counted("written music", found), problem=problem)

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        """A window as the chosen view; `rng` transposes it by -5 to 6 semitones, if its notes allow."""
        notes = row["notes"]
        if rng is not None and self._transpose:
            down = max(MAX_SHIFT[0], self.lowest - int(notes[:, PITCH].min()))
            up = min(MAX_SHIFT[1], self.highest - int(notes[:, PITCH].max()))
            notes = notes.copy()
            notes[:, PITCH] += rng.integers(down, up + 1)
        described: dict[str, Any] = {"label": row["label"], "group": row["group"]}
        if self._segments != "none":
            described["segments"] = segments_of(
                notes, row["length"], self._segments, self.positions_per_quarter,
                per_note=self.view == "notes",
            )  # fmt: skip
        if self.view == "notes":
            return Sample(note_tokens(notes), **described)
        values, observed = piano_roll(notes, row["length"], lowest=self.lowest, highest=self.highest)
        return Sample(values, observed=observed, **described)

    def descriptors(self, sample: Sample) -> dict[str, Float[np.ndarray, "d"]]:
        """Histograms of pitch classes, pitches, times between onsets, places in the bar; steps of the melody.

        The melody is the highest note that begins at each onset; two steps after each other are counted.
        """
        if self.view == "notes":
            ids = sample.values
            counts = [np.bincount(column.clip(0, MAX_COUNTED), minlength=MAX_COUNTED + 1) for column in ids.T]
            return {"notes": np.concatenate([each / max(1, len(ids)) for each in counts])}
        onset, hold = np.split(sample.values, 2, axis=1)
        pitches = hold.sum(0)
        classes = np.bincount(np.arange(self.lowest, self.highest + 1) % 12, pitches, 12)
        steps = np.flatnonzero(onset.any(1))
        between = np.bincount(np.diff(steps).clip(0, MAX_COUNTED), minlength=MAX_COUNTED + 1)
        place = np.bincount(
            steps % (4 * self.positions_per_quarter), minlength=4 * self.positions_per_quarter
        )
        parts = {"pitch": [classes, pitches], "rhythm": [between, place]}
        parts["pitch and rhythm"] = [*parts["pitch"], *parts["rhythm"]]
        top = onset.shape[1] - 1 - onset[steps][:, ::-1].argmax(axis=1)
        parts["melody"] = [
            _pair_counts(np.diff(top).clip(-MAX_INTERVAL, MAX_INTERVAL) + MAX_INTERVAL, 2 * MAX_INTERVAL + 1),
            _pair_counts(np.diff(steps).clip(0, MAX_BETWEEN), MAX_BETWEEN + 1),
        ]
        return {
            name: np.concatenate([each / max(1.0, float(each.sum())) for each in histograms])
            for name, histograms in parts.items()
        }

    def picture(self, sample: Sample) -> Float[np.ndarray, "t bins"]:
        """A roll as people know it: notes, and brighter where one begins; fields of notes as they are."""
        if self.view == "notes":
            return sample.values.astype(np.float32)
        onset, hold = np.split(sample.values, 2, axis=1)
        return 0.6 * hold + 0.4 * onset

    def feature_encoder(self, dim: int) -> RollEncoder | TokenEncoder:
        """Roll: `frames_per_quarter` patches, so that masks fall on beats. Notes: a frame for each."""
        if self.view == "notes":
            return TokenEncoder(VOCAB_SIZE, NUM_FIELDS, dim=dim)
        patch = self.positions_per_quarter // self._frames_per_quarter
        return RollEncoder(self.spec.channels or 1, dim=dim, patch=patch)

    def _check(self) -> None:
        if self._segments not in KINDS_OF_SEGMENTS or (self._segments == "voice" and self.view != "notes"):
            raise UserError(
                f"modality.segments={self._segments}: expected none, root or key, or voice for view=notes."
            )
        positions, frames = self.positions_per_quarter, self._frames_per_quarter
        if not 0 <= self.lowest <= self.highest <= 127:
            raise UserError(
                f"lowest={self.lowest} and highest={self.highest} must be MIDI pitches, in order."
            )
        limits = {"positions_per_quarter": MAX_POSITIONS, "frames_per_quarter": MAX_POSITIONS}
        for name, most in {**limits, "window_quarters": MAX_WINDOW_QUARTERS}.items():
            value = frames if name == "frames_per_quarter" else getattr(self, name)
            if not 1 <= value <= most:
                raise UserError(f"modality.{name}={value} must lie in [1, {most}]")
        if positions % frames:
            raise UserError(
                f"positions_per_quarter={positions} must be a multiple of frames_per_quarter={frames}: "
                "a frame is a whole number of positions."
            )
        pieces = 1 if self.pieces_per_folder is None else self.pieces_per_folder
        if min(self.min_notes, pieces) < 1:
            raise UserError("min_notes and pieces_per_folder must be at least 1.")

    def _given_group(self, name: str) -> str:
        """What `group_pattern` finds in a path, "" without it. ValueError where it finds nothing."""
        pattern = getattr(self, "group_pattern", None)
        return Grouping.of((), pattern).group(name) if pattern else ""

    def _pieces_in(self, path: Path, name: PurePosixPath, places: Folders, told: Known) -> Iterator[Record]:
        kind, found = KINDS[path.suffix.lower()], [""]
        label = (told.composer or places.composer(name)) if self.label == "composer" else ""
        group = told.piece or places.piece(name)
        if kind in ("ABC", "kern"):
            text = read_text(path)
            found = tunes(text) if kind == "ABC" else found
            work = KERN_WORK.search(text) if kind == "kern" and not told.piece else None
            if work and work[1].strip() and not KERN_CATALOGUE.search(text):
                group = f"{top_folder(name)}/{work[1].strip()}"
        for number, tune in enumerate(found, start=1):
            alone = len(found) == 1
            read = partial(self._read, path, tune, label, told=bool(told.composer))
            key = str(name) if alone else f"{name}/{number}"
            amount = float(path.stat().st_size if alone else len(tune))
            yield Record(key, read, group=group if alone else key, label=label, amount=amount)

    def _read(self, path: Path, tune: str, label: str, *, told: bool) -> Rows:
        """The windows of a piece; `told`: the label is known, whatever the file states."""
        piece = read_piece(path, tune)
        label = label if told else composer_of(piece.composer, label)
        grid = Grid.of(piece, positions=self.positions_per_quarter, lowest=self.lowest, highest=self.highest)
        windows = list(grid.windows(self.window_quarters * self.positions_per_quarter))
        kept = [window for window in windows if window.num_onsets >= self.min_notes]
        if not kept:
            raise ValueError(f"no window with {self.min_notes} notes from {self.lowest} to {self.highest}")
        quality = {
            "notes": len(grid.notes),
            "quarters": round(float(windows[-1].stop - windows[0].start) / self.positions_per_quarter, 3),
            "metres": list(dict.fromkeys(metre for metre in grid.metres if metre)),
            "windows": len(windows),
            "windows_with_few_notes": len(windows) - len(kept),
            "left_out": piece.left_out,
            "changed": grid.changed,
            "complaints": [*piece.complaints[:3]],
            "num_complaints": len(piece.complaints),
        }
        return Rows([self._row(window, piece, label) for window in kept], quality)

    def _row(self, window: Window, piece: Piece, label: str) -> dict[str, Any]:
        own = {"composer": label, "metre": window.metre, "mode": piece.mode}
        length = window.stop - window.start if self.view == "roll" else window.num_onsets
        return {
            "part": f"{window.start / self.positions_per_quarter:g}",
            "label": own[self.label],
            "length": length,
            "notes": window.notes.astype(np.int32),
        }


def _pair_counts(values: Int[np.ndarray, "t"], size: int) -> Int[np.ndarray, "v"]:
    """How often each value below `size` follows each other one."""
    pairs: Int[np.ndarray, "v"] = np.bincount(values[:-1] * size + values[1:], minlength=size * size)
    return pairs

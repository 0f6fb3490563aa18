"""Weather, and sensor series in general: tables, typical years, grids and archives at regular steps."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial, reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np

from modalities.reading.dialects import TableSettings
from modalities.reading.groups import check_pattern
from modalities.reading.looking import problem_of
from modalities.reading.notices import noted
from modalities.reading.tables import TEXT_SUFFIXES
from modalities.reading.times import TimeSettings, check_timezone, has_date
from modalities.weather.clock import CALENDAR, SEASONS, Cut, calendar, freq_of, season, stamp, step_seconds
from modalities.weather.discovery import SUFFIXES, find
from modalities.weather.guessing import looks_like
from modalities.weather.series import (
    Found,
    Grid,
    Series,
    disorder,
    pieces,
    segments,
    to_grid,
    without_constants,
)
from modalities.weather.tables import Layout
from modalities.weather.variables import NOTICED, Cleaning, clean, numbers_of, units_of
from seqssl import PatchEncoder, Record, Rejected, Rows, Sample, SampleSpec, Suggestion, add_noise

LONE = "80%"  # where the held-out part of a source's only series begins
HELD_OUT = "valid"


class Weather:
    """Series of measurements at one rate, in the source's units, with what was observed and when.

    A row is a stretch of one series without a long gap. `docs/weather.md` explains the settings.
    """

    endings = (*SUFFIXES, *TEXT_SUFFIXES)
    own_labels = SEASONS

    def __init__(
        self,
        *,
        columns: tuple[str, ...] = (
            "temp_air",
            "temp_dew",
            "relative_humidity",
            "pressure",
            "wind_speed",
            "ghi",
            "total_sky_cover",
        ),
        freq: str = "1h",
        time_column: str | None = "",
        time_format: str = "",
        timezone: str = "UTC",
        id_column: str = "",
        variable_column: str = "",
        value_column: str = "value",
        group_pattern: str | None = None,
        skip_lines: int | None = None,
        csv_columns: tuple[str, ...] | None = None,
        separator: str | None = None,
        decimal: Literal[".", ","] | None = None,
        missing_values: tuple[str, ...] = ("-9999", "9999"),
        detect_missing: bool = True,
        units: dict[str, str] | None = None,
        limits: bool = True,
        max_gap_steps: int = 24,
        segment_steps: int = 1024,
        min_steps: int = 24,
        min_observed: float = 0.5,
        valid_from: str = "",
        channel_mode: Literal["mix", "independent"] = "mix",
        calendar: bool = False,
        patch: int = 8,
        shift_steps: int = 0,
    ) -> None:
        self.columns, self.freq = tuple(columns), freq
        self.time_column, self.time_format, self.timezone = time_column, time_format, timezone
        self.id_column, self.variable_column, self.value_column = id_column, variable_column, value_column
        self.group_pattern, self.table = group_pattern, (skip_lines, csv_columns, separator, decimal)
        self.missing_values, self.limits, self.detect_missing = tuple(missing_values), limits, detect_missing
        self.units = tuple(sorted(f"{name}={unit}" for name, unit in (units or {}).items()))
        self.max_gap_steps, self.segment_steps = max_gap_steps, segment_steps
        self.min_steps, self.min_observed = min_steps, min_observed
        self.valid_from, self.channel_mode = valid_from, channel_mode
        self._calendar, self._patch, self._shift_steps = calendar, patch, shift_steps
        self._step_s = step_seconds(freq)
        self._cut = Cut.of(valid_from or LONE, timezone)
        self._cleaning = Cleaning(numbers_of(missing_values), detect_missing, limits, units or {})
        self._check()
        named = (self.columns, time_column, id_column, variable_column, value_column)
        self._layout = Layout(*named, TimeSettings(time_format, timezone), TableSettings(*self.table))
        names = self.columns if channel_mode == "mix" else ("value",)
        names += CALENDAR if calendar else ()
        self.spec = SampleSpec(
            "float32", units_of(names), len(names), rate_hz=1 / self._step_s, channel_names=names
        )

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """The series of a file, or of all files of a folder; the end of a lone series is held out."""
        found = find(source, self._layout, self._step_s, self.group_pattern)
        lone = sum(isinstance(item, Found) for item in found) == 1
        for item in found:
            if isinstance(item, Rejected):
                if split == "all":
                    yield item
                continue
            parts = ("train", HELD_OUT) if lone or self.valid_from else ("",)
            for part in (item.split,) if item.split else parts:
                key = f"{item.key}/{part}" if part == HELD_OUT else item.key
                if split in ("all", part):
                    read = partial(self.read, item, part)
                    record: Record | Rejected = Record(
                        key, read, group=item.group, split=part, amount=item.amount
                    )
                    yield reduce(noted, item.notices, record)

    def read(self, found: Found, part: str) -> Rows:
        """The rows of a series or of its part "train" or "valid", with a report on its quality.

        Raises ValueError with the reason when there are none.
        """
        series = found.read()
        values, dropped = clean(
            series.values, self.columns, self._cleaning, known_units=series.known_units, units=series.units
        )
        grid = to_grid(series.times_s, values, self._step_s, series.utc_offset_s)
        constant = np.zeros(len(self.columns), bool)
        if not series.judged:
            grid, constant = without_constants(grid)
        kept, account = self._pieces(self._part(grid, part))
        quality = {
            "num_times": len(series.times_s),
            "source_step_s": grid.source_step_s,
            **disorder(series.times_s, values),
            **dropped.counts,
            "absent": [name for name in self.columns if name not in found.names],
            "constant": [name for name, flat in zip(self.columns, constant, strict=True) if flat],
            **account,
            **series.quality,
        }
        rows = [row for piece in kept for row in self._rows(piece, series)]
        unreadable = quality.get("unreadable_times", 0)
        notices = [*series.notices, *dropped.notices]
        if unreadable > NOTICED * len(series.times_s):
            notices.append(
                f"{unreadable} of {len(series.times_s)} times cannot be read: their rows are left out"
            )
        for name, count in quality.get("text_cells", {}).items():
            if count > NOTICED * len(series.times_s):
                notices.append(f"{name}: {count} of {len(series.times_s)} cells hold text and are missing")
        shown = {name: value for name, value in quality.items() if value not in (0, [])}
        rate = [] if series.undated else [f"one value every {freq_of(grid.source_step_s)}, by the times"]
        return Rows(rows, shown, [*series.readings, *dropped.readings, *rate], notices)

    @classmethod
    def suggest(cls, source: Path) -> Suggestion | None:
        """Settings for typical years, for tables with times at their usual step, for grids and archives."""
        found = None
        for settings, words in looks_like(source):
            found = Suggestion(words, settings, problem_of(cls(**settings).records(source, "all")))
            if not found.problem:
                break
        return found

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        """A stored row; augmentation (`shift_steps`) leaves out some first steps, so that patches move."""
        length = int(row["length"])
        start = 0 if rng is None else int(rng.integers(min(self._shift_steps, length - 1) + 1))
        values, observed = row["values"][start:], np.asarray(row["observed"][start:], bool)
        times = row["start_s"] + self._step_s * np.arange(start, length)
        if self._calendar:
            # Where no sensor speaks there is nothing to predict: its calendar is not observed either
            known = np.repeat(observed.any(axis=1, keepdims=True), len(CALENDAR), axis=1)
            values = np.concatenate([values, calendar(times + row["utc_offset_s"]) * known], axis=1)
            observed = np.concatenate([observed, known], axis=1)
        return Sample(values, row["label"], row["group"], observed, times)

    @property
    def augmentations(self) -> dict[str, Callable[[Sample, np.random.Generator], Sample]]:
        """Measured with more noise."""
        return {"noise": partial(add_noise, most=0.2)}

    def feature_encoder(self, dim: int) -> PatchEncoder:
        """Patches of `patch` steps of all channels."""
        return PatchEncoder(len(self.spec.channel_names or ()), dim=dim, patch=self._patch)

    def _check(self) -> None:
        """Raises ValueError for settings that no type forbids."""
        check_timezone(self.timezone)
        check_pattern(self.group_pattern, "modality.group_pattern")
        if self.time_format and not has_date(self.time_format):
            raise ValueError(
                f"modality.time_format={self.time_format!r} has no date: the same hours of all days "
                "would be averaged. "
                "Name the column of the date, too, as in modality.time_column=DATE+TIME"
            )
        if self.time_column is None and self.variable_column:
            raise ValueError(
                "modality.time_column=null counts rows, of which modality.variable_column has several a time"
            )
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise ValueError(f"columns must be different names, at least one, not {[*self.columns]}")
        if not 0 < self.min_steps <= self.segment_steps:
            raise ValueError(f"min_steps={self.min_steps} must be in [1, segment_steps={self.segment_steps}]")
        for name, value, least, most in (
            ("patch", self._patch, 1, 1000),
            ("shift_steps", self._shift_steps, 0, 10_000),
        ):
            if not least <= value <= most:
                raise ValueError(f"modality.{name}={value} must lie in [{least}, {most}]")
        if self.max_gap_steps < 0:
            raise ValueError(f"modality.max_gap_steps={self.max_gap_steps} must be at least 0")
        if not 0 <= self.min_observed <= 1:
            raise ValueError(f"min_observed={self.min_observed} must be a share, from 0 to 1")

    def _part(self, grid: Grid, part: str) -> Grid:
        """What lies before or after the first moment that is held out."""
        if part not in ("train", HELD_OUT):
            return grid
        first_s = self._cut.seconds(grid.times_s)
        before = grid.times_s < first_s
        chosen = grid.chosen(before if part == "train" else ~before)
        if len(chosen.cells) == 0:
            raise ValueError(f"no values {'before' if part == 'train' else 'from'} {stamp(first_s)} (UTC)")
        return chosen

    def _pieces(self, grid: Grid) -> tuple[list[Grid], dict[str, Any]]:
        """The pieces of a series that make rows, and an account of all of it."""
        kept: list[Grid] = []
        account = {"num_segments": 0, "num_steps": 0, "short_steps": 0, "sparse_steps": 0}
        for segment in segments(grid, self.max_gap_steps):
            account["num_segments"] += 1
            for piece in pieces(segment, self.segment_steps):
                sparse = piece.observed.any(axis=1).mean() < self.min_observed
                kind = "short" if len(piece.cells) < self.min_steps else "sparse" if sparse else "num"
                account[f"{kind}_steps"] += len(piece.cells)
                kept += [piece] if kind == "num" else []
        if not kept:
            raise ValueError(
                f"no stretch of {self.min_steps} steps with {self.min_observed:.0%} of them observed: "
                f"{account['short_steps']} steps are in shorter ones, {account['sparse_steps']} in sparser; "
                f"see modality.min_steps, min_observed, max_gap_steps and freq"
            )
        observed = np.concatenate([piece.observed for piece in kept]).mean(axis=0).round(4).tolist()
        return kept, {**account, "observed": dict(zip(self.columns, observed, strict=True))}

    def _rows(self, piece: Grid, series: Series) -> Iterator[dict[str, Any]]:
        """One row, or with independent channels one for each that is observed well enough."""
        start_s, end_s = piece.times_s[[0, -1]].tolist()
        local_s = (start_s + series.utc_offset_s, end_s + series.utc_offset_s)
        common = {
            "length": len(piece.cells),
            "label": series.label if series.undated else season(*local_s),
            "start_s": start_s,
            "utc_offset_s": series.utc_offset_s,
        }
        choices = {stamp(start_s): slice(None)}
        if self.channel_mode == "independent":
            share = piece.observed.mean(axis=0)
            choices = {
                f"{stamp(start_s)}/{name}": slice(place, place + 1)
                for place, name in enumerate(self.columns)
                if share[place] >= self.min_observed and share[place] > 0
            }
        for part, channels in choices.items():
            values, observed = piece.values[:, channels].astype(np.float32), piece.observed[:, channels]
            yield {**common, "part": part, "values": values, "observed": observed}

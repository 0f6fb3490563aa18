"""Speech: audio in any common format to 16 kHz mono, and log-mel features computed inside the model."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from scipy.fft import dct

from modalities.reading.dialects import TableSettings
from modalities.reading.groups import Grouping, check_pattern, split_of, split_of_file
from modalities.reading.looking import counted, matching
from modalities.reading.notices import noted
from modalities.speech import alignments, corpora, transcripts
from modalities.speech.alignments import Intervals
from modalities.speech.audio import AUDIO_SUFFIXES, RAW_SUFFIX, Part, Sound, decode, is_silence, mono, sounds
from modalities.speech.finding import Alignments
from modalities.speech.mel import LogMelEncoder as LogMelEncoder
from modalities.speech.mel import StackedMelEncoder as StackedMelEncoder
from modalities.speech.mel import mel_filters as mel_filters
from modalities.speech.windows import Known, Windowing
from seqssl import (
    Record,
    Rejected,
    Rows,
    Sample,
    SampleSpec,
    Segment,
    Suggestion,
    UserError,
    add_noise,
    change_gain,
    list_files,
    stretch_time,
)

WAV_HEADER_BYTES = 44
NUM_CEPSTRA = 13


class Speech:
    """Mono speech at one rate, stored as 16-bit WAV bytes (the audio layout of HF `datasets`)."""

    endings = (*sorted(AUDIO_SUFFIXES), *sorted(corpora.TABLE_SUFFIXES))

    def __init__(
        self,
        *,
        rate_hz: int = 16_000,
        num_bins: int = 80,
        conv_channels: int = 32,
        min_seconds: float = 0.1,
        group_pattern: str | None = None,
        skip_lines: int | None = None,
        csv_columns: tuple[str, ...] | None = None,
        separator: str | None = None,
        decimal: Literal[".", ","] | None = None,
        alignments: bool = True,
        tier: str | None = None,
        window_s: float | None = 30.0,
        whole_s: float = 120.0,
    ) -> None:
        check_pattern(group_pattern, "modality.group_pattern")
        self.rate_hz = rate_hz
        self._num_bins = num_bins  # private: these do not change what is stored
        self._conv_channels = conv_channels
        self.min_seconds = min_seconds
        self.group_pattern = group_pattern
        self.skip_lines, self.csv_columns = skip_lines, csv_columns
        self.separator, self.decimal = separator, decimal
        if not alignments:  # what is not stored must not change the name of a prepared folder
            self.alignments = False
        if tier is not None:
            self.tier = tier
        self._windowing = Windowing(window_s, whole_s)
        if self._windowing != Windowing():
            self.window_s, self.whole_s = window_s, whole_s
        self._aligned, self._texts = Alignments(), transcripts.Texts()
        self.spec = SampleSpec(dtype="float32", units="amplitude in [-1, 1]", rate_hz=float(rate_hz))

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the alignments and texts of the source: each record carries its own."""
        kept = {name: x for name, x in vars(self).items() if name != "_mel"}
        return kept | {"_aligned": Alignments(), "_texts": transcripts.Texts()}

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """Audio files of a folder (or one file), or the rows of a metadata table or HF Parquet file."""
        transcripts.forget()
        corpora.audio_column.cache_clear()
        if getattr(self, "alignments", True):
            root = source if source.is_dir() else source.parent
            self._aligned = Alignments(root, list_files(root))
        files, said = list_files(source), ""
        self._texts = transcripts.Texts(files)
        inside = [path for path in files if path.name.lower() in corpora.TABLE_NAMES]
        tables = [path for path in inside if path.parent == source]
        if source.is_dir() and not inside:
            unasked, said = corpora.lists_in(source, files, self._table_settings)
            tables = [unasked] if unasked else []
        if source.is_file() and source.suffix.lower() in corpora.TABLE_SUFFIXES:
            found = self._from_table(source, source.name)
        elif tables:
            found = self._from_folder_with_table(source, tables[0], unasked=not inside)
        elif inside:
            found = self._from_folders_with_tables(source, inside)
        else:
            found = self._from_files(source.parent if source.is_file() else source, files)
        chosen = (row for row in found if split == "all" or getattr(row, "split", None) == split)
        return (noted(noted(row, said), self._texts.doubt) for row in chosen)

    def beside(self, source: Path) -> set[Path]:
        """The files that a list names, and what has their names below its folder: texts and alignments."""
        if not source.is_file():
            return set()
        named, is_table = [source], source.suffix.lower() in corpora.TABLE_SUFFIXES
        try:
            if is_table and not corpora.has_audio(source):
                named = [row.path or source.parent / row.key for row in self._said(source)]
        except (ValueError, UserError):  # it is damaged, which whoever reads it will say
            return set()
        names = {path.stem.lower() for path in named}
        return {*named, *(path for path in list_files(source.parent) if path.stem.lower() in names)} - {
            source
        }

    @classmethod
    def suggest(cls, source: Path) -> Suggestion | None:
        """Folders with audio files."""
        found = matching(source, lambda path: path.suffix.lower() in AUDIO_SUFFIXES)
        return Suggestion(counted("sound", found)) if found else None

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        """Amplitudes of a stored row; digital silence, of whatever value, counts as missing and is 0."""
        pcm = np.frombuffer(row["audio"]["bytes"], dtype="<i2", offset=WAV_HEADER_BYTES)
        stored = row.get("segments", "")  # "" where the source has no alignments at all
        segments = tuple(Segment(*parts) for parts in json.loads(stored)) if stored else None
        observed = sounds(pcm, self.rate_hz)
        return Sample(
            np.where(observed, pcm * np.float32(2**-15), np.float32(0)),
            observed=observed,
            label=row["label"],
            group=row["group"],
            segments=segments,
        )

    def descriptors(self, sample: Sample) -> dict[str, Float[np.ndarray, "d"]]:
        """Mean and deviation over time of 13 mel cepstra with their differences."""
        with torch.inference_mode():
            lengths = torch.tensor([len(sample.values)])
            picture = self._mel.picture(torch.from_numpy(sample.values.copy())[None], lengths)[0].numpy()
        static = dct(picture, axis=-1, norm="ortho")[:, :NUM_CEPSTRA]
        first = np.gradient(static, axis=0) if len(static) > 1 else np.zeros_like(static)
        second = np.gradient(first, axis=0) if len(static) > 1 else np.zeros_like(static)
        cepstra = np.concatenate([static, first, second], axis=1)
        return {"cepstra": np.concatenate([cepstra.mean(0), cepstra.std(0)])}

    @property
    def augmentations(self) -> dict[str, Callable[[Sample, np.random.Generator], Sample]]:
        """Louder or softer, faster and higher or slower and lower, with more noise."""
        return {
            "gain": partial(change_gain, low=0.5, high=2.0),
            "speed": partial(stretch_time, low=0.9, high=1.1),
            "noise": partial(add_noise, most=0.1),
        }

    @cached_property
    def _mel(self) -> LogMelEncoder:
        return self.feature_encoder(0)

    def feature_encoder(self, dim: int) -> LogMelEncoder:
        """Log-mel bands and convolutional subsampling; its width does not depend on `dim`."""
        return LogMelEncoder(rate_hz=self.rate_hz, num_bins=self._num_bins, conv_channels=self._conv_channels)

    def _from_files(self, root: Path, paths: Iterable[Path]) -> Iterator[Record | Rejected]:
        named = {path.relative_to(root).as_posix(): path for path in paths}
        audio = {name: path for name, path in named.items() if path.suffix.lower() in AUDIO_SUFFIXES}
        grouping = Grouping.of(audio, self.group_pattern)
        for name, path in named.items():
            try:
                if path.suffix.lower() == ".parquet":
                    yield from self._from_table(path, name, root)
                elif name in audio:
                    record = noted(self._of_file(path, PurePosixPath(name), grouping), grouping.doubt)
                    yield noted(record, self._texts.problem(path))
            except Exception as error:  # whatever a library raises for a damaged file
                yield Rejected.of(name, error)

    def _of_file(self, path: Path, name: PurePosixPath, grouping: Grouping) -> Record | Rejected:
        group, label = grouping.group(str(name)), self._texts.of(path)
        if self.group_pattern is None and path.stem in transcripts.transcripts(path.parent):
            group = path.stem.partition("-")[0]  # LibriSpeech: speaker-chapter-number
        if path.suffix.lower() == RAW_SUFFIX:
            prompt = PurePosixPath(*name.parts[1:]).with_suffix("").as_posix()
            label = label or prompt
            if not transcripts.holds_speech(prompt):
                return Rejected(str(name), "a prompt without speech, by its name")
        known = Known(str(name), group, label)
        read = partial(self._read_file, known, path, None, None, self._aligned.of(path))
        return known.record(read, split_of(str(name)), float(path.stat().st_size))

    def _from_folder_with_table(
        self, source: Path, table: Path, *, unasked: bool = False
    ) -> Iterator[Record | Rejected]:
        """The rows of a folder's table, and a rejection for each audio file that it does not name."""
        rows, files = [] if corpora.has_audio(table) else self._said(table, source), list_files(source)
        rows = corpora.as_found(rows, source, files, self._texts.of) if unasked else rows
        yield from self._of_rows(rows, table) if rows else self._from_table(table, table.name, source)
        named = {row.path.resolve() for row in rows if row.path}
        for path in files:
            if path.suffix.lower() in AUDIO_SUFFIXES and path.resolve() not in named:
                yield Rejected(path.relative_to(source).as_posix(), f"{table.name} does not name it")

    def _from_folders_with_tables(self, source: Path, tables: list[Path]) -> Iterator[Record | Rejected]:
        """Folders with a table each, as HF's audio folders have one for every split, and all other files."""
        folders = {table.parent: table for table in reversed(tables)}
        for folder, table in sorted(folders.items()):
            name = folder.relative_to(source).as_posix()
            for row in self._from_folder_with_table(folder, table):
                if isinstance(row, Record):
                    yield replace(row, key=f"{name}/{row.key}", split=row.split or split_of(f"{name}/x"))
                else:
                    yield Rejected(f"{name}/{row.path}", row.reason)
        others = [path for path in list_files(source) if not {*path.parents} & {*folders}]
        yield from self._from_files(source, others)

    def _from_table(self, table: Path, name: str, top: Path | None = None) -> Iterator[Record | Rejected]:
        if corpora.has_audio(table):
            yield from self._from_audio_column(table, name)
        else:
            yield from self._of_rows(self._said(table, top), table)

    @property
    def _table_settings(self) -> TableSettings:
        return TableSettings(self.skip_lines, self.csv_columns, self.separator, self.decimal)

    def _said(self, table: Path, top: Path | None = None) -> list[corpora.Said]:
        try:
            return [*corpora.rows_of(table, self._table_settings, top)]
        except ValueError as error:
            raise UserError(f"{table}: {error}") from error

    def _of_rows(self, rows: list[corpora.Said], table: Path) -> Iterator[Record | Rejected]:
        names = dict.fromkeys(row.name for row in rows if not row.problem)
        grouping = Grouping.of(names, self.group_pattern)
        several = any(row.sound for row in rows)  # then no sound is held out from itself
        for row in rows:
            try:
                if row.path is None or row.problem:
                    raise ValueError(row.problem or f"the file that {table.name} names is missing")
                group = row.group if self.group_pattern is None and row.group else grouping.group(row.name)
                group = group or (row.name if several else "")
                aligned = self._aligned.of(row.path)
            except ValueError as error:
                yield Rejected(row.key, str(error))
                continue
            known = Known(row.key, group, row.label or self._texts.of(row.path), row.label_column)
            read = partial(self._read_file, known, row.path, row.start_s, row.end_s, aligned)
            seconds = (row.end_s or 0.0) - (row.start_s or 0.0)
            amount = seconds if seconds > 0 else float(row.path.stat().st_size)
            record = known.record(read, row.split or split_of(row.name), amount)
            problem = "" if row.label else self._texts.problem(row.path)
            yield noted(noted(record, "" if row.group else grouping.doubt), problem)

    def _from_audio_column(self, table: Path, name: str) -> Iterator[Record]:
        file = pq.ParquetFile(table)
        aligned: Intervals | None = [] if self._aligned else None
        usual = {*corpora.TEXT_COLUMNS, *corpora.SPEAKER_COLUMNS, "split"}
        columns = [name for name in file.schema_arrow.names if name in usual]
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=columns).to_pylist()
            for index in range(file.metadata.row_group(group).num_rows):
                said = corpora.described(rows[index] if columns else {})
                split = said.pop("split") or split_of_file(name)
                known = Known(f"{name}/{group}/{index}", **said)
                yield known.record(partial(self._read_cell, known, table, group, index, aligned), split)

    def _read_file(
        self,
        known: Known,
        path: Path,
        start_s: float | None,
        end_s: float | None,
        aligned: Path | Intervals | None = None,
    ) -> Rows:
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")
        sound = decode(path, path.suffix.lower(), self.rate_hz)
        if isinstance(aligned, Path):
            aligned = alignments.read(aligned, getattr(self, "tier", None), sound.source_hz)
        return self._rows(known, sound, path.name, start_s, end_s, aligned)

    def _read_cell(
        self, known: Known, table: Path, group: int, index: int, aligned: Intervals | None
    ) -> Rows:
        cell = corpora.audio_column(table, group)[index].as_py()
        if not isinstance(cell, dict):
            raise ValueError("its audio is missing (null)")
        name = str(cell.get("path") or "")
        if cell.get("bytes") is not None:
            suffix = Path(name).suffix.lower()
            suffix = suffix if suffix in AUDIO_SUFFIXES else ".wav"
            sound = decode(io.BytesIO(cell["bytes"]), suffix, self.rate_hz)
            return self._rows(known, sound, name, aligned=aligned)
        if cell.get("array") is not None and cell.get("sampling_rate"):
            samples = np.asarray(cell["array"], dtype=np.float32)
            part = Part(samples[:, None] if samples.ndim == 1 else samples.T, int(cell["sampling_rate"]))
            return self._rows(known, mono(lambda: iter([part]), self.rate_hz), name, aligned=aligned)
        if name and (table.parent / name).is_file():
            return self._read_file(known, table.parent / name, None, None, aligned)
        raise ValueError(f"its audio is neither bytes nor an array, and there is no file {name!r}")

    def _rows(
        self,
        known: Known,
        sound: Sound,
        name: str,
        start_s: float | None = None,
        end_s: float | None = None,
        aligned: Intervals | None = None,
    ) -> Rows:
        """The stretch that is wanted, checked, as a row or the rows of its pieces."""
        total = len(sound.pcm)
        first, last = 0, total
        if start_s is not None:
            first, last = (
                round(start_s * self.rate_hz),
                total if end_s is None else round(end_s * self.rate_hz),
            )
            if not 0 <= start_s or last > total + self.rate_hz * 0.1 or last <= start_s * self.rate_hz:
                seconds = total / self.rate_hz
                raise ValueError(
                    f"the stretch from {start_s:g} to {end_s} s is not within its {seconds:.2f} s"
                )
        pcm = sound.pcm[first:last]
        if len(pcm) < self.min_seconds * self.rate_hz:
            raise ValueError(f"shorter than {self.min_seconds} s")
        if is_silence(pcm, self.rate_hz):
            raise ValueError("digital silence")
        spans = None
        if aligned is not None:
            spans = alignments.within(aligned, start_s or 0.0, len(pcm), total, self.rate_hz)
        return self._windowing.rows(pcm, self.rate_hz, name, known, spans, sound.notices)

"""FASTA in one streaming pass, with lines of any length: an index for random access, or the letters."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from modalities.dna.alphabet import WHITESPACE
from modalities.dna.storage import (
    BGZF_END,
    BYTE_ORDER_MARK,
    CHUNK_BYTES,
    Bases,
    InFasta,
    InMemory,
    Mark,
    is_bgzf,
    is_gzip,
    opened,
)

MAX_TITLE = 2**20


def scan_fasta(path: Path) -> Iterator[tuple[str, Bases]]:
    """The title of each record and its letters: places in a plain or bgzip file, else in memory.

    `ValueError` where the file is no FASTA or is cut short; decompression may raise one of `DAMAGE`.
    """
    bgzf = is_bgzf(path)
    if bgzf:
        _check_end(path)
    comments = _has_comments(path)
    keep = comments or (is_gzip(path) and not bgzf)
    record: _Record | None = None
    with closing(opened(path)) as file:
        for part in _parts(file):
            if part.is_title:
                if b"\r" in part.text.strip():
                    raise ValueError(r"its lines end in CR alone: convert it, for example by tr '\r' '\n'")
                if record is not None:
                    yield record.title, record.bases(path)
                record = _Record(part.text[1:].decode("utf-8", "replace").strip(), keep=keep)
            elif record is not None:
                record.extend(part)
            elif _without_comments(part.text).strip():
                raise ValueError("it does not begin with '>', as FASTA does")
    if record is not None:
        yield record.title, record.bases(path)


def _has_comments(path: Path) -> bool:
    """Whether lines of the first megabyte begin with a semicolon, as comments do in Pearson's FASTA."""
    with closing(opened(path)) as file:
        head = file.read(CHUNK_BYTES)
    return head.startswith(b";") or b"\n;" in head


def _without_comments(text: bytes) -> bytes:
    """Lines that do not begin with a semicolon."""
    lines = text.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(b";"))


class _Part(NamedTuple):
    """A whole title line, or lines of a sequence, which come `lead` bytes behind `offset`."""

    is_title: bool
    text: bytes
    offset: int
    lead: int


class _Record:
    """What is known of the record that is being read."""

    def __init__(self, title: str, *, keep: bool) -> None:
        self.title = title
        self._num_bases = 0
        self._marks: list[Mark] = []
        self._letters: bytearray | None = bytearray() if keep else None

    def extend(self, part: _Part) -> None:
        """Count in lines, or pieces of them."""
        text = part.text
        if b";" in text:  # a comment of Pearson's FASTA
            if self._letters is None:
                raise ValueError("a ';' among the bases: remove comment lines from within sequences")
            text = _without_comments(text)
        letters = text.translate(None, WHITESPACE)
        if letters:
            self._marks.append(Mark(self._num_bases, part.offset, part.lead))
            self._num_bases += len(letters)
        if self._letters is not None:
            self._letters += letters

    def bases(self, path: Path) -> Bases:
        """How to read the letters."""
        if self._letters is not None or not self._marks:
            return InMemory(bytes(self._letters or b""))
        return InFasta(path, tuple(self._marks), 0, self._num_bases)


def _parts(file: Any) -> Iterator[_Part]:
    """The file in order, by chunks of a fixed size; a title that is cut by a chunk's end is put together."""
    title, before = None, b"\n"  # the title so far, and the byte before the next one
    while True:
        offset = file.tell()
        chunk = file.read(CHUNK_BYTES)
        if not chunk:
            break
        position = len(BYTE_ORDER_MARK) if not offset and chunk.startswith(BYTE_ORDER_MARK) else 0
        while position < len(chunk):
            if title is None:
                end = _next_title(chunk, position, at_line_start=before == b"\n")
                yield _Part(False, chunk[position:end], offset, position)
                title = b"" if end < len(chunk) else None
            else:
                end = chunk.find(b"\n", position) + 1 or len(chunk)
                title += chunk[position:end]
                if len(title) > MAX_TITLE:
                    raise ValueError(
                        f"a title of more than {MAX_TITLE:,} letters: lines may not end as they should"
                    )
                if title.endswith(b"\n"):
                    yield _Part(True, title, offset, position)
                    title = None
            position, before = end, chunk[end - 1 : end]
    if title is not None:
        yield _Part(True, title, 0, 0)


def _next_title(chunk: bytes, position: int, *, at_line_start: bool) -> int:
    """Where the next '>' at the start of a line is, or the chunk's end."""
    if at_line_start and chunk.startswith(b">", position):
        return position
    return chunk.find(b"\n>", position) + 1 or len(chunk)


def _check_end(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, len(BGZF_END)), 2)
        if file.read() != BGZF_END:
            raise ValueError("the bgzip file is cut short: its end marker is missing")

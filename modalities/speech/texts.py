"""Texts beside audio, lists, and manifests, decoded whatever their encoding and the ends of their lines."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modalities.reading.dialects import encoding_of


def text_of(path: Path, most: int = -1) -> str:
    """The text of a file, or of its first `most` bytes; every line ends with LF."""
    with path.open("rb") as file:
        data = file.read(most)
    text = data.decode(encoding_of(data[: 2**16]), "replace").removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines_of(text: str) -> list[str]:
    """The lines that hold something. Marks such as U+2028, which a transcript may have, end none."""
    return [line for line in text.split("\n") if line.strip()]


def json_rows(table: Path) -> Iterator[dict[str, Any]]:
    """Rows of JSON lines, as NeMo writes manifests, or of one list."""
    text = text_of(table).strip()
    if text.startswith("["):
        found = json.loads(text)
        yield from (row for row in found if isinstance(row, dict))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} of {table.name} is no JSON: {line[:40]!r}") from error
        if isinstance(row, dict):
            yield row

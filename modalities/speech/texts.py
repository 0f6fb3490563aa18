"""Texts beside audio and lists of it, decoded whatever their encoding and the ends of their lines."""

from pathlib import Path

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

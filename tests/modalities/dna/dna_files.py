"""Sequences to test with: files of each format, and what the adapter makes of them."""

import itertools
import struct
from pathlib import Path

import numpy as np
from Bio.bgzf import BgzfWriter

from modalities.dna import DNA
from seqssl import Rejected, Rows
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus

SMALL = {"length": 50, "min_length": 10}


def bases(size: int, seed: int = 0, letters: str = "ACGT") -> str:
    return "".join(np.random.default_rng([seed, size]).choice(list(letters), size))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_fasta(sequences: dict[str, str], width: int = 60) -> str:
    lines = (
        [f">{name}", *(text[i : i + width] for i in range(0, len(text), width))]
        for name, text in sequences.items()
    )
    return "\n".join(itertools.chain.from_iterable(lines)) + "\n"


def bgzip(path: Path, content: bytes, block: int = 65280) -> Path:
    with BgzfWriter(path, "wb") as file:
        for start in range(0, len(content), block):
            file.write(content[start : start + block])
            file.flush()
    return path


def two_bit(sequences: dict[str, str]) -> bytes:
    """A writer of its own, after UCSC's description of the format."""

    def runs(marked: list[bool]) -> tuple[list[int], list[int]]:
        found = [(value, len([*group])) for value, group in itertools.groupby(marked)]
        starts = itertools.accumulate((size for _, size in found), initial=0)
        pairs = [(start, size) for start, (value, size) in zip(starts, found, strict=False) if value]
        return [start for start, _ in pairs], [size for _, size in pairs]

    def block(text: str) -> bytes:
        parts = [struct.pack("<I", len(text))]
        for marked in ([letter in "nN" for letter in text], [letter.islower() for letter in text]):
            starts, sizes = runs(marked)
            parts.append(struct.pack(f"<I{2 * len(starts)}I", len(starts), *starts, *sizes))
        digits = ["TCAG".index(letter) if letter in "TCAG" else 0 for letter in text.upper()]
        digits += [0] * (-len(digits) % 4)
        packed = bytes(64 * a + 16 * b + 4 * c + d for a, b, c, d in zip(*[iter(digits)] * 4, strict=True))
        return b"".join([*parts, struct.pack("<I", 0), packed])

    blocks = [block(text) for text in sequences.values()]
    offset = 16 + sum(5 + len(name) for name in sequences)
    index = b""
    for name, content in zip(sequences, blocks, strict=True):
        index += bytes([len(name)]) + name.encode() + struct.pack("<I", offset)
        offset += len(content)
    return struct.pack("<4I", 0x1A412743, 0, len(sequences), 0) + index + b"".join(blocks)


def read(source: Path, **settings) -> tuple[dict[str, dict], dict[str, str], dict[str, dict]]:
    """Rows by key, reasons by path and quality by path, in the way of `prepare` but without a folder."""
    rows, reasons, quality = {}, {}, {}
    for record in DNA(**settings).records(source, "all"):
        if isinstance(record, Rejected):
            reasons[record.path] = record.reason
            continue
        shared = {"group": record.group, "label": record.label, "split": record.split}
        try:
            found = record.read()
        except ValueError as error:
            reasons[record.key] = str(error)
            continue
        if isinstance(found, Rows):
            quality |= {record.key: dict(found.quality)} if found.quality else {}
            rows |= {f"{record.key}#{row['part']}".rstrip("#"): {**shared, **row} for row in found.rows}
        else:
            rows[record.key] = {**shared, **found}
    return rows, reasons, quality


def texts(source: Path, **settings) -> dict[str, str]:
    rows, reasons, _ = read(source, **settings)
    assert not reasons, reasons
    return {key: row["sequence"] for key, row in rows.items()}


def prepared(source: Path, out: Path, *, options=None, **settings) -> Corpus:
    prepare(DNA(**settings), source, out, modality="dna", num_workers=1, **(options or {}))
    return Corpus(out)

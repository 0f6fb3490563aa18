"""Files whose names say only that they are text: what is in them, and the sequences of bare ones."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from modalities.dna.alphabet import WHITESPACE
from modalities.dna.storage import BYTE_ORDER_MARK, InMemory
from modalities.reading.dialects import encoding_of, head_of
from modalities.reading.headers import has_bases, unquoted

LOOKED_AT = 2**14  # bytes of a text
MAX_WRAP = 120  # letters of a line; longer lines of one size are sequences of one size
MANY = 20  # full lines at least that no sequence is likely to end with exactly
SEQUENCE_COLUMNS = ("sequence", "seq", "dna")
BASES = re.compile(r"[acgtunryswkmbdhv\s]+", re.IGNORECASE)


@dataclass(frozen=True)
class InText:
    """A small file that is one sequence, of at most `size` letters."""

    path: Path
    size: int

    def __len__(self) -> int:
        return self.size

    def narrow(self, start: int, stop: int) -> InMemory:
        """The stretch [start, stop) of it."""
        return InMemory(self.read()[start:stop])

    def read(self) -> bytes:
        """The letters of the file; `ValueError` where its lines are more than one sequence."""
        found = sequences_of(self.path.read_bytes())
        if len(found) > 1:
            raise ValueError(f"its lines are {len(found):,} sequences, which its beginning did not show")
        return b"".join(found)


def kind_of_text(path: Path) -> str:
    """fasta, fastq, genbank, table, lines (a sequence in each line or block), or "" for anything else."""
    now = path.stat()
    return _kind(path, now.st_mtime_ns, now.st_size)


@lru_cache(maxsize=2**16)  # asked again for each split
def _kind(path: Path, _changed_ns: int, size: int) -> str:
    try:
        head = head_of(path, LOOKED_AT)
    except (OSError, ValueError):
        return ""
    text = head.decode(encoding_of(head), "replace").lstrip("\ufeff")
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and BASES.fullmatch(lines[1]):
        if lines[0].startswith(">"):
            return "fasta"
        if lines[0].startswith("@") and lines[2:3] and lines[2].startswith("+"):
            return "fastq"
    if lines and re.match(r"LOCUS\s+\S+.*\sbp\s", lines[0]):
        return "genbank"
    if _is_table(lines):
        return "table"
    # The last line of a part may be cut
    return "lines" if _holds_several(text if len(head) == size else text[: text.rfind("\n") + 1]) else ""


def _is_table(lines: list[str]) -> bool:
    """Whether one of the first two lines has a sequence and something else, or the first names sequences."""
    rows = [*islice(map(_cells_of, lines), 2)]
    sequences = [[has_bases(["".join(cell.split())]) for cell in row] for row in rows]
    names = {cell.lower() for cell in rows[0]} & {*SEQUENCE_COLUMNS} if len(rows) > 1 else {}
    return any(any(row) and not all(row) for row in sequences) or bool(names and any(sequences[1]))


def _cells_of(line: str) -> list[str]:
    """The cells of a line between tabs or other marks, else between blanks."""
    cells = [unquoted(cell) for cell in re.split(r"[,;|\t]", line)]
    return [cell for cell in cells if cell] if len(cells) > 1 else line.split()


def _holds_several(text: str) -> bool:
    """Whether all lines are sequences, and not of a single one."""
    lines = [line for line in text.splitlines() if line.strip()]
    long = all(has_bases(["".join(line.split())]) for line in lines[:-1])
    if not lines or not long or not BASES.fullmatch(text):
        return False
    try:
        return len(sequences_of(text.encode())) > 1
    except ValueError:
        return False


def sequences_of(text: bytes) -> list[bytes]:
    """The letters of each sequence in a text without titles.

    It is one sequence, wrapped or not, or has one in each line, or one in each block between empty lines.
    `ValueError` where the sizes of lines allow several of these.
    """
    lines = [line.translate(None, WHITESPACE) for line in text.removeprefix(BYTE_ORDER_MARK).splitlines()]
    blocks: list[list[bytes]] = [[]]
    for line in lines:
        if line:
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    blocks = [block for block in blocks if block]
    if all(len(block) == 1 for block in blocks):
        return [block[0] for block in blocks]
    if all(_is_wrapped([len(line) for line in block]) for block in blocks):
        return [b"".join(block) for block in blocks]
    sizes = [len(line) for block in blocks for line in block]
    if len(blocks) == 1 and _is_list(sizes):
        return blocks[0]
    raise ValueError(
        f"its {len(sizes):,} lines may be one sequence that is wrapped, or several: begin each sequence by a "
        f"line with '>' and its name (FASTA), bring a table with a column named sequence, or write each "
        f"sequence as one line, with an empty line before the next one"
    )


def _is_wrapped(sizes: list[int]) -> bool:
    """Whether lines of these sizes are one sequence: all are full but the last one."""
    full = {*sizes[:-1], sizes[0]}
    even = len(full) == 1 and sizes[-1] == sizes[0]
    if even and len(sizes) > 1:
        return sizes[0] <= MAX_WRAP and len(sizes) < MANY
    return len(full) == 1 and sizes[-1] <= sizes[0]


def _is_list(sizes: list[int]) -> bool:
    """Whether lines of these sizes are a sequence each: long, or of sizes that no wrapping gives."""
    (usual, count), *_ = Counter(sizes).most_common(1)
    rows_of_wrapped = usual == max(sizes) and usual <= MAX_WRAP and 2 * count > len(sizes)
    return not rows_of_wrapped

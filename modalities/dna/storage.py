"""Where the letters of a sequence are, and how any stretch of them is read without the rest."""

import gzip
import struct
import zlib
from bisect import bisect_right
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable
from weakref import finalize

from modalities.dna.alphabet import WHITESPACE, reverse_complement

CHUNK_BYTES = 2**16  # read at a time; also between two marks of an index
GZIP_MAGIC = b"\x1f\x8b"
TWO_BIT_SIGNATURE = 0x1A412743
TWO_BIT_ENTRY = 6  # bytes at least: the length of a name, a letter of it, an offset
BGZF_MAGIC = b"\x1f\x8b\x08\x04"
BGZF_END = b"\x03\x00" + bytes(8)  # an empty block, without which a file is cut short
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, struct.error, RuntimeError)  # what decompression raises


@runtime_checkable
class Bases(Protocol):
    """Raw letters of a sequence, or a stretch of it: a promise that is small to pickle, and `read` later."""

    def __len__(self) -> int: ...

    def narrow(self, start: int, stop: int) -> "Bases":
        """The stretch [start, stop) of it."""
        ...

    def read(self) -> bytes:
        """The letters, without white space; `ValueError` where they are no longer there."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Letters already read, from a file that cannot be entered in the middle."""

    letters: bytes

    def __len__(self) -> int:
        return len(self.letters)

    def narrow(self, start: int, stop: int) -> "InMemory":
        """The stretch [start, stop) of it."""
        return InMemory(self.letters[start:stop])

    def read(self) -> bytes:
        """The letters."""
        return self.letters


@dataclass(frozen=True)
class OtherStrand:
    """The reverse complement of other bases."""

    bases: Bases

    def __len__(self) -> int:
        return len(self.bases)

    def narrow(self, start: int, stop: int) -> "OtherStrand":
        """The stretch [start, stop) of it, counted from its own first letter."""
        return OtherStrand(self.bases.narrow(len(self) - stop, len(self) - start))

    def read(self) -> bytes:
        """The letters in their own direction."""
        return reverse_complement(self.bases.read())


class Mark(NamedTuple):
    """Letter number `base` of a sequence is the first one at `lead` bytes behind `offset`, or later."""

    base: int
    offset: int  # to seek to: a place in a plain file, a virtual offset in a bgzip file
    lead: int


@dataclass(frozen=True)
class InFasta:
    """A stretch of a record of a plain or bgzip FASTA file: read by seek, whatever its lines look like."""

    path: Path
    marks: tuple[Mark, ...]  # ascending; the first is not behind `start`
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def narrow(self, start: int, stop: int) -> "InFasta":
        """The stretch [start, stop) of it, with the one mark that it needs."""
        start, stop = self.start + start, self.start + stop
        after = bisect_right(self.marks, Mark(start + 1, 0, 0))
        return InFasta(self.path, self.marks[after - 1 : after], start, stop)

    def read(self) -> bytes:
        """Letters from the first mark on, cut to the stretch."""
        mark = self.marks[0]
        skip, wanted = self.start - mark.base, self.stop - mark.base
        letters = bytearray()
        with closing(opened(self.path)) as file:
            file.seek(mark.offset)
            file.read(mark.lead)
            while len(letters) < wanted:
                chunk = file.read(CHUNK_BYTES)
                if not chunk:
                    raise ValueError(f"{self.path.name} ends early: it has changed since it was scanned")
                letters += chunk.translate(None, WHITESPACE)
        return bytes(letters[skip:wanted])


@dataclass(frozen=True)
class InTwoBit:
    """A stretch of a sequence of a 2bit file."""

    path: Path
    name: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def narrow(self, start: int, stop: int) -> "InTwoBit":
        """The stretch [start, stop) of it."""
        return InTwoBit(self.path, self.name, self.start + start, self.start + stop)

    def read(self) -> bytes:
        """The letters, lower case where soft-masked."""
        return bytes(two_bit(self.path)[self.name].seq[self.start : self.stop])


@lru_cache(maxsize=4)
def two_bit(path: Path) -> Any:
    """Biopython's lazy reader, which reads the index of a 2bit file once per process."""
    from Bio.SeqIO.TwoBitIO import TwoBitIterator

    _check_two_bit(path)
    stream = path.open("rb")
    try:
        reader = TwoBitIterator(stream)
    except Exception:
        stream.close()
        raise
    finalize(reader, stream.close)
    return reader


def _check_two_bit(path: Path) -> None:
    """`ValueError` where the header counts more sequences than the file has room to name."""
    head, size = _head(path, 16), path.stat().st_size
    for order in ("<", ">"):
        signature, _, count, _ = struct.unpack(f"{order}4I", head) if len(head) == 16 else (0, 0, 0, 0)
        if signature == TWO_BIT_SIGNATURE and count * TWO_BIT_ENTRY > size:
            raise ValueError(
                f"its header says {count:,} sequences, for which its {size:,} bytes have no room"
            )


def opened(path: Path) -> Any:
    """A plain, bgzip or gzip file for binary reading; what it says in `tell` it can `seek` to."""
    if is_bgzf(path):
        from Bio.bgzf import BgzfReader

        return BgzfReader(str(path), "rb")
    return gzip.open(path) if is_gzip(path) else path.open("rb")


def is_gzip(path: Path) -> bool:
    """True for gzip in any of its forms, by content."""
    return _head(path).startswith(GZIP_MAGIC)


def is_bgzf(path: Path) -> bool:
    """True for what `bgzip` writes, which can be entered anywhere."""
    head = _head(path)
    return head.startswith(BGZF_MAGIC) and head[12:14] == b"BC"


def _head(path: Path, size: int = 14) -> bytes:
    with path.open("rb") as file:
        return file.read(size)

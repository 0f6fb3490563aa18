"""The alphabet A C G T N: which letters are read as what, counted, and refused."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, UInt8

SYMBOLS = "ACGTN"
MISSING = SYMBOLS.index("N")
AMBIGUOUS = "RYSWKMBDHV"  # IUPAC codes of two or three bases
AMINO_ACIDS = "EFILPQJOZX*"  # of protein alphabets, those that mean nothing here
SHOWN = 12  # letters that a message names


def _both_cases(letters: str) -> bytes:
    return (letters.upper() + letters.lower()).encode()


LOWER_CASE = 0x20  # the bit that makes a letter lower case
WHITESPACE = b" \t\r\n\v\f"
KNOWN = frozenset(_both_cases(SYMBOLS + "U" + AMBIGUOUS))
READ_AS = bytes.maketrans(_both_cases("U" + AMBIGUOUS), _both_cases("T" + "N" * len(AMBIGUOUS)))
COMPLEMENT = bytes.maketrans(_both_cases("ACGTURYKMBVDH"), _both_cases("TGCAAYRMKVBHD"))
COMPLEMENT_IDS = np.array([3, 2, 1, 0, 4])
ID_OF_LETTER = np.full(256, MISSING)
ID_OF_LETTER[np.frombuffer(_both_cases("ACGT"), np.uint8)] = [0, 1, 2, 3, 0, 1, 2, 3]


def normalized(raw: bytes) -> tuple[bytes, dict[str, object]]:
    """Letters of A C G T N in their case, and how many had to be read as another.

    U is read as T and the IUPAC codes of several bases as N. `ValueError` for anything else, and where
    there is nothing.
    """
    if not raw:
        raise ValueError("the sequence is empty")
    counts: list[int] = np.bincount(codes(raw), minlength=256).tolist()
    foreign = {chr(code): count for code, count in enumerate(counts) if count and code not in KNOWN}
    if foreign:
        raise ValueError(_foreign(foreign, len(raw)))

    def total(letter: str) -> int:
        return counts[ord(letter)] + counts[ord(letter.lower())]

    ambiguous = {code: total(code) for code in AMBIGUOUS if total(code)}
    changes: dict[str, object] = {}
    if ambiguous:
        changes["ambiguous_read_as_n"] = ambiguous
    if total("U"):
        changes["u_read_as_t"] = total("U")
    return raw.translate(READ_AS), changes


def reverse_complement(letters: bytes) -> bytes:
    """The other strand, read in its own direction; case stays with its base."""
    return letters.translate(COMPLEMENT)[::-1]


def ids(letters: bytes) -> Int[np.ndarray, "t"]:
    """Index of each letter in `SYMBOLS`; case does not matter."""
    found: np.ndarray = ID_OF_LETTER[codes(letters)]
    return found


def codes(letters: bytes) -> UInt8[np.ndarray, "t"]:
    """ASCII codes, as a read-only view."""
    return np.frombuffer(letters, np.uint8)


def _foreign(foreign: Mapping[str, int], num_letters: int) -> str:
    names = [letter if letter.isprintable() and letter.isascii() else repr(letter) for letter in foreign]
    shown = " ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
    protein = {letter.upper() for letter in foreign} <= set(AMINO_ACIDS)
    guess = "; is this a protein?" if protein else ""
    return f"{sum(foreign.values())} of {num_letters} letters are no nucleotide codes: {shown}{guess}"

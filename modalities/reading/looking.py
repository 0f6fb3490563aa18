"""What a folder seems to hold, for adapters that say whether they would read it."""

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from seqssl import Record, Rejected, Rows, UserError, list_files

MOST, TRIED = 500, 3  # records that are looked at, and read


def matching(source: Path, is_read: Callable[[Path], object]) -> list[Path]:
    """The files of a folder, or the one file, that an adapter would read by their names."""
    return [path for path in list_files(source) if is_read(path)]


def counted(kind: str, paths: list[Path]) -> str:
    """What some files hold, how many there are, and how their names end: sound in 12 files (.wav)."""
    ends = ", ".join(sorted({path.suffix.lower() for path in paths}))
    return f"{kind} in {len(paths)} file{'s'[: len(paths) > 1]} ({ends})"


def problem_of(records: Iterable[Record | Rejected]) -> str:
    """Why none of the three smallest of some records can be read; "" where one can."""
    problem = "nothing in it is of this kind"
    try:
        found = [*islice(records, MOST)]
    except UserError as error:  # of the scan
        return str(error)
    except Exception as error:
        return Rejected.of("", error).reason
    known = sorted((item for item in found if isinstance(item, Record)), key=lambda item: item.amount)
    for record in known[:TRIED]:
        try:
            rows = record.read()
        except Exception as error:  # whatever a library raises for a file of another kind
            problem = f"{record.key}: {Rejected.of(record.key, error).reason}"
            continue
        if not isinstance(rows, Rows) or rows.rows:
            return ""
    rejected = [item for item in found if isinstance(item, Rejected)]
    return f"{rejected[0].path}: {rejected[0].reason}" if len(rejected) == len(found) > 0 else problem

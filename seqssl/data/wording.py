"""Words about files: names that a terminal and UTF-8 can show, and reasons of a bounded length."""

import os
import traceback

from seqssl.errors import UserError

MAX_REASON = 200  # characters; a file's own words in a reason can be as long as the file


def printable(name: str) -> str:
    r"""A file's name, or what was read in it, as text of one line that can be printed and stored as UTF-8.

    A byte that is no UTF-8 becomes `\xe9`, and so does a character that terminals obey: `\x1b`.
    """
    if name.isprintable():  # which no surrogate is
        return name
    text = storable(name)
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") if not c.isspace() else " "
        for c in text
    )


def storable(text: str) -> str:
    r"""Text that UTF-8 can hold: what stands for a byte of a file's name becomes `\xe9`."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(text).decode("utf-8", "backslashreplace") if _is_name(text) else _escaped(text)
    return text


def shortened(reason: str) -> str:
    """A reason in one printable line of at most `MAX_REASON` characters: its beginning and its end.

    The end matters: it names the setting that helps.
    """
    if len(reason) > 100 * MAX_REASON:
        reason = f"{reason[: 50 * MAX_REASON]} {reason[-50 * MAX_REASON :]}"
    line = " ".join(printable(reason).split())
    if len(line) <= MAX_REASON:
        return line
    tail = MAX_REASON * 2 // 5
    return f"{line[: MAX_REASON - tail - 5]} ... {line[-tail:]}"


def reason_of(error: BaseException) -> str:
    """Why a file cannot be used: an adapter's own words, or ours with the library's in brackets.

    A `ValueError` of an adapter is said as it is. Anything else comes from a library that has met a damaged
    file, or is a mistake in the adapter, so its place is said, too.
    """
    if isinstance(error, MemoryError):
        return "it does not fit into memory: split the file"
    if isinstance(error, RecursionError):
        return "it is nested too deeply to be read"
    if isinstance(error, OSError) and error.errno is not None:
        return f"it cannot be opened or read ({error.strerror})"
    place = traceback.extract_tb(error.__traceback__)[-1:]
    ours = isinstance(error, UserError) or (type(error) is ValueError and not _is_library(place))
    if ours and str(error):
        return str(error)
    where = f", {os.path.basename(place[0].filename)} line {place[0].lineno}" if place else ""
    return f"it cannot be read: damaged, or not what its name says ({type(error).__name__}: {error}{where})"


def _is_library(place: list[traceback.FrameSummary]) -> bool:
    """Whether an error was raised in an installed package, not in an adapter."""
    return bool(place) and (
        "site-packages" in place[0].filename or f"{os.sep}lib{os.sep}python" in place[0].filename
    )


def _is_name(text: str) -> bool:
    """Whether all that UTF-8 cannot hold stands for bytes of a file's name."""
    return all("\udc80" <= c <= "\udcff" for c in text if "\ud800" <= c <= "\udfff")


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")

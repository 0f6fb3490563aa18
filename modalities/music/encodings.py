"""In which encoding the text of a score is, and how it is decoded."""

import codecs
import re

from modalities.reading.dialects import encoding_of

HEAD_BYTES = 64  # enough for a mark and the zero bytes of wide letters; XML begins with plain ones
DECLARED = re.compile(r"""(<\?xml\s[^>]*?\bencoding\s*=\s*["'])([^"'>]*)(["'])""")
DECLARATION_BYTES = 1024
PLAIN = bytes(range(0x20, 0x7F))


def wide_encoding(data: bytes) -> str:
    """UTF-16 or UTF-32, as the byte order mark or the zero bytes of a text tell; "" for any other."""
    found = encoding_of(data[:HEAD_BYTES])
    return found if found.startswith(("utf-16", "utf-32")) else ""


def xml_in_utf8(data: bytes) -> bytes:
    """XML recoded to UTF-8, from what its byte order mark or its first line says that it is in.

    `ValueError` where it is not in that encoding, or where Python has no such one.
    """
    encoding = wide_encoding(data) or ("utf-8" if data.startswith(codecs.BOM_UTF8) else _declared(data))
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"it has letters that are not in {encoding.upper()}, which its first line names or leaves to be "
            f"assumed: save it again in UTF-8 ({error.reason} at byte {error.start:,})"
        ) from error
    return DECLARED.sub(r"\1UTF-8\3", text.removeprefix("\ufeff"), count=1).encode()


def _declared(data: bytes) -> str:
    """The encoding that a declaration in plain letters names, else UTF-8."""
    found = DECLARED.match(data[:DECLARATION_BYTES].decode("latin-1").lstrip())
    if found is None:
        return "utf-8"
    try:
        true = PLAIN.decode(found[2]) == PLAIN.decode("ascii")
    except (LookupError, ValueError):
        true = False
    if not true:  # the name was read in plain letters, which the encoding that it names does not have
        raise ValueError(
            f"its first line says that it is in {found[2]!r}, which it is not or which is unknown here: save "
            "it again in UTF-8"
        )
    return found[2]

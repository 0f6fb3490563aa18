"""Score files of every format to pieces."""

import warnings
from dataclasses import replace
from pathlib import Path

from modalities.music.midi import read_midi
from modalities.music.notation import read_notation
from modalities.music.pieces import Piece
from seqssl import Rejected

KINDS = {
    ".mid": "MIDI",
    ".midi": "MIDI",
    ".mxl": "MusicXML",
    ".musicxml": "MusicXML",
    ".xml": "MusicXML",
    ".krn": "kern",
    ".abc": "ABC",
}


def read_piece(path: Path, tune: str) -> Piece:
    """The piece in a score file, or in the text of one tune of an ABC file.

    Raises `ValueError` with the reason where the file is damaged, has no pitched notes or absurd times, or
    where the reading package is missing.
    """
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    kind = KINDS[path.suffix.lower()]
    package = "symusic" if kind == "MIDI" else "music21"
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            piece = read_midi(path) if kind == "MIDI" else read_notation(path, kind, tune)
    except ImportError as error:
        raise ValueError(f"{kind} files need the package {package}: pip install 'seqssl[music]'") from error
    except Exception as error:  # they raise whatever a damaged file leads them to
        raise ValueError(f"not readable as {kind}: {Rejected.of('', error).reason}") from error
    if not len(piece.notes):
        left_out = ", ".join(f"{count} {what}" for what, count in piece.left_out.items())
        raise ValueError(f"no pitched notes (left out: {left_out})" if left_out else "no notes")
    complaints = (*piece.complaints, *(str(warning.message) for warning in caught))
    return replace(piece, complaints=complaints)

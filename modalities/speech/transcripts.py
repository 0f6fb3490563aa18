"""What was said, by texts beside the audio, in lists, or in the usual places of well-known corpora."""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from modalities.reading.headers import kind_of
from modalities.speech.alignments import is_alignment
from modalities.speech.lists import MICROPHONE, texts_in
from modalities.speech.texts import lines_of, text_of

SUFFIXES = (".txt", ".lab")  # the latter in corpora made for the Montreal Forced Aligner
TIMIT_SAMPLES = re.compile(r"^0\s+\d{3,}\s+(?=\D)")  # its texts begin with the first and the last sample
FESTVOX = re.compile(r'^\s*\(\s*(\S+)\s+"((?:[^"\\]|\\.)*)"\s*\)', re.MULTILINE)
# A line such as `FV Conf : 19.465` of VoxCeleb or `Text: WORDS` of LRS3, above tables of faces or of words
KEY = re.compile(r"\s*([^\W\d]\w*(?: \w+)?)\s*:\s+(\S.*?)\s*")
TEXT_KEYS = ("text", "transcript", "transcription")
KEYS = {*TEXT_KEYS, "conf", "fv conf", "asd conf", "identity", "reference", "ref", "offset"}
FEW = 3  # lines of numbers that may have been said
NO_WORDS = (
    "texts beside recordings that hold keys (NAME: VALUE) or numbers are no transcripts: labels are empty"
)
# Telephone prompts (.g722) that hold no speech; neither do those in the folder `silence`
TONES = {"beep", "beeperr", "ascending-2tone", "descending-2tone", "confbridge-join", "confbridge-leave"}


class Texts:
    """What was said in the recordings of a source."""

    def __init__(self, files: Iterable[Path] = ()) -> None:
        self._listed, self.doubt = texts_in([*files])

    def of(self, path: Path) -> str:
        """What is said in a recording, by a text of its own or a list; "" where nothing tells."""
        return _told(path)[0] or self._listed.get(path, "")

    def problem(self, path: Path) -> str:
        """Why the text of a recording does not tell what is said; "" where it does, or there is none."""
        return "" if self.of(path) else _told(path)[1]


@lru_cache(maxsize=4)
def _told(path: Path) -> tuple[str, str]:
    """What is said in a file, by its own text or LibriSpeech's .trans.txt, or why a text does not tell."""
    if path.stem in transcripts(path.parent):
        return transcripts(path.parent)[path.stem], ""
    for suffix in SUFFIXES:
        beside = _names_in(path.parent).get(f"{path.stem}{suffix}".lower())
        if beside and not is_alignment(path.parent / beside):
            return _words(TIMIT_SAMPLES.sub("", text_of(path.parent / beside).strip()))
    if path.stem in festvox(path.parent.parent / "etc"):
        return festvox(path.parent.parent / "etc")[path.stem], ""
    stem = MICROPHONE.sub("", path.stem)
    for folder in path.parents:
        if folder.name.lower().startswith(("wav", "audio")):  # VCTK has wav48/p225/x.wav and txt/p225/x.txt
            other = folder.parent / "txt" / path.relative_to(folder).with_name(f"{stem}.txt")
            return _words(text_of(other).strip()) if other.is_file() else ("", "")
    return "", ""


def _words(text: str) -> tuple[str, str]:
    """A text that is a transcript, or what its key `Text` says; else why it is none.

    It is none with several keys above lines of numbers, or with numbers beside keys that are known; nor where
    most lines are rows of a table. Speakers of a dialogue may say numbers, as may a few lines.
    """
    lines = lines_of(text)
    keys = {found[1].lower(): found[2] for found in map(KEY.fullmatch, lines) if found}
    rows = [len(line.split()) for line in lines if _are_numbers(line)]
    known = KEYS & {*keys} and any(kind_of(value) == "number" for value in keys.values())
    header = len(keys) > 1 and (known or len(rows) > 1)
    table = len(rows) > max(FEW, len(lines) / 2) and len({*rows}) == 1
    if not header and not table:
        return text, ""
    said = next((keys[key] for key in TEXT_KEYS if key in keys), "")
    return said, "" if said else NO_WORDS


def _are_numbers(line: str) -> bool:
    """Whether a line has several numbers, and hardly anything else."""
    cells = line.split()
    numbers = sum(kind_of(cell) == "number" for cell in cells)
    return numbers > 1 and numbers >= len(cells) / 2


@lru_cache(maxsize=4)
def transcripts(folder: Path) -> dict[str, str]:
    """The lines `name text` of LibriSpeech's .trans.txt files in a folder."""
    tables = [
        lines_of(text_of(folder / name))
        for low, name in _names_in(folder).items()
        if low.endswith(".trans.txt")
    ]
    return {
        name: text for table in tables for name, _, text in (line.strip().partition(" ") for line in table)
    }


@lru_cache(maxsize=4)
def festvox(folder: Path) -> dict[str, str]:
    """The lines `( name "text" )` of a voice of Festival, in etc/txt.done.data beside its wav/."""
    table = folder / "txt.done.data"
    if not table.is_file():
        return {}
    return {match[1]: match[2].replace('\\"', '"') for match in FESTVOX.finditer(text_of(table))}


def holds_speech(prompt: str) -> bool:
    """Whether a telephone prompt holds speech, by its path inside the voice's folder."""
    return prompt not in {*TONES, "tt-monkeys"} and not prompt.startswith("silence/")


def forget() -> None:
    """Drop the folders that were looked at: they may have changed since."""
    _told.cache_clear()
    festvox.cache_clear()
    transcripts.cache_clear()
    _names_in.cache_clear()


@lru_cache(maxsize=4)
def _names_in(folder: Path) -> dict[str, str]:
    """The regular files of a folder by their names in small letters; a pipe would be waited for."""
    return {path.name.lower(): path.name for path in sorted(folder.iterdir()) if path.is_file()}

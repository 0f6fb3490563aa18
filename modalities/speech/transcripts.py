"""What was said, by texts beside the audio or in the usual places of well-known corpora."""

import re
from functools import lru_cache
from pathlib import Path

from modalities.speech.alignments import is_alignment
from modalities.speech.texts import lines_of, text_of

SUFFIXES = (".txt", ".lab")  # the latter in corpora made for the Montreal Forced Aligner
TIMIT_SAMPLES = re.compile(r"^0\s+\d{3,}\s+(?=\D)")  # its texts begin with the first and the last sample
MICROPHONE = re.compile(r"_mic\d$")
FESTVOX = re.compile(r'^\s*\(\s*(\S+)\s+"((?:[^"\\]|\\.)*)"\s*\)', re.MULTILINE)


def transcript(path: Path) -> str:
    """What is said in a file, by a text of its name or LibriSpeech's .trans.txt; "" where nothing tells."""
    if path.stem in transcripts(path.parent):
        return transcripts(path.parent)[path.stem]
    for suffix in SUFFIXES:
        beside = _names_in(path.parent).get(f"{path.stem}{suffix}".lower())
        if beside and not is_alignment(path.parent / beside):
            return TIMIT_SAMPLES.sub("", text_of(path.parent / beside).strip())
    if path.stem in festvox(path.parent.parent / "etc"):
        return festvox(path.parent.parent / "etc")[path.stem]
    stem = MICROPHONE.sub("", path.stem)
    for folder in path.parents:
        if folder.name.lower().startswith(("wav", "audio")):  # VCTK has wav48/p225/x.wav and txt/p225/x.txt
            other = folder.parent / "txt" / path.relative_to(folder).with_name(f"{stem}.txt")
            return text_of(other).strip() if other.is_file() else ""
    return ""


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


def forget() -> None:
    """Drop the folders that were looked at: they may have changed since."""
    festvox.cache_clear()
    transcripts.cache_clear()
    _names_in.cache_clear()


@lru_cache(maxsize=4)
def _names_in(folder: Path) -> dict[str, str]:
    """The regular files of a folder by their names in small letters; a pipe would be waited for."""
    return {path.name.lower(): path.name for path in sorted(folder.iterdir()) if path.is_file()}

"""From text to symbols and back: characters, or word pieces."""

import base64
import io
import re
from collections.abc import Sequence
from typing import Any, Protocol

from seqssl.config.values import Value
from seqssl.errors import UserError

BLANK = 0  # no symbol; the symbols of a text are numbered from 1


class Tokens(Protocol):
    """How a text is written in symbols."""

    size: int  # with the blank

    def encode(self, text: str) -> list[int]:
        """The symbols of a text; what was not there in training is left out."""
        ...

    def decode(self, symbols: Sequence[int]) -> str:
        """The text of symbols."""
        ...


class Characters:
    """A symbol for each character."""

    def __init__(self, marks: str) -> None:
        self.marks = marks
        self._number = {mark: number for number, mark in enumerate(marks, start=1)}
        self.size = 1 + len(marks)

    def encode(self, text: str) -> list[int]:
        """The number of each character."""
        return [self._number[mark] for mark in text if mark in self._number]

    def decode(self, symbols: Sequence[int]) -> str:
        """The characters side by side."""
        return "".join(self.marks[symbol - 1] for symbol in symbols)


class WordPieces:
    """Pieces of words as sentencepiece's unigram model finds them (1804.10959)."""

    def __init__(self, stored: str) -> None:
        self._model: Any = _sentencepiece().SentencePieceProcessor(model_proto=base64.b64decode(stored))
        self.size = 1 + int(self._model.vocab_size())

    def encode(self, text: str) -> list[int]:
        """The number of each piece."""
        unknown = self._model.unk_id()
        return [1 + piece for piece in self._model.encode(text) if piece != unknown]

    def decode(self, symbols: Sequence[int]) -> str:
        """The text that the pieces spell."""
        return str(self._model.decode([symbol - 1 for symbol in symbols]))


def learn(kind: str, texts: Sequence[str], vocab_size: int) -> Value:
    """What `open_tokens` needs of the training texts; UserError where they are too few."""
    if kind == "characters":
        return "".join(sorted(set("".join(texts))))
    trained = io.BytesIO()
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=trained, vocab_size=vocab_size, model_type="unigram",
            bos_id=-1, eos_id=-1, pad_id=-1, unk_id=0, minloglevel=2, num_threads=1, character_coverage=1.0,
        )  # fmt: skip
    except RuntimeError as error:
        most = re.search(r"value <= (\d+)", str(error))
        advice = f"these texts give at most {most[1]}" if most else str(error).splitlines()[-1]
        raise UserError(
            f"task.vocab_size = {vocab_size}: so many pieces cannot be made of {len(texts)} transcripts; "
            f"{advice}."
        ) from error
    return base64.b64encode(trained.getvalue()).decode()


def open_tokens(kind: str, stored: str) -> Tokens:
    """The symbols that `learn` found."""
    return Characters(stored) if kind == "characters" else WordPieces(stored)


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise UserError("task.tokens=wordpieces wants sentencepiece: pip install 'seqssl[text]'") from error
    return sentencepiece

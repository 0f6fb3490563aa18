"""Texts as symbols and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssl.errors import UserError
from seqssl.finetuning.tokens import BLANK, learn, open_tokens

TEXTS = [
    f"{a} {b} {c}" for a in ("seven", "eleven", "even") for b in ("one", "two") for c in ("да", "нет", "one")
]


@given(st.text("abc dé", min_size=1, max_size=20))
def test_characters_come_back(text: str) -> None:
    tokens = open_tokens("characters", str(learn("characters", ["abc dé"], 0)))
    symbols = tokens.encode(text)
    assert tokens.decode(symbols) == text
    assert all(BLANK < symbol < tokens.size for symbol in symbols)
    assert tokens.encode("x" + text) == symbols, "what was not there in training is left out"


@pytest.mark.parametrize("text", [*TEXTS[:4], "two seven нет"])
def test_word_pieces_come_back(text: str) -> None:
    stored = str(learn("wordpieces", TEXTS, 16))
    assert stored == learn("wordpieces", TEXTS, 16), "nothing is drawn"
    tokens = open_tokens("wordpieces", stored)
    symbols = tokens.encode(text)
    assert tokens.decode(symbols) == text
    assert all(BLANK < symbol < tokens.size <= 17 for symbol in symbols)
    assert len(symbols) <= len(text) + 1, "a piece begins with a mark for the space before it"
    assert tokens.decode(tokens.encode("seven qqq")).strip() == "seven"


def test_too_many_word_pieces_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"task.vocab_size = 5000: so many pieces cannot be made of 18 transcripts"
    ):
        learn("wordpieces", TEXTS, 5000)

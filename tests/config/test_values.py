import math
from inspect import Parameter
from typing import Annotated, Literal

import pytest

from seqssl.config.values import (
    Plain,
    Value,
    convert,
    describe,
    did_you_mean,
    fits,
    number,
    numbers,
    resolved,
)
from seqssl.model.bounds import ODD, POSITIVE, SHARE, Bound, Divides, Marker, Wire

NO, TEN, EXPONENT, NULL = Plain("no", False), Plain("010", 8), Plain("1e3", 1000.0), Plain("null", None)


@pytest.mark.parametrize(
    ("value", "annotation", "good"),
    [
        (1, float, True),
        (1.0, int, False),
        (True, int, False),
        (None, int | None, True),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        ([1, 2], tuple[int, ...], True),
        ([1, "x"], tuple[int, ...], False),
        ([1, 2, 3], tuple[float, float], False),
        ({"a": 1}, dict[str, int], True),
        ({"a": "b"}, dict[str, int], False),
        ("anything", Parameter.empty, True),
        (TEN, int, True),
        (TEN, str, True),
        (TEN, bool, False),
        (NO, bool, True),
        (NO, str, True),
        (NO, int, False),
        (True, str, False),
        (EXPONENT, float, True),
        (EXPONENT, int, False),
        (1, Annotated[int, POSITIVE], True),
        (0, Annotated[int, POSITIVE] | None, True),
        (1.5, Annotated[int, POSITIVE] | None, False),
    ],
)
def test_fits(value: Value, annotation: object, good: bool) -> None:
    assert fits(value, annotation) is good


@pytest.mark.parametrize(
    ("value", "annotation", "result"),
    [
        (TEN, str, "010"),
        (TEN, int, 8),
        (TEN, str | None, "010"),
        (TEN, Parameter.empty, 8),
        (NO, str, "no"),
        (NO, bool, False),
        (NO, Literal["no", "yes"], "no"),
        (EXPONENT, str, "1e3"),
        (EXPONENT, float | None, 1000.0),
        ([TEN, NO, EXPONENT, NULL, "x"], list[str], ["010", "no", "1e3", "null", "x"]),
        ([TEN, NO], Parameter.empty, [8, False]),
        ({"a": TEN}, dict[str, str], {"a": "010"}),
        ({"a": TEN}, dict[str, int], {"a": 8}),
        ([1, 2], tuple[float, float], (1.0, 2.0)),
        (1, Annotated[float, SHARE] | None, 1.0),
        (None, str | None, None),
    ],
)
def test_what_is_asked_for_decides_how_a_scalar_is_read(
    value: Value, annotation: object, result: Value
) -> None:
    found = convert(value, annotation)
    assert found == result
    assert type(found) is type(result)


def test_a_scalar_is_shown_as_it_was_written() -> None:
    assert str(TEN) == "010"
    assert str([TEN, NO]) == "[010, no]"
    assert resolved({"a": [TEN, NO]}) == {"a": [8, False]}


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "an integer"),
        (int | None, "an integer or null"),
        (Annotated[float, POSITIVE] | None, "a number or null"),
        (list[str], "a list of texts, as in [a, b]"),
        (list, "a list, as in [a, b]"),
        (Literal["a", "b"] | None, "one of a, b or null"),
        (Parameter.empty, "a value"),
    ],
)
def test_an_annotation_in_words(annotation: object, words: str) -> None:
    assert describe(annotation).startswith(words)


def test_the_markers_of_every_number_of_a_value() -> None:
    assert [*numbers(3, Annotated[int, POSITIVE, ODD])] == [(3, [POSITIVE, ODD])]
    assert [*numbers(3, Annotated[int, ODD] | None)] == [(3, [ODD])]
    assert [*numbers(None, Annotated[int, ODD] | None)] == []
    assert [*numbers((0.9, 2.0), tuple[Annotated[float, SHARE], float])] == [(0.9, [SHARE]), (2.0, [])]
    assert [*numbers([1, 2], list[Annotated[int, ODD]])] == [(1, [ODD]), (2, [ODD])]
    assert [*numbers({"a": 1.5}, Parameter.empty)] == [(1.5, [])]
    assert [*numbers(True, bool)] == []


@pytest.mark.parametrize(
    ("marker", "good", "bad", "words"),
    [
        (POSITIVE, 1, 0, "must be above 0"),
        (SHARE, 0, 1, "must be at least 0 and below 1"),
        (ODD, 5, 4, "must be odd"),
        (Bound(at_least=0, below=2**63), 0, -1, "must be at least 0 and below 2**63"),
        (Bound(at_most=1, advice="it falls"), 1, 1.5, "must be at most 1; it falls"),
        (Divides("dim"), 4, 5, "must divide encoder.dim = 64"),
        (Divides("dim"), 64, 0, "must divide encoder.dim = 64"),
        (Divides("not_known"), 64, None, ""),
    ],
)
def test_a_rule_at_a_field(marker: Marker, good: float, bad: float | None, words: str) -> None:
    wires = {"dim": Wire("encoder.dim", 64)}
    assert marker.remedy(good, wires) == ""
    assert bad is None or marker.remedy(bad, wires).startswith(words)


def test_infinity_is_above_every_limit() -> None:
    assert POSITIVE.remedy(math.inf, {}) == ""


def test_a_close_word_else_all_there_is() -> None:
    assert did_you_mean("spam", ["span", "fill"]) == "; did you mean 'span'?"
    assert did_you_mean("zzz", ["span", "fill"]) == "; there is: fill, span"
    assert did_you_mean("zzz", []) == "; there is none"


def test_a_number_of_a_slot() -> None:
    assert number({"span": 3}, "span", 10) == 3
    assert number({"span": "x"}, "span", 10) == number({}, "span", 10) == 10

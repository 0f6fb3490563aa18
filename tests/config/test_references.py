import pytest

from seqssl.config.references import interpolate
from seqssl.config.values import Plain, Tree, Value

TREE: Tree = {"encoder": {"dim": Plain("64", 64), "taps": {"output": 4}}, "name": "x", "seed": 7}


def found(value: Value) -> Value:
    filled, problems = interpolate({**TREE, "quantizer": {"dim": value, "size": 3}})
    assert not problems
    quantizer = filled["quantizer"]
    assert isinstance(quantizer, dict)
    return quantizer["dim"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${encoder.dim}", Plain("64", 64)),
        ("${encoder[dim]}", Plain("64", 64)),
        ("${.size}", 3),
        ("${..encoder.dim}", Plain("64", 64)),
        ("runs/${name}-${seed}", "runs/x-7"),
        ("${encoder.taps}", {"output": 4}),
        ("no reference", "no reference"),
    ],
)
def test_a_value_stands_for_another(text: str, value: Value) -> None:
    assert found(text) == value


def test_references_in_lists_and_of_references() -> None:
    filled, problems = interpolate({"a": ["${b}", 1], "b": "${c}", "c": 5})
    assert filled == {"a": [5, 1], "b": 5, "c": 5} and not problems


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${encoder.dims}", "there is no key encoder.dims; did you mean 'encoder.dim'?"),
        ("${nothing}", "there is no key nothing"),
        ("${shell:ls}", "a recipe takes nothing from outside"),
        ("${oc.env:HOME}", "a recipe takes nothing from outside"),
        ("x ${ oc.decode:${name}}", "a recipe takes nothing from outside"),
        ("${quantizer.dim}", "leads back to itself"),
        ("${seed.more}", "is not a container"),
        ("${seed", "is no reference; write ${section.key}"),
    ],
)
def test_a_reference_that_leads_nowhere(text: str, words: str) -> None:
    filled, problems = interpolate({**TREE, "quantizer": {"dim": text, "size": 3}})
    ((key, value, remedy),) = problems
    assert (key, value) == ("quantizer.dim", text) and words in remedy
    assert filled["quantizer"] == {"size": 3}


def test_a_circle_ends() -> None:
    _, problems = interpolate({"a": "${b}", "b": "${a}"})
    assert len(problems) == 2 and all("leads back" in remedy for _, _, remedy in problems)

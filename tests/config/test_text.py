import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from seqssl.config import text
from seqssl.config.values import Plain, Value, convert, resolved


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("010", 8), ("no", False), ("off", False), ("1e3", 1000.0), ("1e-6", 1e-6), ("2_000", 2000),
        (".5", 0.5), ("-.inf", float("-inf")), ("true", True), ("12", 12),
    ],
)  # fmt: skip
def test_a_scalar_without_quotes_keeps_its_text(written: str, value: Value) -> None:
    found = text.read(f"a: {written}  # a comment\n")
    assert found == {"a": Plain(written, value)}  # type: ignore[arg-type]
    assert text.read(f"a: '{written}'") == {"a": written}


def test_a_date_is_a_text_and_nothing_is_nothing() -> None:
    assert text.read("a: 2024-01-02\nb:\nc: ~\nd: [null]") == {
        "a": "2024-01-02",
        "b": None,
        "c": None,
        "d": [Plain("null", None)],
    }


def test_what_is_read_belongs_to_the_reader() -> None:
    written = "a: [1, {b: 2}]"
    first = text.read(written)
    first["a"][1]["b"] = "changed"  # type: ignore[index,call-overload]
    first["c"] = 3  # type: ignore[index,call-overload]
    assert text.read(written) == {"a": [Plain("1", 1), {"b": Plain("2", 2)}]}


def test_keys_are_texts() -> None:
    assert text.read("{on: 1, 010: 2}") == {"on": Plain("1", 1), "010": Plain("2", 2)}


def test_anchors_and_merge_keys() -> None:
    read = text.read("base: &base {a: x, b: y}\nnew: {<<: *base, b: z}")
    assert read == {"base": {"a": "x", "b": "y"}, "new": {"a": "x", "b": "z"}}


@pytest.mark.parametrize(
    "written",
    ["a: 1\na: 2", "[1, 2]: 3", "a: !!python/object/apply:os.system [ls]", "a: !!set {b}", "a: ["],
)
def test_what_no_setting_can_be(written: str) -> None:
    with pytest.raises(yaml.YAMLError):
        text.read(written)


# PyYAML itself loses some characters that cannot be seen.
TEXTS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: (
        st.lists(inner.filter(lambda x: x is not None)) | st.dictionaries(TEXTS.filter(bool), inner)
    ),
)


@given(st.dictionaries(TEXTS.filter(bool), VALUES))
def test_what_is_written_is_read_again(tree: dict[str, Value]) -> None:
    assert resolved(text.read(text.write(tree))) == tree


@pytest.mark.parametrize("name", ["010", "no", "1e3", "null", "1:30", ".inf", "~", "2024-01-02", "${x}", ""])
def test_a_text_stays_one(name: str) -> None:
    read = text.read(text.write({"a": [name]}))
    assert isinstance(read, dict) and convert(read["a"], list[str]) == resolved(read["a"]) == [name]

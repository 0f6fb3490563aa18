import textwrap
from pathlib import Path
from typing import Protocol

import pytest

from seqssl.config import components, schema
from seqssl.errors import UserError

PART = """
    class Part:
        def __init__(
            self, dim: int, scale: float = 1.0, *, rate: float, name: str = "x", k: int | None = None
        ):
            self.dim, self.scale, self.rate, self.name, self.k = dim, scale, rate, name, k

    class Child(Part):
        pass

    class Computed:
        def __init__(self, *, size: int = 2 ** 4):
            self.size = size
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "strangers_part.py").write_text(textwrap.dedent(PART))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["Part", "Child", "Computed"])
def test_the_signature_in_the_source_is_that_of_the_class(here: Path, name: str) -> None:
    target = f"strangers_part:{name}"
    read = components.schema(components.signature(target, "mixer"))
    imported = components.schema(components.load(target, "mixer"))
    assert read == imported


FIELDS = [schema.hint_at(path) for path in schema.keys()]
KINDS = {schema.kind_of(hint) or schema.kind_of(schema.entries_of(hint)) for hint in FIELDS} - {None}


@pytest.mark.parametrize("kind", sorted(KINDS - {"condition", "task"}))
def test_every_shipped_component_is_found_and_its_source_agrees(kind: str) -> None:
    assert components.names(kind)
    for name in components.names(kind):
        read = components.schema(components.signature(name, kind))
        imported = components.schema(components.load(name, kind))
        assert list(read) == list(imported)
        assert [p.default for p in read.values()] == [p.default for p in imported.values()]


def test_wiring_is_positional_and_configuration_keyword_only(here: Path) -> None:
    part = components.construct({"target": "strangers_part:Part", "rate": 3}, "mixer", {"dim": 8, "other": 1})
    assert (part.dim, part.scale, part.rate, part.name) == (8, 1.0, 3.0, "x")
    assert isinstance(part.rate, float)


@pytest.mark.parametrize(
    ("slot", "wiring", "words"),
    [
        ({"rate": 1.0}, {}, "asks for 'dim'"),
        ({}, {"dim": 1}, "rate = None: missing"),
        ({"rate": "abc"}, {"dim": 1}, "rate = 'abc': expected a number"),
        ({"rate": 1, "nam": "y"}, {"dim": 1}, "did you mean 'name'"),
        ({"rate": 1, "dim": 3}, {"dim": 1}, "dim = 3: unknown key"),
        ({"rate": True}, {"dim": 1}, "expected a number"),
        ({"rate": 1, "k": 1.5}, {"dim": 1}, "expected an integer or null"),
    ],
)
def test_what_does_not_fit_is_named(here: Path, slot: dict, wiring: dict, words: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError, match=words):
        components.construct({"target": "strangers_part:Part", **slot}, "mixer", wiring)


class Measures(Protocol):
    """What a part is asked for here."""

    size: int

    def __call__(self) -> int: ...

    def measure(self) -> int: ...


def test_what_a_part_lacks_of_its_protocol_is_named(here: Path) -> None:
    slot = {"target": "strangers_part:Computed"}
    assert components.construct(slot, "mixer", {}).size == 16
    with pytest.raises(UserError, match=r"is no Measures: it lacks __call__, measure\."):
        components.construct(slot, "mixer", {}, Measures)


def test_what_a_constructor_refuses_is_the_users_to_mend() -> None:
    with pytest.raises(UserError, match="cannot be built: the quantizer's dim"):
        components.construct(
            {"target": "gumbel", "num_codebooks": 3, "dim": 16}, "quantizer", {"input_dim": 4}
        )


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("gumbl", "did you mean 'gumbel'"),
        ("nowhere_to_be_found:Thing", "there is no module 'nowhere_to_be_found'"),
        ("nowhere_to_be_found.deeper:Thing", "there is no module"),
        ("strangers_part:Prt", "did you mean 'Part'"),
    ],
)
def test_a_target_that_is_not_there(here: Path, target: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        components.signature(target, "quantizer")


def test_modules_of_the_current_folder_are_found_without_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_me.py").write_text(
        "class Part:\n    def __init__(self, *, k: int = 1) -> None: ...\n"
    )
    monkeypatch.chdir(tmp_path)
    assert list(components.schema(components.load("beside_me:Part", "mixer"))) == ["k"]

"""Signatures are read from source text: what they say is what the class takes, and nothing is run."""

import inspect
import textwrap
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Literal

import pytest

from seqssl import load_recipe
from seqssl.config import components, source
from seqssl.errors import UserError
from seqssl.model.bounds import ODD, POSITIVE, Bound, Divides

PARTS = """
    import os, typing
    from typing import Annotated, Literal, Optional, Protocol
    import seqssl.model.bounds as rules
    from seqssl.model.bounds import Bound, Divides, POSITIVE
    from .more import Elsewhere as Renamed
    from .nowhere import Lost

    SIZE = 2
    Norm = Literal["batch", "layer"]

    class Part:
        def __init__(
            self,
            dim: int,
            scale: float = 1.0,
            *,
            heads: Annotated[int, POSITIVE, Divides("dim")] = SIZE * 4,
            share: Annotated[float, Bound(at_least=0, below=1)] | None = None,
            kernel: "Annotated[int, rules.ODD]" = 5,
            norm: Norm = "batch",
            sizes: tuple[int, ...] = (1, 2),
            name: Optional[str] = None,
            kind: typing.Literal["a", "b"] = "a",
            thing: "os.PathLike" = None,
        ) -> None: ...

    class Child(Part):
        size = 3

    class Grandchild(Child, Protocol): ...

    class Plain: ...

    class Computed:
        def __init__(self, *, cores: int = len("x"), folder: str = os.sep) -> None: ...

    class Open(Part):
        def __init__(self, *, size: int = 1, **further: int) -> None: ...

    def decorate(cls): return cls

    @decorate
    class Decorated(Part): ...

    class OfTorch(os.PathLike): ...

    if True:
        class Hidden:
            def __init__(self, *, k: int = 1) -> None: ...
"""
TRAP = """
    from pathlib import Path

    Path("ran").touch()

    class Part:
        def __init__(self, *, k: int = Path("ran").touch() or 1, n: Path("ran").touch() = 2) -> None: ...

    class Unreadable:
        def __init__(self, **settings) -> None: ...
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "strange_package"
    package.mkdir()
    (package / "__init__.py").write_text("from strange_package.parts import Part as Part\n")
    (package / "parts.py").write_text(textwrap.dedent(PARTS))
    (package / "more.py").write_text("class Elsewhere:\n    def __init__(self, *, far: int) -> None: ...\n")
    for name in ("trap", "trapped/__init__", "trapped/part"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(TRAP))
    (tmp_path / "broken_part.py").write_text("class Part(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def read(name: str, module: str = "strange_package.parts") -> dict[str, Parameter] | None:
    found = components.signature(f"{module}:{name}", "mixer")
    return None if found is None else dict(found.parameters)


@pytest.mark.parametrize("name", ["Part", "Child", "Grandchild"])
def test_annotations_and_defaults(name: str) -> None:
    found = read(name)
    assert found is not None
    assert [*found][:2] == ["dim", "scale"] and found["scale"].default == 1.0
    expected = {
        "heads": (Annotated[int, POSITIVE, Divides("dim")], 8),
        "share": (Annotated[float, Bound(at_least=0, below=1)] | None, None),
        "kernel": (Annotated[int, ODD], 5),
        "norm": (Literal["batch", "layer"], "batch"),
        "sizes": (tuple[int, ...], (1, 2)),
        "name": (str | None, None),
        "kind": (Literal["a", "b"], "a"),
        "thing": (Parameter.empty, None),
    }
    assert {
        key: (p.annotation, p.default) for key, p in found.items() if p.kind is p.KEYWORD_ONLY
    } == expected


def test_a_class_is_followed_to_where_it_is_defined() -> None:
    again = read("Part", "strange_package")
    assert again is not None and again == read("Part")
    renamed = read("Renamed")
    assert renamed is not None and [*renamed] == ["far"]
    hidden = read("Hidden")
    assert hidden is not None and [*hidden] == ["k"]
    assert read("Plain") == {}


def test_public_names_of_seqssl_are_found() -> None:
    found = read("Conv1dStack", "seqssl")
    assert found is not None and "kernels" in found


@pytest.mark.parametrize("name", ["Open", "Decorated", "OfTorch", "Lost"])
def test_what_the_text_does_not_tell(name: str) -> None:
    assert read(name) is None


def test_a_computed_default_is_a_default_without_a_value() -> None:
    found = read("Computed")
    assert found is not None and found["cores"].default is source.NOT_TOLD
    assert components.defaults(found) == {}
    assert components.slot_problems({"target": "x"}, found) == {}


def test_a_module_that_is_no_python_has_no_text() -> None:
    assert source.read("math") is None and source.find("math") is not None
    assert source.find("strange_package.nothing") is None and source.find("math.deeper") is None


def test_what_cannot_be_parsed_is_told() -> None:
    with pytest.raises(UserError, match="SyntaxError"):
        read("Part", "broken_part")


@pytest.mark.parametrize("target", ["trap:Part", "trapped.part:Part", "trap:Unreadable"])
def test_to_read_a_recipe_runs_no_code_of_it(here: Path, target: str) -> None:
    config = load_recipe("base/w2vbert", "size=tiny", "data=x", "data.batch_frames=9", "modality=speech",
                         f"mixer={target}")  # fmt: skip
    assert config.mixer["target"] == target
    assert not (here / "ran").exists()


def test_the_shipped_parts_tell_all(here: Path) -> None:
    """Else a saved run would not hold their defaults."""
    for kind in ("modality", "feature_encoder", "masking", "quantizer", "mixer", "objective", "block",
                 "position", "input_norm", "feature_norm"):  # fmt: skip
        for name in components.names(kind):
            found = components.signature(name, kind)
            assert found is not None, name
            assert source.NOT_TOLD not in [p.default for p in found.parameters.values()]
            imported = inspect.signature(components.load(name, kind))
            assert [*found.parameters] == [*imported.parameters], name

"""The wheel, and the promises that pyproject.toml and constraints.txt make together."""

import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import seqssl

ROOT = Path(__file__).parents[1]


def run(*command: str, **options: object) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload]
    assert result.returncode == 0, result.stdout + result.stderr
    return str(result.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)
    )  # fmt: skip
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_packages_recipes_and_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in ("seqssl", "modalities")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected |= {
        f"seqssl/_recipes/{path.relative_to(ROOT / 'recipes').as_posix()}"
        for path in (ROOT / "recipes").rglob("*.yaml")
    }
    unpacked = {name for name in names if ".dist-info/" not in name}
    assert unpacked == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_installed_wheel_finds_recipes_and_entry_points(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    run(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile",
        "--disable-pip-version-check", "--target", str(site), str(wheel),
    )  # fmt: skip
    code = """
import seqssl
from importlib import metadata, util
print(seqssl.__file__)
assert seqssl.load_recipe("speech_w2vbert", "size=tiny").recipe == "speech_w2vbert"
distribution = metadata.distribution("seqssl")
for entry in distribution.entry_points:
    found = util.find_spec(entry.module)
    assert found and found.origin, entry
    print(found.origin)
"""
    lines = run(
        sys.executable, "-c", code, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}
    ).splitlines()
    assert len(lines) > 8
    assert all(Path(line).is_relative_to(site) for line in lines), lines


@pytest.mark.parametrize(
    "entry",
    [entry for entry in metadata.distribution("seqssl").entry_points],
    ids=lambda entry: f"{entry.group}:{entry.name}",
)
def test_entry_point_loads(entry: metadata.EntryPoint) -> None:
    assert callable(entry.load())


def test_versions_agree() -> None:
    assert metadata.version("seqssl") == seqssl.__version__


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_every_requirement_is_pinned_within_its_range() -> None:
    pinned = pins()
    for text in metadata.requires("seqssl") or []:
        requirement = Requirement(text)
        if requirement.name == "seqssl":
            continue
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"constraints.txt does not pin {requirement.name}"
        assert requirement.specifier.contains(version), f"{requirement} does not allow {version}"


def test_pins_are_what_is_installed() -> None:
    """Else the tests speak of other versions than the users get."""
    installed = {
        canonicalize_name(found.name): found.version.split("+")[0] for found in metadata.distributions()
    }
    wrong = {
        name: (pin, installed[name])
        for name, pin in pins().items()
        if name in installed and installed[name] != pin
    }
    assert not wrong, f"pinned and installed versions: {wrong}"

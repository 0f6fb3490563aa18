"""The shape of the code: who may import whom, what the core may not know, how long things may be."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("seqssl", "modalities")
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 350

MODALITY_WORDS = re.compile(
    r"audio|speech|phone|spoken|nucleotide|accelerom|gyroscop|wearable|weather|rainfall|melod|music"
    r"|genom|\bdna\b|16_?000|22_?050|44_?100",
    re.IGNORECASE,
)


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def copy_of_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_contracts_hold(copy_of_project: Path) -> None:
    result = lint_imports(copy_of_project)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("seqssl/model/masking.py", "import modalities.speech", "imports no adapter"),
        ("modalities/speech.py", "import seqssl.errors", "only public names"),
        ("modalities/speech.py", "from seqssl.model import masking", "only public names"),
        ("modalities/another.py", "import modalities.speech", "one another"),
        ("seqssl/model/masking.py", "from seqssl.config import schema", "Upper layers"),
        ("seqssl/data/shards.py", "def late():\n    import seqssl.training", "Upper layers"),
        ("seqssl/unplaced.py", "", "Upper layers"),
    ],
)
def test_a_seeded_violation_is_found(copy_of_project: Path, module: str, line: str, contract: str) -> None:
    path = copy_of_project / module
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        result = lint_imports(copy_of_project)
    finally:
        path.unlink() if before is None else path.write_text(before)
    assert result.returncode == 1, result.stdout
    assert re.search(rf"{contract}.* BROKEN", result.stdout), result.stdout


def test_adapters_may_import_public_names_and_checks(copy_of_project: Path) -> None:
    path = copy_of_project / "modalities/polite.py"
    path.write_text("from seqssl import Batch\nfrom seqssl.testing import check_adapter\n")
    try:
        result = lint_imports(copy_of_project)
    finally:
        path.unlink()
    assert result.returncode == 0, result.stdout


def test_core_names_no_modality() -> None:
    """Contracts cannot see strings; the words give them away. Data files (catalog.yaml) may name them.

    So may `interop`: other libraries' classes are called as they are.
    """
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources("seqssl")
        if path.parent.name != "interop"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if MODALITY_WORDS.search(line)
    ]
    assert not found, "\n".join(found)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_no_two_test_files_share_a_name() -> None:
    """Tests import one another's helpers by bare name, and pytest collects one module per name."""
    names = [path.name for path in sources("tests") if path.name != "conftest.py"]
    assert sorted(set(names)) == sorted(names)


def test_functions_and_files_stay_short() -> None:
    too_long = [
        f"{path.relative_to(ROOT)}: {name} has {size} lines, the ceiling is {MAX_FUNCTION_LINES}"
        for path in sources(*PACKAGES)
        for name, size in functions(path)
        if size > MAX_FUNCTION_LINES
    ]
    too_long += [
        f"{path.relative_to(ROOT)} has {size} lines, the ceiling is {MAX_FILE_LINES}"
        for path in sources(*PACKAGES)
        if (size := len(path.read_text().splitlines())) > MAX_FILE_LINES
    ]
    assert not too_long, "\n".join(too_long)


@pytest.mark.parametrize("module", ["seqssl", "seqssl.cli", "seqssl.config.compose", "seqssl.doctor"])
def test_import_is_cheap(module: str) -> None:
    """`seqssl --help` must not wait for torch."""
    heavy = "{'torch', 'pandas', 'matplotlib', 'sklearn', 'scipy', 'pyarrow'}"
    code = f"import sys, {module}; print(*sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "", f"import {module} also imports {result.stdout}"

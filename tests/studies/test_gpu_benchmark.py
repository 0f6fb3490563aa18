"""benchmarks/gpu.py keeps what it has measured, and why the rest failed."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
RUN = """#!/bin/sh
for word; do case $word in out=*) out=${word#out=};; esac; done
mkdir -p "$out"
echo '{"kind": "train", "step": STEP, "mfu": 0.5, "memory_mib": 2048}' >"$out/metrics.jsonl"
echo "the cause" >&2
echo "this is a bug; see above" >&2
END
"""


@pytest.fixture
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(sys.platform == "win32", reason="the run is a shell script")
@pytest.mark.parametrize(
    ("step", "end", "problem"),
    [(20, "exit 1", "the cause"), (20, "exec sleep 9", "not done"), (40, "exec sleep 9", "")],
)
def test_a_case_keeps_its_figures_and_its_problem(
    step: int, end: str, problem: str, gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "python"
    stub.write_text(RUN.replace("STEP", str(step)).replace("END", end))
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    found = gpu.step_of(("speech_w2vbert", "xl", False), tmp_path, "cuda", "data", 1.0)
    assert found["mfu"] == 0.5 and found["update"] == step
    assert problem in found.get("problem", "") and bool(problem) == ("problem" in found)
    assert "the cause" in (tmp_path / "runs" / "speech_w2vbert-xl.log").read_text()
    rest = {"device": "a GPU", "torch": "2", "date": "today", "log_mel": {}, "loader": [], "run": "none"}
    assert f"| 50% | 2.0 | {found.get('problem', '').replace('|', '/')} |" in gpu.page(
        rest | {"steps": [found]}
    )


def test_what_fails_is_written_beside_the_rest(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def failing() -> dict[str, float]:
        raise RuntimeError("no such kernel")

    assert gpu.tried(failing) == {"problem": "RuntimeError: no such kernel"}
    assert "Traceback" in capsys.readouterr().err

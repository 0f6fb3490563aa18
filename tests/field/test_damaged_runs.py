"""A damaged run folder: one message and exit code 2, or the earlier checkpoint; never a trace."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from field import seqssl
from toy import toy_arguments, toy_config, write_waves

from seqssl.runs.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run of a few updates, and its data; both are to be copied."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQSSL_CACHE", str(folder / "cache"))
        waves = write_waves(folder / "waves")
        train(toy_config(waves, folder / "run", "train.num_updates=6"))
    return folder / "run", waves


def last(folder: Path) -> Path:
    return sorted((folder / "checkpoints").glob("step-*"))[-1]


def state(folder: Path, change: Callable[[dict], object]) -> None:
    path = last(folder) / "state.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def each_wrong(value: object) -> Callable[[Path], None]:
    """Every number of the state is something else."""
    return lambda folder: state(
        folder, lambda s: s.update({k: value for k, v in s.items() if isinstance(v, int | float)})
    )


def lines(text: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / "metrics.jsonl"
        path.write_text(path.read_text() + text)

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "state is a list": lambda f: (last(f) / "state.json").write_text("[]"),
    "state is empty": lambda f: (last(f) / "state.json").write_text("{}"),
    "state is no json": lambda f: (last(f) / "state.json").write_text('{"step": '),
    "state is not UTF-8": lambda f: (last(f) / "state.json").write_bytes(b"\xff\xfe{}"),
    "numbers are texts": each_wrong("many"),
    "numbers are null": each_wrong(None),
    "numbers are lists": each_wrong([1]),
    "numbers are negative": each_wrong(-5),
    "numbers are huge": each_wrong(10**30),
    "groups are wrong": lambda f: state(f, lambda s: s.update(param_groups={"a": 1})),
    "no state": lambda f: (last(f) / "state.json").unlink(),
    "weights cut short": lambda f: (last(f) / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}"),
    "weights of nothing": lambda f: (last(f) / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}"),
    "no weights": lambda f: (last(f) / "model.safetensors").unlink(),
    "optimizer cut short": lambda f: (last(f) / "optimizer.safetensors").write_bytes(b"x" * 20),
    "all checkpoints gone": lambda f: shutil.rmtree(f / "checkpoints"),
    "a file for a folder": lambda f: (shutil.rmtree(last(f)), last(f).parent.joinpath("step-00000099").write_text("x")),
    "metrics of nulls": lines('{"kind": "train", "step": 3, "loss": null}\n{"kind": null, "step": 1}\nnull\n[]\n'),
    "metrics of texts": lines('{"kind": "train", "step": "x"}\n{"kind": "train", "step": 4, "loss": "a", "lr": {}}\n'),
    "metrics of other bytes": lambda f: (f / "metrics.jsonl").write_bytes(b"\xff\0\xfe" * 100),
    "metrics of huge numbers": lines('{"kind": "train", "step": 1e400, "loss": 1e999}\n{"kind": "valid", "step": -3}\n'),
    "no metrics": lambda f: (f / "metrics.jsonl").unlink(),
    "catalogue is a list": lambda f: (f / "catalogue.json").write_text("[1, 2]"),
    "catalogue of nulls": lambda f: (f / "catalogue.json").write_text('{"stats": null, "metrics": {"loss": null}}'),
    "configuration is a list": lambda f: (f / "config.yaml").write_text("- 1\n- 2\n"),
    "configuration is empty": lambda f: (f / "config.yaml").write_text(""),
    "configuration is no yaml": lambda f: (f / "config.yaml").write_text("a: [1\n b: }"),
    "configuration of nulls": lambda f: (f / "config.yaml").write_text("encoder: null\nmodality: null\ndata: null\n"),
    "provenance is a text": lambda f: (f / "config.yaml").write_text((f / "config.yaml").read_text().replace("provenance:", "provenance: x\nother:")),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_no_command_ends_in_a_trace(run: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run[0], copy)
    DAMAGES[name](copy)
    resume = toy_arguments(run[1], copy, "train.num_updates=6")
    for words in (["info", str(copy)], ["doctor", str(copy)], ["train", *resume]):
        done = seqssl(*words)
        assert done.code in (0, 2, 3), (words[0], done.said[-600:])
        assert "Traceback" not in done.said, (words[0], done.said[-600:])

"""What a run is said to take, and the size that a machine is given."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toy import toy_arguments, write_waves

from seqssl import cli, load_recipe
from seqssl.config.schema import RunConfig
from seqssl.data.shards import Manifest, Split
from seqssl.errors import UserError
from seqssl.planning import hardware, plan


def tiny(*overrides: str) -> RunConfig:
    return load_recipe("speech_w2vbert", "size=tiny", *overrides)


def test_devices_share_the_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "local_speeds", lambda: [hardware.Speed("here", 1e12, None)])
    result = plan.plan(load_recipe("speech_w2vbert", "size=xl"), devices=64, device="H100")
    lines = [line for line in result.estimates if line.device == "h100"]
    assert [line.devices for line in lines] == [1, 2, 4, 8, 16, 32, 64]
    assert {line.input_per_update for line in lines} == {65_536}
    assert lines[0].seconds == pytest.approx(64 * lines[-1].seconds)
    assert all(line.fits for line in lines)
    assert result.estimates[-1].fits is None
    assert not plan.plan(load_recipe("speech_w2vbert", "size=xl"), device="l4").estimates[0].fits


def test_an_unknown_gpu() -> None:
    with pytest.raises(UserError, match="did you mean 'h100'"):
        plan.plan(tiny(), device="h10o")


class FakeGpu:
    name = "a GPU"

    def __init__(self, total_memory: float) -> None:
        self.total_memory = total_memory


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, gib: float) -> None:
    monkeypatch.setattr(plan, "has_gpu", lambda: True)
    monkeypatch.setattr(plan, "num_cores", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: FakeGpu(gib * 2**30))


@pytest.mark.parametrize(
    ("gib", "expected"), [(80, "xl"), (34, "xl"), (33, "base"), (16, "base"), (1, "tiny")]
)
def test_auto_takes_the_first_size_that_the_gpu_holds(
    monkeypatch: pytest.MonkeyPatch, gib: float, expected: str
) -> None:
    needed = {"xl": 30, "xxl": 60, "base": 8, "small": 3, "tiny": 0.1}
    monkeypatch.setattr(
        plan, "cost_of", lambda config, waiting: SimpleNamespace(memory_bytes=needed[config.size] * 2**30)
    )
    on_a_gpu(monkeypatch, gib)
    assert load_recipe("speech_w2vbert").size == expected


def test_auto_passes_over_sizes_that_are_made_for_more_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, a large GPU got a size whose every update reads two hours of audio nine times."""
    monkeypatch.setattr(plan, "cost_of", lambda config, waiting: SimpleNamespace(memory_bytes=0))
    on_a_gpu(monkeypatch, 80)

    def chosen(hours: float) -> plan.Resolved:
        return plan.resolve("speech_w2vbert", amounts={"": round(hours * 3600 * 16_000)})

    assert [chosen(hours).config.size for hours in (100, 2, 0.5, 0.01)] == ["xl", "base", "small", "tiny"]
    assert "an update of xl, xxl would read more than all training rows" in chosen(2).note
    assert "an update" not in chosen(100).note
    splits = {"train": Split(num_rows=9, length=2 * 3600 * 16_000, hours=2.0)}
    manifest = Manifest("speech", {}, "", "", splits, [], 0)
    (tmp_path / "manifest.json").write_text(manifest.to_json())
    assert load_recipe("speech_w2vbert", f"data={tmp_path}").size == "base"
    monkeypatch.setenv("WORLD_SIZE", "4")  # ranks share an update
    assert load_recipe("speech_w2vbert", f"data={tmp_path}").size == "small"


def test_train_prepares_data_to_know_their_amount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trained(config: RunConfig, progress: object) -> None:
        raise UserError(f"it was to train {config.size}")

    on_a_gpu(monkeypatch, 80)
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(plan, "cost_of", lambda config, waiting: SimpleNamespace(memory_bytes=0))
    monkeypatch.setattr(hardware, "has_gpu", lambda: True)
    monkeypatch.setattr("seqssl.runs.train.train", trained)
    words = [
        text
        for text in toy_arguments(write_waves(tmp_path / "waves"), tmp_path / "run")
        if not text.startswith("size=")
    ]
    for accumulate, size in ((1, "xl"), (100, "tiny")):
        assert cli.main(["train", *words, f"train.accumulate={accumulate}"]) == 2
        assert f"it was to train {size}" in capsys.readouterr().err


def test_the_largest_gpus_hold_the_papers_model(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, 80)
    assert load_recipe("speech_w2vbert").size == "xl"


def test_auto_stays_on_the_cpu_when_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "has_gpu", lambda: True)
    monkeypatch.setattr(plan, "num_cores", lambda: 2)
    assert load_recipe("speech_w2vbert", "train.device=cpu").size == "tiny"


def test_the_tables_hold_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from seqssl.cli.tables import plan_tables

    monkeypatch.setattr(plan, "local_speeds", lambda: [hardware.Speed("here, float32", 1e11, None)])
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(plan_tables(plan.plan(load_recipe("speech_w2vbert", "size=xl"), devices=2)))
    text = console.export_text()
    for words in ("591.5M parameters", "65,536", "a100-80gb", "here, float32", "checkpointing"):
        assert words in text
    assert "…" not in text, "nothing is cut at 80 columns"


def test_matmul_speed_leaves_the_threads_alone() -> None:
    before = torch.get_num_threads()
    assert hardware.matmul_speed("float32", threads=1) > 1e6
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("name", "flops"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA A100-SXM4-40GB", 312e12), ("NVIDIA GeForce RTX 3060", None),
     ("NVIDIA L40S", 362e12), ("NVIDIA L4", 121e12), ("Something else", None)],
)  # fmt: skip
def test_peak_of_a_gpu_by_its_drivers_name(name: str, flops: Any) -> None:
    assert hardware.peak_flops(name) == flops

"""What a run is said to take, and the size that a machine is given."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from toy import toy_arguments, write_waves

from seqssl import cli, load_recipe
from seqssl.cli.planning import plan_tables
from seqssl.config.schema import RunConfig
from seqssl.data.shards import Manifest, Split
from seqssl.errors import UserError
from seqssl.planning import hardware, plan
from seqssl.planning.assumptions import Assumptions
from seqssl.planning.cost import Cost, cost_of
from seqssl.planning.sharding import load_of
from seqssl.studies import pace


def tiny(*overrides: str) -> RunConfig:
    return load_recipe("speech_w2vbert", "size=tiny", *overrides)


@pytest.fixture(scope="module")
def xl() -> Cost:
    return cost_of(load_recipe("speech_w2vbert", "size=xl"))


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch, xl: Cost) -> None:
    """This machine's speed is known, and the largest model is measured once."""
    monkeypatch.setattr(plan, "local_speeds", lambda: [hardware.Speed("here, float32", 1e11)])
    monkeypatch.setattr(plan, "cost_of", lambda config, waiting: xl)


def test_devices_share_the_micro_batches(fixed: None) -> None:
    config = load_recipe("speech_w2vbert", "size=xl")
    result = plan.plan(config, devices=64, device="H100")
    assert [(line.devices, line.accumulate) for line in result.fewer] == [(1, 128), (8, 16), (64, 2)]
    assert result.update_input == result.recipe_input == 65_536
    assert plan.plan(config, devices=256).update_input == 131_072
    first, *_, last = result.fewer
    assert first.compute == pytest.approx(64 * last.compute)
    assert first.seconds == pytest.approx(first.compute) and first.network == 0
    assert last.compute < last.seconds < last.compute + last.network
    assert all(line.fits for line in result.fewer)
    assert not any(
        choice.fits for choice in plan.plan(config, device="l4").choices if not choice.checkpointed
    )


def test_weights_may_be_whole_or_divided_in_a_machine_or_among_all(fixed: None) -> None:
    config = load_recipe("speech_w2vbert", "size=xl")

    def ways(devices: int, **assumed: float) -> list[int]:
        found = plan.plan(config, devices, assumed=Assumptions(**assumed))
        return [choice.shards for choice in found.choices if choice.checkpointed]

    assert ways(64) == [1, 8, 64]
    assert ways(64, devices_per_machine=4) == [1, 4, 64]
    assert ways(8) == [1, 8] and ways(1) == [1]
    assert ways(12) == [1, 12], "eight do not divide them"
    own = plan.plan(load_recipe("speech_w2vbert", "size=xl", "train.shards=16"), 64)
    assert [choice.shards for choice in own.choices if choice.checkpointed] == [1, 8, 16, 64]


@pytest.mark.parametrize(
    ("recipe", "setting", "words"),
    [
        ("speech_w2vbert", "optim.name=adafactor", "Adafactor's moments"),
        ("speech_data2vec", "size=tiny", "changes weights without a gradient"),
    ],
)
def test_what_cannot_be_divided_is_planned_whole(
    recipe: str, setting: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "local_speeds", lambda: [])
    found = plan.plan(load_recipe(recipe, "size=tiny", setting), devices=8)
    assert {choice.shards for choice in found.choices} == {1}
    assert words in found.why_whole


def test_data_are_heard_so_often(fixed: None) -> None:
    config = load_recipe("speech_w2vbert", "size=xl")
    heard = plan.plan(config, hours=60_000).heard
    assert heard is not None and heard.epochs == pytest.approx(400_000 * 65_536 / 3600 / 60_000)
    assert heard.update == pytest.approx(65_536 / 3600 / 60_000)
    assert (plan.plan(config, hours=10).heard or heard).update > 1
    with pytest.raises(UserError, match="hours = 0"):
        plan.plan(config, hours=0)


def test_hours_of_what_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "local_speeds", lambda: [])
    with pytest.raises(UserError, match="counted in input steps"):
        plan.plan(load_recipe("dna_w2vbert", "size=tiny"), hours=10)


# What an update took of an NVIDIA H200, GiB: docs/command-line.md, "What `plan` counts".
NEEDED = {"tiny": (0.152, 0.121), "small": (3.85, 1.16), "base": (12.24, 3.77), "xl": (33.0, 10.39)}


@pytest.mark.parametrize("size", NEEDED)
def test_memory_is_planned_as_it_was_measured(size: str) -> None:
    cost = cost_of(load_recipe("speech_w2vbert", f"size={size}", "train.precision=bfloat16"))
    for checkpointed, needed in zip((False, True), NEEDED[size], strict=True):
        load = load_of(cost, devices=1, shards=1, accumulate=1, checkpointed=checkpointed)
        assert load.total / 2**30 == pytest.approx(needed, rel=0.1)


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
    monkeypatch.setattr(plan, "needed_bytes", lambda config, waiting: needed[config.size] * 2**30)
    on_a_gpu(monkeypatch, gib)
    assert load_recipe("speech_w2vbert").size == expected


def test_auto_passes_over_sizes_that_are_made_for_more_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, a large GPU got a size whose every update reads two hours of audio nine times."""
    monkeypatch.setattr(plan, "needed_bytes", lambda config, waiting: 0)
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
    monkeypatch.setattr(plan, "needed_bytes", lambda config, waiting: 0)
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


def test_ranks_keep_a_second_copy_of_the_gradients(
    monkeypatch: pytest.MonkeyPatch, xl: Cost, fixed: None
) -> None:
    """Before, size=auto under torchrun took what did not fit."""
    config, waiting = load_recipe("speech_w2vbert", "size=xl"), plan.stage_of("speech_w2vbert")
    alone = plan.needed_bytes(config, waiting)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert plan.needed_bytes(config, waiting) == alone + xl.memory.gradients
    config.train.shards = 8
    assert plan.needed_bytes(config, waiting) < alone


@pytest.mark.parametrize("devices", [1, 2, 64])
@pytest.mark.parametrize("width", [80, 110])
def test_the_tables_hold_together(fixed: None, devices: int, width: int) -> None:
    found = plan.plan(load_recipe("speech_w2vbert", "size=xl"), devices, hours=60_000)
    text = shown(plan_tables(found), width)
    for words in ("591.5M parameters", "65,536", "a100-80gb", "here, float32", "The cheapest that fits"):
        assert words in text
    assert "121 times through 60,000 h" in " ".join(text.split())
    assert "…" not in text, "nothing is cut"


def shown(what: Any, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(what)
    return console.export_text()


def test_a_plan_with_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("devices=16", "devices_per_machine=4", "utilization=0.5", "link=20", "bandwidth=10", "overlap=0")
    assert cli.main(["plan", "recipe=speech_w2vbert", "size=tiny", "hours=1", *words]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for said in (*words[1:], "16 x a100-80gb", "An update that reads"):
        assert (said in text) == (said != "An update that reads")


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("utilization=0", "utilization = 0: must be above 0 and at most 1"),
        ("overlap=1.5", "overlap = 1.5: must be at least 0 and at most 1"),
        ("bandwidth=nan", "bandwidth = nan: must be above 0"),
        ("link=-1", "link = -1: must be above 0"),
        ("devices_per_machine=0", "devices_per_machine = 0: must be above 0"),
        ("measure=yes", "measure = yes: expected true or false"),
    ],
)
def test_what_cannot_be_assumed(argument: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "recipe=speech_w2vbert", "size=tiny", argument]) == 2
    assert problem in capsys.readouterr().err


def test_updates_of_a_real_run_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))
    words = toy_arguments(write_waves(tmp_path / "waves"), tmp_path / "run", "train.processes=1")
    assert cli.main(["plan", *words, "measure=true"]) == 0
    text = capsys.readouterr().out
    assert "here, float32" in text and "here, measured" in text
    assert not (tmp_path / "run").exists(), "it is no run of the user's"
    monkeypatch.setattr(pace, "LONGEST_S", 0.0)
    assert cli.main(["plan", *words, "measure=true"]) == 2
    assert "take a smaller size" in capsys.readouterr().err


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

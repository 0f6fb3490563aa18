"""Recipes of several stages: each is a run, none is made twice, and an interrupted one goes on."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import TOY, two_stages, write_waves

from seqssl import cli, load_recipe
from seqssl.config.schema import RunConfig
from seqssl.errors import UserError
from seqssl.model.types import Batch
from seqssl.runs.folder import load
from seqssl.runs.stages import train_stages
from seqssl.testing.harness import seeded
from seqssl.training.log import read_records

TINY = [*two_stages(TOY), "stages.first.train.num_updates=6"]


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    waves = write_waves(tmp_path / "waves")
    return ["recipe=base/hubert", "size=tiny", f"data={waves}", *TINY]


def test_a_recipe_of_two_stages_ends_with_the_last(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert cli.main(["train", *arguments, f"out={out}"]) == 0
    captured = capsys.readouterr()
    assert "Before it come other stages, runs of their own: first (stage=NAME shows one)" in captured.err
    told = captured.out
    assert told.index("stage 1 of 2: first") < told.index("clusters 5") < told.index("stage 2 of 2")
    first, last = out / "stages" / "first", out
    assert max(record["step"] for record in read_records(first / "metrics.jsonl")) == 6
    assert max(record["step"] for record in read_records(last / "metrics.jsonl")) == 12
    config = load_recipe(str(out))
    assert config.targets == {**(config.targets or {}), "target": "teacher_clusters", "run": str(first)}
    assert load(out).model.targets.centroids.shape == (6, 16)  # type: ignore[union-attr]
    assert load(first).model.targets.centroids.shape[0] == 5  # type: ignore[union-attr]
    random, trained = load(out, weights="random").model, load(out).model
    assert (random.targets.centroids == trained.targets.centroids).all(), "clusters are fitted, not learned"  # type: ignore[union-attr]
    assert (random.input_projection.weight != trained.input_projection.weight).any()
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    assert cli.main(["train", *arguments, f"out={out}"]) == 0
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()} == before
    exported = tmp_path / "exported"  # it is made of the stage before it, whose folder stays where it is
    assert cli.main(["export", f"run={out}", "to=safetensors", f"out={exported}"]) == 0
    assert (load(exported).model.input_projection.weight == trained.input_projection.weight).all()
    for command in ("info", "doctor"):
        assert cli.main([command, str(out)]) in (0, 3)


READING = [
    *(text for text in TINY if not text.startswith(("stages.", "targets."))),
    "feature_encoder={target: code_reader, dim: 16}",
    "stages.quantizer.quantizer={codebook_size: 6, dim: 8}",
    "stages.quantizer.encoder={dim: 16, num_layers: 2, taps: {output: 2}}",
    "stages.quantizer.train.num_updates=6",
]


@pytest.mark.parametrize("stop", [3, 9])
@pytest.mark.parametrize("method", ["hubert", "discretebert"])
def test_it_goes_on_at_stage_and_step(
    arguments: list[str], tmp_path: Path, method: str, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the first stage, or in the second: the metrics and weights are those of an unbroken run."""
    from seqssl.training.loop import Trainer

    if method == "discretebert":
        arguments = ["recipe=base/discretebert", "size=tiny", arguments[2], *READING]
    first = {"hubert": "first", "discretebert": "quantizer"}[method]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert cli.main(["train", *arguments, f"out={whole}"]) == 0
    step, done = Trainer.step, []

    def interrupted(self: Trainer, *rest: object) -> object:
        done.append(1)
        if len(done) == stop + 1:
            raise KeyboardInterrupt
        return step(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "step", interrupted)
    assert cli.main(["train", *arguments, f"out={broken}"]) == 130
    assert cli.main(["train", *arguments, f"out={broken}"]) == 0
    for part in (f"stages/{first}", "."):
        ours, theirs = load(broken / part).model.state_dict(), load(whole / part).model.state_dict()
        assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_stages_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stage = second: base/hubert has first"):
        load_recipe("base/hubert", "size=tiny", "modality=toy:Toy", "stage=second")
    with pytest.raises(UserError, match=r"stage = first: base/wav2vec2 has no stages"):
        load_recipe("base/wav2vec2", "size=tiny", "modality=toy:Toy", "stage=first")
    with pytest.raises(UserError, match=r"stages.frist: base/hubert has no such stage; did you mean .first."):
        load_recipe("base/hubert", "size=tiny", "modality=toy:Toy", "stages.frist.train.num_updates=6")
    with pytest.raises(UserError, match=r"stages.first: base/wav2vec2 has no such stage; there is none"):
        load_recipe("base/wav2vec2", "size=tiny", "modality=toy:Toy", "stages.first.train.num_updates=6")


def test_a_stage_that_was_not_run_is_said(arguments: list[str], tmp_path: Path) -> None:
    import seqssl

    name, *rest = arguments
    with pytest.raises(UserError, match=r"targets.run = stage:first stands for a stage that has not run"):
        seqssl.train(load_recipe(name.removeprefix("recipe="), *rest, f"out={tmp_path / 'x'}"))


def test_a_recipe_without_stages_is_its_own_last_one(tmp_path: Path) -> None:
    source = write_waves(tmp_path / "waves")
    config = train_stages("base/w2vbert", "size=tiny", f"data={source}", *TOY, f"out={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()
    assert config.out == str(tmp_path / "run")


def test_a_stage_may_be_given_more_when_its_turn_comes(arguments: list[str], tmp_path: Path) -> None:
    name, *rest = arguments
    asked: list[tuple[str, int]] = []

    def settings(stage: str, config: RunConfig) -> list[str]:
        asked.append((stage, config.train.num_updates))
        return ["stages.first.train.num_updates=3"]

    out = tmp_path / "run"
    for _ in range(2):
        train_stages(name.removeprefix("recipe="), *rest, f"out={out}", settings=settings)
        assert max(record["step"] for record in read_records(out / "stages/first/metrics.jsonl")) == 3
    assert asked == [("first", 6)] * 2


def test_too_few_frames_for_the_clusters_are_said(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the targets cannot be fitted: 99999 clusters need as many frames"):
        train_stages(
            arguments[0].removeprefix("recipe="), *arguments[1:], "stages.first.targets.num_clusters=99999",
            f"out={tmp_path / 'run'}",
        )  # fmt: skip


def test_a_stage_alone_is_one_run(arguments: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli.main(["train", *arguments, "stage=first", f"out={out}"]) == 0
    assert not (out / "stages").exists()
    assert max(record["step"] for record in read_records(out / "metrics.jsonl")) == 6


def test_a_plan_shows_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "recipe=base/discretebert",
        "size=tiny",
        "modality=toy:Toy",
        "data=.",
        "data.batch_frames=160",
    ]
    assert cli.main(["plan", *arguments]) == 0
    told = capsys.readouterr().out
    assert "vq_wav2vec, size tiny, stage quantizer" in told and "discretebert, size tiny:" in told
    assert told.count("Memory of each device") == 2


def test_a_stage_of_a_recipe_with_stages_is_refused() -> None:
    with pytest.raises(UserError, match=r"stages.quantizer.recipe = base/hubert: it has stages itself"):
        load_recipe("base/discretebert", "size=tiny", "modality=toy:Toy", "data=.", "data.batch_frames=160",
                    "stages.quantizer.recipe=base/hubert", "stage=quantizer")  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "stage"), [("speech_hubert", "first"), ("speech_discretebert", "quantizer")]
)
def test_a_stage_alone_lies_where_the_recipe_looks_for_it(recipe: str, stage: str) -> None:
    config = load_recipe(recipe, "size=tiny", f"stage={stage}")
    assert config.out == f"runs/{recipe}-tiny/stages/{stage}"
    assert load_recipe(recipe, "size=tiny", f"stage={stage}", "out=here").out == "here"


def test_a_finished_stage_holds_for_its_data_and_its_clusters_for_its_checkpoint(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before, a stage of other data was taken, and codes were made by whatever the teacher's newest was."""
    out = tmp_path / "run"
    checkpoints = out / "stages" / "first" / "checkpoints"
    assert cli.main(["train", *arguments, f"out={out}"]) == 0
    batch = Batch(torch.randn(1, 60, 2, generator=seeded(3)), torch.tensor([60]))

    def codes() -> list[list[list[int]]]:
        model = load(out).model
        frames = int(model.feature_encoder.output_lengths(batch.lengths)[0])
        return model.targets.codes_of(batch, frames).tolist()  # type: ignore[no-any-return, union-attr]

    before = codes()
    assert load(out).model.targets.origin[0] == 6  # type: ignore[union-attr]
    later = checkpoints / "step-00000009"
    shutil.copytree(checkpoints / "step-00000003", later)
    assert codes() == before, "of the update that the clusters were fitted to"
    kept = (checkpoints / "step-00000006").rename(tmp_path / "kept")
    with pytest.raises(UserError, match=r"step-00000006, to which these clusters were fitted, is gone"):
        codes()
    shutil.copytree(later, checkpoints / "step-00000006")
    with pytest.raises(UserError, match=r"its weights at update \d are not those that these clusters were"):
        codes()
    for path in (later, checkpoints / "step-00000006"):
        shutil.rmtree(path)
    kept.rename(checkpoints / "step-00000006")
    assert codes() == before
    np.save(tmp_path / "waves" / "group1" / "more.npy", np.ones((40, 2), np.float32))
    capsys.readouterr()
    assert cli.main(["train", *arguments, f"out={out}"]) == 2
    assert "stages/first was trained on other data" in capsys.readouterr().err

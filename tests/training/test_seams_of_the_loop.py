"""What the loop promises a task: one division by global counts, its own parameters, other runs' weights."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from test_runs import Killed, die_at, quiet_train
from torch import Tensor, nn
from toy import toy_config

import seqssl
from seqssl import Batch, Draws, Frames, Output, Plan, TransformerBlock, UserError, build_model
from seqssl.config.schema import OptimConfig, TemperatureConfig, TrainConfig
from seqssl.data.batching import numbers_of
from seqssl.runs.starting import starting_weights
from seqssl.training import checkpoint
from seqssl.training.loop import Settings, Trainer
from seqssl.training.optim import ParameterGroup
from seqssl.training.parallel import Alone


class Terms(nn.Module):
    """A linear map whose output is judged by a term for each step and a term for each row."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map, self.idle = nn.Linear(3, 2), nn.Linear(1, 1)


class TermsTask:
    """Counts input steps in one term, rows in another, and nothing at all in a third; no frame is masked."""

    def __init__(self) -> None:
        self.model = Terms()

    def plan(self, batch: Batch, draws: Draws) -> Plan:
        counts = {"steps": batch.lengths.sum(), "rows": torch.tensor(len(batch.lengths))}
        return Plan(counts | {"none": torch.tensor(0)})

    def step(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        valid = torch.arange(batch.inputs.shape[1]) < batch.lengths[:, None]
        y = self.model.map(batch.inputs) * valid[..., None]
        terms = {"steps": y[..., 0].square().sum(), "rows": y[..., 1].sum(1).tanh().sum(), "none": y.sum()}
        return Output(terms, {"steps": 1.0, "rows": 3.0, "none": 1.0})

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        return {"loss": 1.0}


class Rows:
    """Batches of some rows, the same ones again and again."""

    def __init__(self, *sizes: int) -> None:
        generator = torch.Generator().manual_seed(1)
        lengths = torch.tensor([5, 2, 4, 1, 3, 5])
        x = torch.randn(6, 5, 3, generator=generator)
        places = torch.arange(6).split(sizes)
        self.batches = [Batch(x[rows], lengths[rows], keys=[str(int(r)) for r in rows]) for rows in places]

    def endless(self, cursor: int, rank: int, world_size: int) -> Iterable[Batch]:
        while True:
            yield self.batches[cursor % len(self.batches)]
            cursor += 1

    def epoch_of(self, cursor: int) -> tuple[int, int]:
        return divmod(cursor, len(self.batches))


def train(task: TermsTask, rows: Rows, run: Path, num_updates: int = 3) -> dict[str, Tensor]:
    run.mkdir()
    settings = Settings(
        train=TrainConfig(num_updates=num_updates, accumulate=len(rows.batches), log_every=1),
        optim=OptimConfig(name="adam", lr=0.1, schedule="constant", warmup_updates=1),
        temperature=TemperatureConfig(),
    )
    Trainer(settings, task, rows, lambda: [], run, torch.device("cpu")).fit()
    return {name: x.clone() for name, x in task.model.state_dict().items()}


def test_the_speed_after_a_resume_is_of_what_was_done_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the first record counted what the process before had done, too, in no time."""
    clock = [0.0]  # seconds; an update takes one, and sees 20 steps
    monkeypatch.setattr("seqssl.training.loop.time", SimpleNamespace(monotonic=lambda: clock[0]))

    class Timed(TermsTask):
        def after_update(self) -> None:
            clock[0] += 1

    settings = Settings(
        train=TrainConfig(num_updates=6, log_every=4, save_every=3, eval_every=6, trackers=[]),
        optim=OptimConfig(lr=0.1, warmup_updates=1),
        temperature=TemperatureConfig(),
    )
    (tmp_path / "run").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        die_at(3, patch)
        with pytest.raises(Killed):
            Trainer(settings, Timed(), Rows(6), lambda: [], tmp_path / "run", torch.device("cpu")).fit()
    Trainer(settings, Timed(), Rows(6), lambda: [], tmp_path / "run", torch.device("cpu")).fit()
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["throughput/inputs_per_s"] for line in lines if line["kind"] == "train"] == [20, 20]


def test_micro_steps_equal_one_big_step_whatever_a_term_counts(tmp_path: Path) -> None:
    """Before, micro-steps weighed by their masked frames: here there are none, and the gradient was 0."""
    whole = train(TermsTask(), Rows(6), tmp_path / "whole")
    parts = train(TermsTask(), Rows(1, 3, 2), tmp_path / "parts")
    start = TermsTask().model.state_dict()
    assert not torch.equal(whole["map.weight"], start["map.weight"])
    assert torch.equal(whole["idle.weight"], start["idle.weight"])
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-5, atol=1e-5)
    lines = [json.loads(line) for line in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()]
    other = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    for one, two in zip(lines, other, strict=True):
        if one["kind"] == "train":
            assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
            assert one["loss"] == pytest.approx(one["loss/steps"] + 3 * one["loss/rows"], rel=1e-5)


def test_a_task_may_give_its_parameters_rates_of_their_own(tmp_path: Path) -> None:
    class Slow(TermsTask):
        def parameter_groups(self) -> list[ParameterGroup]:
            weight, bias = self.model.map.parameters()
            return [
                ParameterGroup(params=[weight], lr_scale=0.1),
                ParameterGroup(params=[bias], lr_scale=1.0),
            ]

    before = TermsTask().model.state_dict()
    after = train(Slow(), Rows(6), tmp_path / "run", num_updates=1)
    moved = {name: float((after[name] - before[name]).abs().max()) for name in after}
    assert moved["map.weight"] == pytest.approx(0.01, rel=1e-3)  # the first step of Adam is the rate itself
    assert moved["map.bias"] == pytest.approx(0.1, rel=1e-3)
    assert moved["idle.weight"] == 0


class OldMixer(nn.Module):
    """A mixer as all were before frames had times and conditions."""

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return (x * valid[..., None]).sum(1, keepdim=True).expand_as(x)


def test_a_mixer_that_takes_valid_works_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match=r"OldMixer takes `valid`.*seqssl.Frames"):
        block = TransformerBlock(OldMixer(), 4, ffn_dim=8)
    x, valid = torch.randn(2, 3, 4), torch.tensor([[True, True, False], [True, True, True]])
    y = block(x, Frames(valid))
    garbage = torch.where(valid[..., None], x, 100.0)
    torch.testing.assert_close(block(garbage, Frames(valid))[valid], y[valid])


def test_weights_of_another_run(waves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = quiet_train(waves, tmp_path / "first")
    other = toy_config(waves, tmp_path / "second", f"init={first.out}", "quantizer.codebook_size=5")
    said: list[str] = []
    seqssl.train(other, say=said.append)
    lines = [line for line in said if line.startswith("init: ")]
    assert "tensors are those of" in lines[0] and "step-00000012" in lines[0]
    assert any("of another shape there" in line and "targets.quantizer.codebook" in line for line in lines)
    model = build_model(other)
    starting_weights(model, str(first.out))
    trained = load_file(first.out / "checkpoints/step-00000012/model.safetensors")
    assert torch.equal(model.input_projection.weight, trained["input_projection.weight"])
    fresh = build_model(other)
    assert torch.equal(model.targets.quantizer.codebook, fresh.targets.quantizer.codebook)
    with pytest.raises(UserError, match="none of its weights fits"):
        starting_weights(nn.Linear(2, 2), str(first.out))
    with pytest.raises(UserError, match="is no run"):
        starting_weights(model, str(waves))


def test_a_run_of_format_1_is_opened_and_goes_on(waves: Path, tmp_path: Path) -> None:
    """The quantizer stood beside the targets, and sums had other names."""
    run = quiet_train(waves, tmp_path / "run")
    whole = seqssl.load(run.out).model.state_dict()
    folder = run.out / "checkpoints/step-00000012"
    weights = load_file(folder / "model.safetensors")
    old = {name.replace("targets.quantizer.", "quantizer."): x for name, x in weights.items()}
    assert old.keys() != weights.keys()
    save_file(old, folder / "model.safetensors")
    state = json.loads((folder / "state.json").read_text())
    state |= {"format": 1, "window": {"|contrastive:total": 3.0}}
    del state["tally"]
    (folder / "state.json").write_text(json.dumps(state))
    opened = seqssl.load(run.out).model.state_dict()
    assert all(torch.equal(opened[name], x) for name, x in whole.items())
    again = quiet_train(waves, run.out)
    assert again.metrics["loss"] == pytest.approx(run.metrics["loss"], rel=1e-6)
    assert yaml.safe_load((run.out / "config.yaml").read_text())["targets"] is None
    saved = checkpoint.read(folder)
    assert saved.format == 1 and saved.state["tally"] == {}


@pytest.mark.parametrize(
    ("shift", "scale", "own"), [(0.0, 1.0, False), (0.5, 1.5, False), (5.0, 1.0, True), (0.0, 6.0, True)]
)
def test_data_that_lie_elsewhere_keep_their_own_scaling(
    shift: float, scale: float, own: bool, waves: Path, tmp_path: Path
) -> None:
    """Of other units, say: the scaling of the run before would send them far off."""
    first = quiet_train(waves, tmp_path / "first", "input_norm=channel")
    model = build_model(toy_config(waves, tmp_path / "second", "input_norm=channel"))
    saved = build_model(first_config := toy_config(waves, tmp_path / "first", "input_norm=channel"))
    saved.load_state_dict(load_file(first.out / "checkpoints/step-00000012/model.safetensors"), strict=False)
    assert first_config.input_norm == {"target": "channel"}
    there: Any = saved.input_norm
    here: Any = model.input_norm
    here.set((there.mean + shift * there.std).tolist(), (there.std * scale).tolist())
    before = here.mean.clone()
    lines = starting_weights(model, str(first.out))
    assert any("scaled by their own mean" in line for line in lines) == own
    assert not any("drawn anew" in line and "input_norm" in line for line in lines)
    torch.testing.assert_close(here.mean, before if own else there.mean)
    fresh: Any = build_model(toy_config(waves, tmp_path / "third", "input_norm=channel"))
    starting_weights(fresh, str(first.out))
    torch.testing.assert_close(fresh.input_norm.mean, there.mean, msg="without statistics, those of the run")


def test_clusters_of_the_run_before_are_kept(waves: Path, tmp_path: Path) -> None:
    """The heads of that run know them by number."""
    own = ("targets={target: clusters, num_clusters: 5}", "objectives.contrastive=null",
           "objectives.diversity=null", "encoder.taps={output: 2}")  # fmt: skip
    first = quiet_train(waves, tmp_path / "first", *own)
    said = list[str]()
    second = seqssl.train(
        toy_config(waves, tmp_path / "second", *own, f"init={first.out}", "seed=7"), say=said.append
    )
    assert any(line.startswith("targets: those of") for line in said)
    assert not any("drawn anew" in line and "centroids" in line for line in said)
    assert not any("targets fitted" in line for line in said)
    saved = [load_file(run.out / "checkpoints/step-00000012/model.safetensors") for run in (first, second)]
    assert torch.equal(*(each["targets.centroids"] for each in saved))


class Measured(TermsTask):
    """Gives the held-out metrics of a list, one after the other, and then the last again and again."""

    def __init__(self, *found: dict[str, float]) -> None:
        super().__init__()
        self.found = list(found)

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        return self.found.pop(0) if len(self.found) > 1 else self.found[0]


def judged(task: TermsTask, run: Path, keep_best: str) -> Trainer:
    run.mkdir(exist_ok=True)
    settings = Settings(
        train=TrainConfig(num_updates=6, log_every=1, eval_every=2, keep_best=keep_best, trackers=[]),
        optim=OptimConfig(lr=0.1, warmup_updates=1),
        temperature=TemperatureConfig(),
    )
    return Trainer(settings, task, Rows(6), lambda: [], run, torch.device("cpu"), quiet=True)


def best_of(run: Path) -> float:
    return float(json.loads((run / "checkpoints/best/state.json").read_text())["best"])


def test_a_metric_that_is_missing_now_and_then_ends_no_run(tmp_path: Path) -> None:
    """A probe that is not finite, say."""
    task = Measured({"loss": 1.0, "good": 2.0}, {"loss": 1.0}, {"loss": 1.0, "good": 3.0})
    judged(task, tmp_path / "run", "max:good").fit()
    assert best_of(tmp_path / "run") == -3
    task = Measured({"loss": 1.0, "good": 2.0}, {"loss": 1.0})
    judged(task, tmp_path / "other", "min:good").fit()
    assert best_of(tmp_path / "other") == 2


def test_a_metric_that_never_comes_ends_the_run_when_it_is_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"min:goood: there is no such held-out metric; there is good, loss"):
        judged(Measured({"loss": 1.0, "good": 2.0}), tmp_path / "run", "min:goood").fit()
    assert (tmp_path / "run/checkpoints/step-00000002/model.safetensors").exists()
    with pytest.raises(UserError, match="maximum:loss: expected min:NAME or max:NAME"):
        judged(TermsTask(), tmp_path / "other", "maximum:loss").fit()


def test_a_metric_that_came_before_a_resume_is_known_after_it(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        die_at(3, patch)
        with pytest.raises(Killed):
            trainer = judged(Measured({"loss": 1.0, "good": float("nan")}), tmp_path / "run", "max:good")
            trainer.settings.train.save_every = 3
            trainer.fit()
    judged(Measured({"loss": 1.0}), tmp_path / "run", "max:good").fit()


def test_a_halt_says_why_even_where_nothing_can_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: Any, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    trainer = judged(TermsTask(), tmp_path / "run", "min:loss")
    trainer.settings = replace(trainer.settings, health="halt")
    trainer.observe = lambda record: ["loss: it is bad"]
    with pytest.raises(UserError, match="the disk is full") as caught:
        trainer.fit()
    assert "halted at update 1 by health=halt:\nloss: it is bad" in str(caught.value)


class Numbered(Rows):
    """Notes the numbers of the batches that a rank takes."""

    def endless(self, cursor: int, rank: int, world_size: int) -> Iterable[Batch]:
        self.taken: list[int] = []
        for number in numbers_of(cursor, rank, world_size, 1):
            self.taken.append(number)
            yield self.batches[0]


def test_an_update_begins_at_a_multiple_of_its_size_after_a_resume_with_another(tmp_path: Path) -> None:
    """Batches in a row are of one stream from there: before, ranks had different ones in the same step."""

    def taken(run: Path, rank: int, size: int, accumulate: int, num_updates: int) -> list[int]:
        one, data = judged(TermsTask(), run, "min:loss"), Numbered(6)
        one.settings.train.num_updates, one.settings.train.accumulate = num_updates, accumulate
        one.data, one.parallel = data, Alone()
        one.parallel.rank, one.parallel.size = rank, size
        one.fit()
        return data.taken

    assert taken(tmp_path / "run", 0, 6, 1, 5) == [0, 6, 12, 18, 24]
    for rank in range(4):  # 30 batches are done, and an update has 8 now: four updates of 8 are 32
        copy = shutil.copytree(tmp_path / "run", tmp_path / f"copy{rank}")
        assert taken(copy, rank, 4, 2, 7) == [number + rank for number in (32, 36, 40, 44)]
    assert taken(tmp_path / "run", 0, 6, 1, 7) == [30, 36], "an update of the same size goes on as it was"

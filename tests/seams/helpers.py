"""Runs of the toy modality with a part of a user's own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from toy import Toy, toy_arguments

import seqssl
from seqssl import Batch, Task
from seqssl.assembly import streams_of
from seqssl.config.schema import OptimConfig, RunConfig, TemperatureConfig, TrainConfig
from seqssl.runs.streams import held_out, opened
from seqssl.training.log import read_records
from seqssl.training.loop import Settings, Trainer
from seqssl.training.parallel import Alone


def config_of(source: Path, out: Path, *overrides: str) -> RunConfig:
    """The toy's configuration; the settings of a slot that is given anew are left out."""
    new = tuple(f"{override.partition('=')[0]}." for override in overrides)
    kept = [argument for argument in toy_arguments(source, out) if not argument.startswith(new)]
    return seqssl.load_recipe(kept[0].removeprefix("recipe="), *kept[1:], *overrides)


def train(source: Path, out: Path, *overrides: str) -> list[dict[str, float]]:
    """A run of a few updates; its records of training."""
    seqssl.train(config_of(source, out, *overrides), say=lambda text: None)
    return records(out, "train")


def records(out: Path, kind: str) -> list[dict[str, float]]:
    """The records of a run."""
    return [dict(each) for each in read_records(out / "metrics.jsonl") if each["kind"] == kind]


def weights(out: Path) -> dict[str, Tensor]:
    """What a run has learned."""
    return load_file(sorted((out / "checkpoints").glob("step-*"))[-1] / "model.safetensors")


def batch_of(config: RunConfig) -> Batch:
    """The largest held-out batch."""
    streams = [opened(s, Alone(), torch.device("cpu"), lambda *_: None) for s in streams_of(config)]
    return max(held_out(streams, seed=0), key=lambda batch: len(batch.lengths))


def rows_of(batch: Batch, *sizes: int) -> list[Batch]:
    """A batch in parts of so many rows, labels and all."""
    parts = torch.arange(sum(sizes)).split(sizes)
    labels, keys = batch.labels or (), batch.keys
    return [
        Batch(
            batch.inputs[rows, : int(batch.lengths[rows].max())],
            batch.lengths[rows],
            labels=tuple(labels[row] for row in rows.tolist()),
            keys=[keys[row] for row in rows.tolist()],
        )
        for rows in parts
    ]


@dataclass
class Again:
    """The same batches again and again."""

    batches: Sequence[Batch]

    def endless(self, cursor: int, rank: int, world_size: int) -> Iterable[Batch]:
        while True:
            yield self.batches[cursor % len(self.batches)]
            cursor += 1

    def epoch_of(self, cursor: int) -> tuple[int, int]:
        return divmod(cursor, len(self.batches))


def train_on(task: Task, batches: Sequence[Batch], run: Path) -> dict[str, Tensor]:
    """One update from all of these micro-batches; the weights after it."""
    run.mkdir()
    settings = Settings(
        train=TrainConfig(num_updates=1, accumulate=len(batches), log_every=1),
        optim=OptimConfig(name="adam", lr=0.01, eps=1e-3, schedule="constant", warmup_updates=1),
        temperature=TemperatureConfig(),
    )
    Trainer(settings, task, Again(batches), lambda: [], run, torch.device("cpu")).fit()
    return {name: x.clone() for name, x in task.model.state_dict().items()}


class Spelled(Toy):
    """The label of a row is the name of its file, letter by letter."""

    def records(self, source: Path, split: str):  # type: ignore[no-untyped-def]
        for record in super().records(source, split):
            yield seqssl.Record(record.key, record.read, record.group, Path(record.key).stem)

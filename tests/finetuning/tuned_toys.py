"""Toy waves with labels, segments and texts, and runs tuned on them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from toy import Toy, read_wave, toy_arguments

import seqssl
from seqssl import Record, Sample, Segment, train
from seqssl.runs.finetune import configuration
from seqssl.runs.train import Run

FAST = (
    "train.num_updates=40",
    "train.eval_every=20",
    "train.save_every=20",
    "train.log_every=10",
    "optim.warmup_updates=4",
    "optim.lr=0.01",
)


def silent(text: str) -> None:
    pass


def write_labelled(folder: Path, *, num_rows: int = 24, num_groups: int = 3, spread: float = 0.1) -> Path:
    """Waves of four frequencies, each label in every group: `group/label_number.npy`."""
    rng = np.random.default_rng(0)
    for row in range(num_rows):
        steps = np.arange(36 + row % 9)[:, None]
        wave = np.sin(steps * (0.15 + 0.35 * (row % 4)) + np.array([0, 1]) + rng.uniform(0, 6))
        path = folder / f"group{row // 4 % num_groups}" / f"{'abcd'[row % 4]}_{row:02}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, (wave + spread * rng.normal(size=wave.shape)).astype(np.float32))
    return folder


class Labelled(Toy):
    """Toy waves; the label of a row is what `kind` says, from the letter that its name begins with."""

    def __init__(self, *, kind: str = "letter", jitter: float = 0.01) -> None:
        super().__init__(jitter=jitter)
        self.kind = kind

    def records(self, source: Path, split: str) -> Iterator[Record]:
        for path in sorted(source.rglob("*.npy")):
            key = path.relative_to(source).as_posix()
            letter, _, number = path.stem.partition("_")
            label = {
                "letter": letter,
                "number": f"{'abcdz'.index(letter) * 1.5 - 2}",
                "text": f"{letter} {letter}{letter}",
                "two": f"{'kind' if int(number) % 2 else 'other'}/{letter}",
                "long": letter * 60,
                "gaps": letter if int(number) % 4 else " ",
                "word": "no number",
            }[self.kind]
            yield Record(key, partial(read_wave, path), path.parent.name, label)


class Segmented(Toy):
    """Toy waves that begin with silence: segments say where the wave is."""

    def __init__(self, *, beyond: bool = False, kinds: bool = False) -> None:
        super().__init__(jitter=0.0)
        self.beyond, self.kinds = beyond, kinds

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        sample = super().load(row, rng)
        values, half = sample.values.copy(), len(sample.values) // 2
        values[:half] *= 0.05
        names = ("x/quiet", "y/loud") if self.kinds else ("quiet", "loud")
        end = len(values) + (5 if self.beyond else 0)
        return replace(
            sample, values=values, segments=(Segment(0, half, names[0]), Segment(half, end, names[1]))
        )


def pretrain(source: Path, out: Path, *overrides: str, modality: str = "tuned_toys:Labelled") -> Path:
    """A few updates of pre-training."""
    arguments = [text for text in toy_arguments(source, out) if not text.startswith("modality=")]
    config = seqssl.load_recipe(
        arguments[0].removeprefix("recipe="), *arguments[1:], f"modality={modality}", *overrides
    )
    train(config, say=lambda text: None)
    return out


def tune(
    run: Path, task: str, out: Path, *overrides: str, say: Callable[[str], None] = silent, **settings: Any
) -> Run:
    """A tuned run."""
    config = configuration(run, task, *FAST, *overrides, out=str(out), **settings)
    return train(config, say=say)

"""A whole modality in small: two-channel waves of a few frequencies. For tests of training end to end."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqssl import Conv1dStack, Record, Sample, SampleSpec, TokenEncoder, load_recipe
from seqssl.config.schema import RunConfig


def read_wave(path: Path) -> dict[str, object]:
    values = np.load(path)
    return {"length": len(values), "values": values.ravel()}


class Toy:
    """Reads folders of .npy files of shape (t, 2); the folder is the group."""

    def __init__(self, *, jitter: float = 0.01) -> None:
        self.jitter = jitter
        self.spec = SampleSpec(dtype="float32", units="one", channels=2, rate_hz=10.0)

    def records(self, source: Path, split: str) -> Iterator[Record]:
        for path in sorted(source.rglob("*.npy")):
            yield Record(
                path.relative_to(source).as_posix(), partial(read_wave, path), path.parent.name, path.stem[:1]
            )

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        values = np.asarray(row["values"], np.float32).reshape(-1, 2)
        if rng is not None:
            values = values + rng.normal(0, self.jitter, values.shape).astype(np.float32)
        return Sample(values, label=row["label"], group=row["group"])

    def feature_encoder(self, dim: int) -> Conv1dStack:
        return Conv1dStack(2, dim=12, kernels=(4, 2), strides=(2, 2))


class Drawing(Conv1dStack):
    """The same feature encoder, which draws its inputs by a buffer, as a spectrogram is drawn."""

    shade: Tensor

    def __init__(self) -> None:
        super().__init__(2, dim=12, kernels=(4, 2), strides=(2, 2))
        self.register_buffer("shade", torch.ones(2), persistent=False)

    def picture(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        return inputs * self.shade


class Pictured(Toy):
    """The same rows, seen as pictures."""

    def feature_encoder(self, dim: int) -> Drawing:
        return Drawing()


def write_waves(folder: Path, *, num_rows: int = 20, constant: bool = False) -> Path:
    """Waves of 30 to 70 steps; `constant` makes every value the same."""
    rng = np.random.default_rng(0)
    for row in range(num_rows):
        steps = np.arange(30 + 2 * row)[:, None]
        wave = np.sin(steps * (0.1 + 0.3 * (row % 4)) + np.array([0, 1])) + 0.1 * rng.normal(
            size=(len(steps), 2)
        )
        path = folder / f"group{row % 2}" / f"{'abcd'[row % 4]}{row:02}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.ones_like(wave).astype(np.float32) if constant else wave.astype(np.float32))
    return folder


TOY = [
    "modality=toy:Toy",
    "data.split_by=record",
    "data.valid_share=0.2",
    "data.batch_frames=160",
    "masking.start_prob=0.1",
    "masking.span=3",
    "quantizer.codebook_size=8",
    "quantizer.dim=16",
    "mixer.num_heads=2",
    "encoder.num_layers=2",
    "encoder.dim=16",
    "encoder.ffn_dim=16",
    "encoder.conv_kernel=3",
    "encoder.conv_norm=layer",
    "encoder.position_kernel=4",
    "encoder.position_groups=2",
    "encoder.taps={contrastive: 1, output: 2}",
    "optim.lr=0.003",
    "optim.warmup_updates=4",
    "train.precision=float32",
    "train.num_updates=12",
    "train.log_every=2",
    "train.eval_every=4",
    "train.save_every=3",
]


def toy_arguments(source: Path, out: Path, *overrides: str) -> list[str]:
    """Command-line arguments of a tiny run."""
    return ["recipe=base/w2vbert", "size=tiny", f"data={source}", f"out={out}", *TOY, *overrides]


def toy_config(source: Path, out: Path, *overrides: str) -> RunConfig:
    """Its configuration."""
    name, *rest = toy_arguments(source, out, *overrides)
    return load_recipe(name.removeprefix("recipe="), *rest)


def read_letters(path: Path) -> dict[str, object]:
    text = path.read_text().strip()
    return {"length": len(text), "ids": np.frombuffer(text.encode(), np.uint8) - ord("a")}


class Letters:
    """Reads .txt files of the letters a to d, where e stands for an unknown letter."""

    def __init__(self, *, stride: int = 2) -> None:
        self._stride = stride
        self.spec = SampleSpec(dtype="int64", units="letter", vocab_size=5, symbols="abcd?", missing_id=4)

    def records(self, source: Path, split: str) -> Iterator[Record]:
        for path in sorted(source.rglob("*.txt")):
            name = path.relative_to(source).as_posix()
            yield Record(name, partial(read_letters, path), path.parent.name, path.stem[:1])

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        ids = np.asarray(row["ids"], np.int64)
        return Sample(ids, label=row["label"], group=row["group"], observed=ids < 4)

    def feature_encoder(self, dim: int) -> TokenEncoder:
        return TokenEncoder(5, dim=12, embedding_dim=8, kernel=3, stride=self._stride)


def write_letters(folder: Path, *, num_rows: int = 20) -> Path:
    """Rows of 30 to 70 letters in runs, each of its own rhythm; a few are unknown."""
    rng = np.random.default_rng(1)
    for row in range(num_rows):
        ids = (np.arange(30 + 2 * row) // (1 + row % 3) + rng.integers(0, 2, 30 + 2 * row)) % 4
        ids[3 : 3 + row % 5] = 4
        path = folder / f"group{row % 2}" / f"{'xyz'[row % 3]}{row:02}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join("abcde"[i] for i in ids))
    return folder


def two_stages(overrides: list[str]) -> list[str]:
    """Small settings of HuBERT's two stages: those of other recipes, with its own parts."""
    others = ("quantizer", "encoder.conv", "encoder.ffn", "encoder.taps")
    return [
        *(text for text in overrides if not text.startswith(others)),
        "encoder.block.ffn_dim=16",
        "encoder.taps={output: 2}",
        "feature_encoder=null",
        "objectives.masked_prediction.final_dim=8",
        "stages.first.targets.num_clusters=5",
        "targets.num_clusters=6",
        "targets.tap=layer1",
    ]

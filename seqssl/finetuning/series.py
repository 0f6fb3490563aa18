"""Tasks about the series itself: what comes next, and what is missing."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated
from zlib import crc32

import numpy as np
import torch
from torch import Generator, Tensor

from seqssl.config.schema import FinetuneConfig
from seqssl.config.text import matches
from seqssl.data.windows import Windowed, last_windows, windows_of
from seqssl.errors import UserError
from seqssl.finetuning.facts import Facts, Labelled
from seqssl.finetuning.head_start import regressor
from seqssl.finetuning.heads import ForecastHead, FrameHead
from seqssl.finetuning.scoring import ERRORS, Scored, sums_of_errors
from seqssl.finetuning.supervised import Chosen, Columns, Said, Supervised, keys_and_groups
from seqssl.finetuning.tuned import cut
from seqssl.model import alignment
from seqssl.model.bounds import POSITIVE, SHARE, Bound
from seqssl.model.norms import MIN_STD
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.readouts import random_spans
from seqssl.model.types import Batch, Draws, Features, Plan
from seqssl.training.tasks import HELD_OUT

Share = Annotated[float, Bound(above=0, below=1)]
MAX_SERIES = 40_000  # channels of windows that a head is fitted to
MIN_SCALE = 1e-4  # standard deviations of a channel over all training rows


class Series(Supervised):
    """What forecasts and imputations share: the channels, and errors in standard deviations of each."""

    metrics = ERRORS

    def _channels(self, facts: Facts, patterns: str) -> None:
        """Choose the channels, and take their scale from the training rows; UserError for none."""
        spec = facts.spec
        if spec.channels is None or spec.vocab_size is not None:
            raise UserError("task=forecast and task=impute are for series of numbers with channels.")
        names = spec.channel_names or tuple(str(number) for number in range(spec.channels))
        chosen = [c for c, name in enumerate(names) if matches(name, patterns)]
        if not chosen:
            raise UserError(f"task.channels = {patterns}: no channel matches; there is {', '.join(names)}.")
        self.names = [names[c] for c in chosen]

        def statistics(data: Labelled) -> dict[str, list[float]]:
            found = data.corpus.manifest.statistics
            if found is None:
                raise UserError(f"{data.corpus.folder} has no statistics of its channels: prepare it again.")
            return found

        known = facts.get("statistics", statistics)
        # A channel that never changes in the training rows has no unit in which to measure errors.
        self.still = [names[c] for c in chosen if known["std"][c] <= MIN_STD]
        chosen = [c for c in chosen if known["std"][c] > MIN_STD]
        if not chosen:
            still = ", ".join(self.names)
            raise UserError(f"task.channels = {patterns}: {still} never change in the training rows.")
        self.names, self.channels = [names[c] for c in chosen], chosen
        self.mean, self.std = (torch.tensor(known[key])[chosen] for key in ("mean", "std"))

    def scaled(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The chosen channels in standard deviations, and which values are there."""
        device = batch.inputs.device
        values = (batch.inputs[..., self.channels] - self.mean.to(device)) / self.std.to(device)
        there = alignment.present(batch)[..., self.channels]
        return values.masked_fill(~there, 0.0), there

    def choose(self, data: Labelled) -> Chosen:
        """All rows: the series is its own label."""
        text = f"{', '.join(self.still)} never change in the training rows, and are left out"
        if self.still and text not in self.notes:
            self.notes.append(text)
        return np.ones(len(data.corpus), bool)

    def _score(self, batch: Batch, said: Said, values: Tensor, counted: Tensor) -> list[Scored]:
        wanted, known = values.cpu().double().numpy(), counted.cpu().numpy()
        return [
            Scored(key, group, wanted[n], guess, sums_of_errors(wanted[n], guess, known[n]))
            for n, ((key, group), guess) in enumerate(zip(keys_and_groups(batch), said, strict=True))
        ]


class Forecast(Series):
    """Tell the next `horizon` steps from `lookback` steps: squared error of values that are there.

    The mean and the scale of what was given are taken off each channel and added back (RevIN, ICLR 2022). All
    windows of held-out rows are scored, `every` steps apart; those of training rows are as far apart. Errors
    are in standard deviations of a channel over the training rows.
    """

    term, examples = "forecast", "windows"

    def __init__(
        self,
        model: PretrainingModel,
        facts: Facts,
        tuning: FinetuneConfig,
        seed: int,
        *,
        lookback: Annotated[int, POSITIVE] = 168,
        horizon: Annotated[int, POSITIVE] = 24,
        every: Annotated[int, POSITIVE] = 6,
        channels: str = "*",
        dropout: Annotated[float, SHARE] = 0.8,
    ) -> None:
        self.lookback, self.horizon, self.every = lookback, horizon, every
        self._channels(facts, channels)
        num_frames = int(model.feature_encoder.output_lengths(torch.tensor([lookback])))
        head = ForecastHead(
            model.input_projection.out_features, num_frames, lookback, horizon, len(self.channels), dropout
        )
        super().__init__(model, facts, tuning, seed, head)

    def parts(self, data: Labelled) -> Labelled:
        """Every window of the rows; UserError where none is long enough in one of the splits."""
        length = self.lookback + self.horizon
        windows = windows_of(data.corpus, length, self.every)
        short = int(((data.corpus.lengths < length) & (data.corpus.splits != "")).sum())
        if short:
            self.notes.append(
                f"{short} rows are shorter than lookback + horizon = {length} steps, and left out"
            )
        for split in sorted({"train", "valid"} & {str(split) for split in data.corpus.splits}):
            if not len(windows.rows(split)):
                raise UserError(
                    f"no row of the split {split!r} is {self.lookback} + {self.horizon} steps long: lower "
                    "task.lookback or task.horizon."
                )
        return Labelled(windows, Windowed(data.adapter))  # type: ignore[arg-type]  # it has what loaders use

    def parts_to_predict(self, data: Labelled) -> Labelled:
        """The last look-back of each row."""
        windows = last_windows(data.corpus, self.lookback)
        short = len(data.corpus) - len(windows)
        if short:
            self.notes.append(
                f"{short} rows are shorter than the {self.lookback} steps of the look-back: no forecast"
            )
        if not len(windows):
            raise UserError(f"no row is {self.lookback} steps long, which the forecast is made from.")
        return Labelled(windows, Windowed(data.adapter))  # type: ignore[arg-type]  # it has what loaders use

    def read(self, batch: Batch) -> Batch:
        """The look-back alone."""
        return cut(batch, self.lookback)

    def outputs(self, frames: Features, batch: Batch) -> Tensor:
        """Forecasts (b, horizon, c), in standard deviations of the training rows."""
        past, mean, scale = self._instance(batch)
        made: Tensor = self.model.head(frames.x, past).float()
        return made * scale + mean

    def start(self, batches: Iterable[Batch]) -> str:
        """Fit the map from the look-back, which reads no frame, to windows whose future is known whole."""
        given, wanted, groups = [], [], []
        for batch in batches:
            past, mean, scale = self._instance(batch)
            future, there = self._future(batch)
            whole = there.all(1)  # b c
            # Not in the scale of each window: what moves most weighs most in the loss, too.
            given.append((past * scale).transpose(1, 2)[whole].cpu())
            wanted.append((future - mean).transpose(1, 2)[whole].cpu())
            names = np.array([group for _, group in keys_and_groups(batch)])
            groups += np.repeat(names, whole.sum(1).cpu().numpy()).tolist()
        if not groups:
            return ""
        chosen = np.sort(np.random.default_rng(self.seed).permutation(len(groups))[:MAX_SERIES])
        fitted = regressor(
            torch.cat(given)[chosen],
            torch.cat(wanted)[chosen].double().numpy(),
            [groups[number] for number in chosen.tolist()],
            bias=False,
        )
        head = self.model.head
        assert isinstance(head, ForecastHead)
        head.begin_at(fitted)
        return f"the head's shortcut starts as a linear fit to {len(chosen):,} channels of windows"

    def _instance(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The look-back with mean 0 and deviation 1 of each channel, 0 where it is missing; and both."""
        values, there = self.scaled(batch)
        values, there = values[:, : self.lookback], there[:, : self.lookback]
        count = there.sum(1, keepdim=True).clamp(min=1)
        mean = values.sum(1, keepdim=True) / count
        variance = ((values - mean) * there).square().sum(1, keepdim=True) / count
        scale = variance.sqrt().clamp(min=MIN_SCALE)
        return (values - mean) / scale * there, mean, scale

    def _future(self, batch: Batch) -> tuple[Tensor, Tensor]:
        values, there = self.scaled(batch)
        return values[:, self.lookback :], there[:, self.lookback :]

    def count(self, batch: Batch) -> int:
        """The number of values to be told."""
        return int(self._future(batch)[1].sum())

    def loss(self, outputs: Tensor, frames: Features, batch: Batch) -> Tensor:
        """Squared error over the values that are there."""
        values, there = self._future(batch)
        return ((outputs - values).square() * there).sum()

    def said(self, outputs: Tensor, frames: Features, batch: Batch) -> Said:
        """The forecast of each window (horizon, c)."""
        return list(outputs.cpu().double().numpy())

    def scored(self, batch: Batch, said: Said) -> list[Scored]:
        """Errors of each window."""
        return self._score(batch, said, *self._future(batch))

    def columns(self, batch: Batch, said: Said) -> Columns:
        """The forecast, a list of lists of the channels, in their own units."""
        mean, std = self.mean.double().numpy(), self.std.double().numpy()
        return [{"channels": self.names, "forecast": (guess * std + mean).tolist()} for guess in said]


class Impute(Series):
    """Tell values that were hidden: squared error over them.

    `share` of the steps of a row is hidden in runs of `span`, all channels at once; the model sees them as
    missing.
    """

    term, examples = "impute", "rows"

    def __init__(
        self,
        model: PretrainingModel,
        facts: Facts,
        tuning: FinetuneConfig,
        seed: int,
        *,
        share: Share = 0.25,
        span: Annotated[int, POSITIVE] = 8,
        channels: str = "*",
    ) -> None:
        self.share, self.span = share, span
        self._channels(facts, channels)
        self.stride = alignment.tiles(model.feature_encoder)
        if self.stride is None or "observed" not in model.extra_inputs:
            raise UserError(
                "task=impute needs a feature encoder that reads `observed` and whose frames do not overlap "
                "(patch)."
            )
        self.round, self.hides = HELD_OUT, "spans"
        head = FrameHead(model.input_projection.out_features, self.stride * len(self.channels))
        super().__init__(model, facts, tuning, seed, head)

    def hidden(self, batch: Batch) -> Tensor:
        """The steps hidden in each row: others in each update, the same in every evaluation."""
        size = batch.inputs.shape[1]
        if self.hides == "nothing":
            return torch.zeros(len(batch.keys), size, dtype=torch.bool, device=batch.inputs.device)
        generators = [Draws((self.seed, self.round, crc32(key.encode()))).generator() for key in batch.keys]
        lines = [
            random_spans(length[None], size, share=self.share, span=self.span, generator=generator)[0]
            for length, generator in zip(batch.lengths.cpu(), generators, strict=True)
        ]
        return torch.stack(lines).to(batch.inputs.device)

    def plan(self, batch: Batch, draws: Draws) -> Plan:
        """The number of values that this update hides."""
        self.round = draws.seed[1]
        return super().plan(batch, draws)

    def forward(self, batch: Batch, update: int, generator: Generator | None) -> tuple[Tensor, Features]:
        """Outputs and frames."""
        self.round = update if generator is not None else HELD_OUT
        return super().forward(batch, update, generator)

    def parts_to_predict(self, data: Labelled) -> Labelled:
        """All rows; nothing but what is missing is told."""
        self.hides = "nothing"
        return data

    def read(self, batch: Batch) -> Batch:
        """The batch with the hidden steps missing."""
        steps = self.hidden(batch)[..., None]
        return replace(
            batch, inputs=batch.inputs.masked_fill(steps, 0), observed=alignment.present(batch) & ~steps
        )

    def _hidden_values(self, batch: Batch) -> tuple[Tensor, Tensor]:
        values, there = self.scaled(batch)
        return values, there & self.hidden(batch)[..., None]

    def outputs(self, frames: Features, batch: Batch) -> Tensor:
        """Every step of every row (b, t, c), in standard deviations of the training rows."""
        made: Tensor = self.model.head(frames.x, frames.valid).float()
        steps = made.view(len(made), -1, len(self.channels))
        return steps[:, : batch.inputs.shape[1]]

    def count(self, batch: Batch) -> int:
        """The number of hidden values."""
        return int(self._hidden_values(batch)[1].sum())

    def loss(self, outputs: Tensor, frames: Features, batch: Batch) -> Tensor:
        """Squared error over the hidden values."""
        values, counted = self._hidden_values(batch)
        return ((outputs - values).square() * counted).sum()

    def said(self, outputs: Tensor, frames: Features, batch: Batch) -> Said:
        """All values of each row (t, c)."""
        return list(outputs.cpu().double().numpy())

    def scored(self, batch: Batch, said: Said) -> list[Scored]:
        """Errors at the hidden values."""
        return self._score(batch, said, *self._hidden_values(batch))

    def columns(self, batch: Batch, said: Said) -> Columns:
        """The series with what is missing filled in, in the channels' own units."""
        values, there = self.scaled(batch)
        mean, std = self.mean.double().numpy(), self.std.double().numpy()
        rows = []
        for n, (guess, length) in enumerate(zip(said, batch.lengths.tolist(), strict=True)):
            known = there[n, :length].cpu().numpy()
            filled = np.where(known, values[n, :length].cpu().double().numpy(), guess[:length])
            rows.append({"channels": self.names, "filled": (filled * std + mean).tolist()})
        return rows

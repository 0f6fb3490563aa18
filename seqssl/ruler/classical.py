"""The row without an encoder: what a practitioner would try first."""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seqssl.data.adapters import HasDescriptors
from seqssl.data.batching import BatchLoader
from seqssl.evaluation.embedding import pooled_input
from seqssl.evaluation.forecast import Protocol as Horizon
from seqssl.evaluation.forecast import Windows, baselines, filled
from seqssl.evaluation.frame_inputs import frame_inputs, with_context
from seqssl.evaluation.frozen import Encoder
from seqssl.evaluation.kernels import kernel_features
from seqssl.finetuning.per_frame import Tag
from seqssl.finetuning.scoring import Metric, Scored, confusion
from seqssl.finetuning.series import Forecast, Impute
from seqssl.finetuning.supervised import Supervised, keys_and_groups
from seqssl.finetuning.whole_rows import Classify, Regress
from seqssl.model.alignment import NONE
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch
from seqssl.ruler.cells import Bench, Cell, Result, named

Array = npt.NDArray[Any]
PENALTIES = (0.01, 1.0, 100.0)  # of a logistic regression: the inverse of its strength
ALPHAS = (0.1, 10.0, 1000.0)  # of a ridge
SEASONS = (1, 7, 12, 24, 48, 52, 96, 144, 168, 288, 365)  # steps after which a series may repeat
MAX_FRAMES = 20_000  # to fit to


@dataclass
class Classical:
    """Classical methods for one task on one bench; choices are made on a part of the training groups."""

    bench: Bench
    task: Supervised
    metric: Metric

    @property
    def exists(self) -> bool:
        """Whether there is a classical method for the task."""
        return isinstance(self.task, Classify | Regress | Tag | Forecast | Impute)

    def run(self, cell: Cell) -> Result:
        """Fit on the training rows, test on the test rows; choices are made on a part of the former."""
        began = time.monotonic()
        self.task.seed = cell.seed  # what is hidden from an encoder is hidden here
        part, held_out = self.bench.development(cell.train)
        best, chosen = -np.inf, None
        ways = list(self._ways())
        if len(ways) > 1 and len(part) and len(held_out):
            for name, fit in ways:
                value = self.metric(fit(part, held_out))
                value = value if self.metric.higher_is_better else -value
                if value > best:
                    best, chosen = value, (name, fit)
        name, fit = chosen or ways[0]
        rows = named(fit(cell.train, cell.test), self.bench.corpus)
        return Result(rows, time.monotonic() - began, {"method": name})

    def _ways(self) -> Iterator[tuple[str, Callable[[Array, Array], list[Scored]]]]:
        """Every method with its name: from training and test rows to the scored test rows."""
        task = self.task
        if isinstance(task, Forecast):
            for method in ("seasonal-naive", "DLinear"):
                yield method, partial(self._forecast, task, method)
        elif isinstance(task, Impute):
            yield "linear interpolation", partial(self._interpolate, task)
        elif isinstance(task, Tag):
            for penalty in PENALTIES[:2]:
                yield f"input with context, C={penalty:g}", partial(self._frames, task, penalty)
        else:
            for name, x in self._described.items():
                for strength in PENALTIES if isinstance(task, Classify) else ALPHAS:
                    yield f"{name}, {strength:g}", partial(self._rows, x, strength)

    @cached_property
    def _model(self) -> PretrainingModel:
        return self.task.model.pretrained

    @cached_property
    def _described(self) -> dict[str, Array]:
        """Each description of all rows of the bench that are used; others are zero."""
        corpus, adapter = self.bench.corpus, self.bench.adapter
        encoder = Encoder(self._model, adapter.spec, batch_inputs=2**20)
        rows = np.flatnonzero(corpus.splits != "")
        found: dict[str, list[Array]] = {}
        if isinstance(adapter, HasDescriptors):
            for number in rows.tolist():
                for name, vector in adapter.descriptors(adapter.load(corpus.row(number), None)).items():
                    found.setdefault(name, []).append(vector)
        pooled = pooled_input(encoder, corpus, adapter, rows)  # type: ignore[arg-type]  # it has what is read
        tables = {name: np.stack(vectors) for name, vectors in found.items()} | pooled
        if adapter.spec.channels is not None and adapter.spec.vocab_size is None:
            samples = (adapter.load(corpus.row(number), None) for number in rows.tolist())
            tables["random kernels"] = kernel_features(samples, adapter.spec.channels)
        whole = {}
        for name, x in tables.items():
            whole[name] = np.zeros((len(corpus), x.shape[1]))
            whole[name][rows] = x
        return whole

    def _batch(self, rows: Array) -> Iterator[Batch]:
        """Some rows in batches, whole."""
        splits = np.full(len(self.bench.corpus), "", dtype=object)
        splits[rows] = "chosen"
        corpus = self.bench.corpus.assigned(splits)
        length = max(2**18, int(corpus.lengths.max()))
        loader = BatchLoader(corpus, self.bench.adapter, split="chosen", batch_length=length, shuffle=False)  # type: ignore[arg-type]
        yield from loader.batches()

    def _rows(self, x: Array, strength: float, train: Array, test: Array) -> list[Scored]:
        """Logistic regression or ridge on one description."""
        from sklearn.linear_model import LogisticRegression, Ridge
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn brings it

        task, labels = self.task, self.bench.corpus.labels.tolist()
        mean, std = x[train].mean(0), x[train].std(0) + 1e-6
        inside, outside = (x[train] - mean) / std, (x[test] - mean) / std
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about convergence: the best of several strengths is taken
            if isinstance(task, Classify):
                wanted = [task.number[labels[row]] for row in train.tolist()]
                if len(set(wanted)) < 2:
                    said = np.zeros((len(test), len(task.names)))
                    said[:, wanted[0]] = 1
                else:
                    model = LogisticRegression(C=strength, max_iter=500).fit(inside, wanted)
                    said = np.zeros((len(test), len(task.names)))
                    said[:, model.classes_] = model.predict_proba(outside)
            else:
                assert isinstance(task, Regress)
                values = [task.value_of(labels[row]) for row in train.tolist()]
                said = Ridge(alpha=strength).fit(inside, values).predict(outside)
        return self._scored(test, list(said))

    def _scored(self, test: Array, said: list[Any]) -> list[Scored]:
        """Rows scored by the task itself, so that all methods are measured alike."""
        corpus = self.bench.corpus
        numbers = {name: n for n, name in enumerate(sorted({str(group) for group in corpus.groups} - {""}))}
        groups = [numbers.get(str(corpus.groups[row]), -1) for row in test.tolist()]
        batch = Batch(
            torch.zeros(len(test), 1),
            torch.ones(len(test), dtype=torch.long),
            labels=tuple(corpus.labels[row] for row in test.tolist()),
            groups=torch.tensor(groups),
            keys=[str(corpus.keys[row]) for row in test.tolist()],
        )
        return self.task.scored(batch, said)

    def _frames(self, task: Tag, strength: float, train: Array, test: Array) -> list[Scored]:
        """Logistic regression on the input at each frame and around it."""
        from sklearn.dummy import DummyClassifier
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits  # scikit-learn brings it

        seen = [self._frame_table(batch, task) for batch in self._batch(train)]
        x = np.concatenate([table[known] for tables in seen for table, _, known in tables])
        y = np.concatenate([wanted[known] for tables in seen for _, wanted, known in tables])
        chosen = np.sort(np.random.default_rng(0).permutation(len(x))[:MAX_FRAMES])
        mean, std = x.mean(0), x.std(0) + 1e-6
        model: Any = DummyClassifier()
        if len(np.unique(y[chosen])) > 1:
            model = LogisticRegression(C=strength / 100, max_iter=60)
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit((x[chosen] - mean) / std, y[chosen])
        rows = []
        for batch in self._batch(test):
            for (key, group), (table, wanted, known) in zip(
                keys_and_groups(batch), self._frame_table(batch, task), strict=True
            ):
                said = model.predict((table - mean) / std)
                sums = confusion(wanted[known], said[known], len(task.names))
                rows.append(Scored(key, group, wanted, said, sums))
        return rows

    def _frame_table(self, batch: Batch, task: Tag) -> list[tuple[Array, Array, Array]]:
        """Of each row: what is at and around each frame, the class of each frame, and where there is one."""
        lengths = self._model.feature_encoder.output_lengths(batch.lengths)
        wanted, vocab = task.wanted(batch, int(lengths.max())), self.bench.adapter.spec.vocab_size
        wide = with_context(frame_inputs(self._model, batch, int(lengths.max()), vocab)).numpy()
        return [
            (wide[n, :length], wanted[n, :length], wanted[n, :length] != NONE)
            for n, length in enumerate(lengths.tolist())
        ]

    def _forecast(self, task: Forecast, method: str, train: Array, test: Array) -> list[Scored]:
        """A forecast without an encoder."""
        windows, batches = [], []
        for rows in (train, test):
            found = list(self._batch(rows))
            values = [task.scaled(batch) for batch in found]
            series = np.concatenate([value.double().numpy() for value, _ in values])
            there = np.concatenate([known.numpy() for _, known in values])
            future = np.where(there, series, np.nan)[:, task.lookback :]
            given = np.where(there, series, np.nan)[:, : task.lookback]
            windows.append(Windows([], np.stack([filled(window) for window in given]), future))
            batches.append(found)
        season = min(
            (lag for lag in SEASONS if lag <= task.lookback),
            key=lambda lag: _seasonal_error(windows[0], lag, task.horizon),
        )
        protocol = Horizon(task.lookback, task.horizon, season, task.every)
        said, rows_found, start = baselines(windows[0], windows[1], protocol)[method], [], 0
        for batch in batches[1]:
            part = list(said[start : start + len(batch.keys)])
            rows_found += task.scored(batch, part)
            start += len(batch.keys)
        return rows_found

    def _interpolate(self, task: Impute, train: Array, test: Array) -> list[Scored]:
        """A straight line between the last value before a gap and the first one after it."""
        rows = []
        for batch in self._batch(test):
            values, there = task.scaled(batch)
            shown = (there & ~task.hidden(batch)[..., None]).numpy()
            said = [
                _lines(row[:length], known[:length], values.shape[1])
                for row, known, length in zip(
                    values.double().numpy(), shown, batch.lengths.tolist(), strict=True
                )
            ]
            rows += task.scored(batch, said)
        return rows


def _seasonal_error(windows: Windows, lag: int, horizon: int) -> float:
    """The squared error of repeating the last `lag` steps."""
    steps = windows.past.shape[1] - lag + np.arange(horizon) % lag
    return float(np.nanmean(np.square(windows.past[:, steps] - windows.future)))


def _lines(values: Array, known: Array, size: int) -> Array:
    """Each channel with its gaps filled by straight lines; 0 where nothing is known. (size, c)."""
    steps, said = np.arange(len(values)), np.zeros((size, values.shape[1]))
    for channel in range(values.shape[1]):
        there = known[:, channel]
        if there.any():
            said[: len(values), channel] = np.interp(steps, steps[there], values[there, channel])
    return said

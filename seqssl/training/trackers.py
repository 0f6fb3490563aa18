"""Trackers of experiments: where metrics go beside metrics.jsonl, which is always written.

A tracker is found through the entry point `seqssl.tracker`, or given as `pkg.mod:Class`;
`train.trackers=[tensorboard,wandb]` names those of a run. Only the first rank has them. None of them needs a
network: without an account or a server, what they are told stays in the run's folder.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Protocol

from seqssl.config.components import load
from seqssl.config.tree import flatten
from seqssl.errors import UserError

Settings = Mapping[str, Any]  # the flat configuration: train.num_updates -> 100


class Tracker(Protocol):
    """What is told of a run as it goes on. A resumed run tells the updates after `resume_at` again."""

    def __init__(self, run: Path, settings: Settings, resume_at: int) -> None: ...

    def log(self, update: int, values: Mapping[str, float]) -> None:
        """Figures after an update, by name: train/loss, valid/loss, ..."""
        ...

    def close(self) -> None:
        """Flush what waits; the run may go on later."""
        ...


class TensorBoard:
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self, run: Path, settings: Settings, resume_at: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=resume_at + 1)

    def log(self, update: int, values: Mapping[str, float]) -> None:
        """Add a scalar for each figure."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, update)

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class WandB:
    """Weights & Biases: online with an account (`wandb login`), else offline in the run's folder.

    `wandb sync` sends an offline run later.
    `WANDB_PROJECT` (default seqssl), `WANDB_MODE` and the other variables of wandb hold.
    """

    def __init__(self, run: Path, settings: Settings, resume_at: int) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError("the tracker wandb needs a package: pip install 'seqssl[trackers]'") from error
        known = os.environ.get("WANDB_API_KEY") or (Path.home() / ".netrc").exists()
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if known else "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "seqssl"),
            name=run.name,
            id=identity(run),
            resume="allow",
            dir=str(run),
            config=dict(settings),
            mode=mode,
        )
        self._run.define_metric("*", step_metric="update")

    def log(self, update: int, values: Mapping[str, float]) -> None:
        """One point for each figure."""
        self._run.log({**values, "update": update})  # without a step: a resumed run goes back

    def close(self) -> None:
        """Send what waits, or write it to disk."""
        self._run.finish()


class MLflow:
    """MLflow: to `MLFLOW_TRACKING_URI`, else into a database `mlflow.db` in the run's folder."""

    def __init__(self, run: Path, settings: Settings, resume_at: int) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise UserError("the tracker mlflow needs a package: pip install 'seqssl[trackers]'") from error
        address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(run / 'mlflow.db').resolve()}"
        self._client = MlflowClient(tracking_uri=address)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "seqssl")
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        tag = f"tags.seqssl = '{identity(run)}'"
        before = self._client.search_runs([experiment], filter_string=tag, max_results=1)
        if before:
            self._id = before[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        self._id = self._client.create_run(
            experiment, tags={"seqssl": identity(run)}, run_name=run.name
        ).info.run_id
        for key, value in settings.items():
            self._client.log_param(self._id, key, str(value)[:500])

    def log(self, update: int, values: Mapping[str, float]) -> None:
        """One point for each figure."""
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=update)

    def close(self) -> None:
        """Mark the run as finished; a resumed one opens it again."""
        self._client.set_terminated(self._id)


def start(names: Sequence[str], run: Path, settings: object, resume_at: int) -> list[Tracker]:
    """The trackers of these names. UserError for one that is not known, or whose package is missing.

    `settings` is the configuration, a dataclass; trackers get it flat.
    """
    told: Settings = (
        flatten(asdict(settings)) if is_dataclass(settings) and not isinstance(settings, type) else {}
    )
    return [load(name, "tracker")(run, told, resume_at) for name in names]


def identity(run: Path) -> str:
    """A short name that stays the same when a run goes on."""
    return hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]

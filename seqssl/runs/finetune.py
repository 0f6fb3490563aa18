"""From a pre-trained run and a task to the configuration of a fine-tuned run."""

import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

from seqssl.assembly import streams_of
from seqssl.config.compose import to_yaml
from seqssl.config.schema import FinetuneConfig, RunConfig, StreamConfig
from seqssl.errors import UserError
from seqssl.planning.plan import resolve
from seqssl.runs.folder import find_run, stream_of
from seqssl.runs.sources import is_demo, is_own, located

BEST = {
    "classify": "max:classify/accuracy",
    "tag": "max:tag/accuracy",
    "ctc": "min:ctc/cer",
    "transducer": "min:transducer/cer",
}
SQUARED = ("regress", "forecast", "impute")
WHOLE = ("tag", "ctc", "transducer", "forecast")  # a part of a row has not its label, or leaves frames out
PRETRAIN = "pretrain"
ONE_LABEL = ("classify", "regress")  # rows that are joined may have several
DEFAULTS = (
    "health=warn",
    "optim.name=adamw",
    "optim.lr=0.0005",
    "optim.weight_decay=0.01",
    "optim.schedule=cosine",
    "optim.warmup_updates=50",
    "optim.clip_norm=5",
    "train.num_updates=1000",
    "train.accumulate=1",
    "train.processes=1",
    "train.shards=1",
    "train.log_every=50",
    "data.views=1",
    "data.augment=null",
    "train.eval_every=100",
    "train.eval_batches=null",
    "train.save_every=100",
)


def configuration(
    run: str | Path,
    task: str,
    *overrides: str,
    data: str | None = None,
    init: Literal["pretrained", "scratch"] | str = "pretrained",
    out: str | None = None,
    stream: str = "",
) -> RunConfig:
    """The configuration of a run that tunes another run's encoder for a task.

    `data`: a path or a demo corpus; None = what the run was trained on. `init`: its weights, or drawn anew.
    `stream`: which kind of data, for a joint run. `overrides` come last. UserError for what does not fit.
    """
    if init not in ("pretrained", "scratch"):
        raise UserError(f"init = {init}: expected pretrained or scratch.")
    config, folder = find_run(run)
    part = stream_of(streams_of(config), stream).config
    own = [*DEFAULTS, f"task={{target: {task}}}"]
    own += [f"train.keep_best={BEST.get(task, f'min:{task}/mse' if task in SQUARED else 'min:loss')}"]
    lengths = ("join_seconds", "join_frames", *(("max_seconds", "max_frames") if task in WHOLE else ()))
    own += [f"data.{name}=null" for name in lengths]
    if data is not None and is_demo(data):
        own += [f"data.demo={data}", "data.source=null", "data.valid_groups=[]"]
    elif data is not None and not is_own(data, part.data):
        own += [f"data.source={located(data)}", "data.valid_groups=[]"]
    start = (
        f"{Path(run).expanduser()}{f'#{stream}' if stream else ''}"  # a checkpoint's own path, if it is one
    )
    own += [f"init={start if init == 'pretrained' else 'null'}"]
    own += [f"out={out or folder.parent / f'{folder.name}-{task}-{init}'}"]
    before = alone_of(config, stream) if stream else config
    if before.task["target"] != PRETRAIN:  # how a run was tuned is no default of this tuning
        before = replace(before, task={"target": PRETRAIN}, finetune=FinetuneConfig())
    if before is config:
        return _checked(resolve(str(folder), *own, *overrides).config)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "config.yaml"
        path.write_text(to_yaml(before) + "provenance: {}\n", encoding="utf-8")
        return _checked(resolve(place, *own, *overrides).config)


def _checked(config: RunConfig) -> RunConfig:
    """The same; UserError where rows would be cut or joined so that their labels do not fit any more."""
    task, data = config.task["target"], config.data
    refused = [
        *(("max_seconds", "max_frames") if task in WHOLE else ()),
        *(("join_seconds", "join_frames") if task in ONE_LABEL else ()),
    ]
    if given := [name for name in refused if getattr(data, name) is not None]:
        done = "a part of a row" if given[0].startswith("max") else "rows that are joined"
        raise UserError(f"data.{given[0]}: task={task} reads whole rows; {done} would not have the label.")
    return config


def alone_of(config: RunConfig, stream: str) -> RunConfig:
    """The configuration of one stream of a joint run, as a run of its own."""
    part = config.parts()[stream]
    shared = {entry.name: getattr(config, entry.name) for entry in fields(RunConfig)}
    own = {entry.name: getattr(part, entry.name) for entry in fields(StreamConfig)}
    return RunConfig(**{**shared, **own, "streams": {}})

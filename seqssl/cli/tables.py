"""Tables for the terminal: of a run or recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from seqssl.config.schema import RunConfig, Slot
from seqssl.planning.cost import parts_of
from seqssl.training import catalogue
from seqssl.training.log import Record, number_of, read_records

if TYPE_CHECKING:
    from rich.console import RenderableType
    from torch import nn

    from seqssl.assembly import Stages, Stream
    from seqssl.model.pretraining import PretrainingModel


def run_tables(out: Path, metrics: Mapping[str, float], report: Path, seconds: float) -> "RenderableType":
    """What a finished run reached, and what to do next."""
    table = empty_table(f"Held-out data after {duration(seconds)}: {out}", "metric", "value")
    _add_metrics(table, metrics, out)
    following = [f"open {report}", f"seqssl doctor {out}"]
    if (out / "facts.json").exists():  # it was tuned for a task
        following.append(f"seqssl predict run={out} source=YOUR_FILES out=said.csv")
    else:
        following.append(f"seqssl finetune run={out} task=classify data=YOUR_LABELLED_FILES")
        following.append(f"seqssl evaluate run={out} task=classify data=YOUR_LABELLED_FILES")
        following.append(f"seqssl embed run={out} source=YOUR_FILES out=features.parquet")
    return Group(table, "Next:", *(f"  {line}" for line in following))


def info_tables(config: RunConfig, subject: Path, waiting: "Stages") -> "RenderableType":
    """The input contract, the model, and how far a run is; `waiting`: see `streams_of`."""
    from seqssl.assembly import assemble, streams_of

    streams = streams_of(config, waiting)
    whole = assemble(config, streams, "meta")
    models = {stream.name: whole.of(stream.name) for stream in streams}
    contracts = [contract_table(stream, models[stream.name], subject) for stream in streams]
    parts = empty_table(f"{config.recipe}, size {config.size}", "part", "trained", "fixed")
    for stream, model in models.items():
        for name, module in parts_of(model, config.encoder.taps).items():
            if not (name.startswith("encoder") and stream not in ("", next(iter(models)))):
                own = f"{stream}: {name}" if stream and not name.startswith("encoder") else name
                parts.add_row(own, *_counts(module))
    taps = ", ".join(f"{name} after block {layer}" for name, layer in config.encoder.taps.items())
    notes = [f"Taps, {config.encoder.dim} wide: {taps}."]
    if config.feature_encoder is None:
        notes += ["Not set: feature_encoder (the adapter's own is used)."]
    return Group(*contracts, parts, *notes, *_progress(config, subject))


def contract_table(stream: "Stream", model: "PretrainingModel", subject: Path) -> Table:
    """What an input must be; for a run, as it is stored with it."""
    from seqssl.assembly import masks_input
    from seqssl.data.adapters import SampleSpec
    from seqssl.runs.folder import read_provenance
    from seqssl.targeting import targets_slot

    config, spec, statistics = stream.config, stream.spec, None
    if (subject / "config.yaml").is_file():
        stored = read_provenance(subject, stream.name)
        spec, statistics = SampleSpec.restore(stored["spec"]), stored.get("statistics")
    width = spec.channels if spec.vocab_size is None else f"ids below {spec.vocab_size}"
    if spec.vocab_size is not None and spec.channels is not None:
        width = f"{spec.channels} of {width}"
    table = empty_table(f"Input of {stream.name}" if stream.name else "Input", "", "")
    table.add_row("values", f"{spec.dtype}, {spec.units}")
    table.add_row("channels", "no channel axis" if width is None else str(width))
    table.add_row("rate", "none" if spec.rate_hz is None else rate_words(spec.rate_hz))
    table.add_row("longest row", "no limit" if spec.max_len is None else f"{spec.max_len} input steps")
    table.add_row("one frame", f"{model.stride:.4g} input steps")
    side = "before" if masks_input(config, spec) else "after"
    table.add_row("targets", f"{targets_slot(config, spec)['target']}, masked {side} the feature encoder")
    table.add_row("scaling", _scaling(config.input_norm, statistics))
    if spec.channel_names is not None:
        for c, name in enumerate(spec.channel_names):
            table.add_row(f"  channel {c}", name + _of_channel(config.input_norm, statistics, c))
    table.add_row("data", str(config.data.source or f"the demo corpus '{config.data.demo}'"))
    return table


def rate_words(rate_hz: float) -> str:
    """A rate in words."""
    if rate_hz >= 0.5:
        return f"{rate_hz:g} Hz"
    return f"a step every {duration(1 / rate_hz)} ({rate_hz:.4g} Hz)"


def _scaling(input_norm: Slot | None, statistics: Mapping[str, list[float]] | None) -> str:
    """How inputs are scaled, in words."""
    if input_norm is None:
        return "none: values as they are"
    name = str(input_norm["target"])
    if name == "channel":
        where = "below" if statistics else "taken from the train split, stored with the weights"
        return f"each channel by its mean and deviation ({where})"
    words = {
        "instance": "each row and channel by its own",
        "level": "each row and channel by its own; its level and spread are told beside",
    }
    return words.get(name, name)


def _of_channel(input_norm: Slot | None, statistics: Mapping[str, list[float]] | None, channel: int) -> str:
    """The statistics that a channel is scaled by, in words; "" where there are none."""
    if input_norm is None or input_norm["target"] != "channel" or not statistics:
        return ""
    mean, std = statistics["mean"][channel], statistics["std"][channel]
    return f", mean {mean:.4g}, deviation {std:.4g}"


def _counts(module: "nn.Module") -> tuple[str, str]:
    """How many weights of a part are trained, and how many numbers are fixed, as text."""
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    fixed = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    fixed += sum(b.numel() for b in module.buffers() if b.is_floating_point())
    return f"{trained:,}" if trained else "nothing", f"{fixed:,}" if fixed else ""


def _progress(config: RunConfig, run: Path) -> list["RenderableType"]:
    """How far a run is; nothing for a recipe."""
    if not (run / "config.yaml").is_file():
        return []
    records = list(read_records(run / "metrics.jsonl"))
    done = int(max((number_of(record["step"]) or 0 for record in records), default=0))
    checkpoints = sorted(path.name for path in (run / "checkpoints").glob("*"))
    saved = f"Checkpoints: {', '.join(checkpoints) or 'none yet'}."
    lines = [f"{done:,} of {config.train.num_updates:,} updates done. {saved}"]
    valid = [record for record in records if record["kind"] == "valid"]
    if valid:
        metrics = empty_table(
            f"Held-out data at update {number_of(valid[-1]['step']) or 0:,.0f}", "metric", "value"
        )
        _add_metrics(metrics, valid[-1], run)
        return [*lines, metrics]
    return list(lines)


def _add_metrics(table: Table, metrics: Record, run: Path) -> None:
    """Add rows for the metrics that matter and their baselines; those of a joint run come by stream."""
    names = set()
    for part in catalogue.by_stream(metrics, catalogue.read(run)):
        prefix = f"{part.stream}/" if part.stream else ""
        for figure in part.figures("table"):
            names |= {prefix + name for name in (figure.name, *(base.name for base, _ in figure.against))}
    for name, value in metrics.items():
        if name in names:
            table.add_row(name, f"{number_of(value):.4g}")


def empty_table(title: str, *columns: str) -> Table:
    """An empty table: the first column is aligned left, the others right."""
    table = Table(
        title=title, title_justify="left", show_header=any(columns), box=SIMPLE_HEAD, pad_edge=False
    )
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def duration(seconds: float) -> str:
    """A duration in a readable unit."""
    for size, unit in ((365 * 86_400, "years"), (86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            amount = seconds / size
            return f"{amount:,.0f} {unit}" if amount >= 100 else f"{amount:.1f} {unit}"
    return f"{seconds:,.0f} s"

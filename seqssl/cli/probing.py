"""What `probe` does: linear probes of frozen features, in their three kinds."""

import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from seqssl.cli.commands import Arguments, existing, modality_settings
from seqssl.cli.terminal import show, show_progress
from seqssl.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from seqssl.data.adapters import ModalityAdapter
    from seqssl.data.files import Progress
    from seqssl.data.shards import Corpus
    from seqssl.evaluation.frozen import Encoder
    from seqssl.evaluation.held_out import Seen


def probe(arguments: Arguments) -> None:
    """Run a linear probe, with baselines beside."""
    run, task = existing(arguments["run"]), arguments["task"]
    if task not in ("labels", "frames", "forecast"):
        raise UserError(f"task = {task}: expected labels, frames or forecast")
    for name in ("max_rows", "horizon", "lookback", "season"):
        if arguments[name] is not None and arguments[name] < 1:
            raise UserError(f"{name} = {arguments[name]}: must be at least 1")
    if task != "labels" and arguments["unheard"]:
        raise UserError("unheard: only for task=labels")
    from seqssl.evaluation.frozen import POOLS, check_pool
    from seqssl.runs.folder import load
    from seqssl.runs.sources import open_source, seen_by

    check_pool(arguments["pool"], POOLS[:-1])
    stream = arguments["stream"]
    encoder = load(run, tap=arguments["tap"], weights=arguments["weights"], stream=stream)
    random = load(run, weights="random", stream=stream)
    with show_progress() as progress:
        opening = partial(
            open_source, run, stream=stream, settings=modality_settings(arguments), progress=progress
        )
        corpus, adapter = opening(arguments["source"])
        corpora = {"source": corpus}
        if arguments["unheard"] and task == "labels":
            corpora["unheard"], _ = opening(arguments["unheard"])
        seen = seen_by(run, stream)
        table, scores = _scores(arguments, (encoder, random), corpora, adapter, seen, progress)
    from seqssl.data.files import write_atomic
    from seqssl.runs.folder import find_run

    named = {name: f"{found.folder.name} ({found.content_hash})" for name, found in corpora.items()}
    settings = {
        "run": str(run),
        "weights": arguments["weights"],
        "tap": encoder.tap,
        "stream": stream,
        "pool": arguments["pool"],
    }
    name = "-".join(["probe" if task == "labels" else task, *([stream] if stream else [])])
    out = find_run(run)[1] / f"{name}.json"
    write_atomic(out, json.dumps({**settings, **named, "scores": scores}, indent=2) + "\n")
    show(table)
    print(f"every score: {out}")


def _scores(
    arguments: Arguments,
    encoders: tuple["Encoder", "Encoder"],
    corpora: Mapping[str, "Corpus"],
    adapter: "ModalityAdapter",
    seen: "Seen",
    progress: "Progress",
) -> tuple["RenderableType", Any]:
    """The scores of a probe's task, as a table and as plain values."""
    from seqssl.evaluation import forecast, frames
    from seqssl.evaluation import probe as labels
    from seqssl.evaluation.scores import forecast_table, frames_table, probe_tables

    if arguments["task"] == "frames":
        per_frame = frames.probe_frames(
            *encoders,
            corpora["source"],
            adapter,
            labels=arguments["labels"],
            max_rows=arguments["max_rows"],
            progress=progress,
        )
        return frames_table(per_frame, encoders[0].tap), frames.to_json(per_frame)
    patterns = [pattern.strip() for pattern in arguments["labels"].split(",")]
    if arguments["task"] == "forecast":
        protocol = forecast.Protocol(
            arguments["lookback"],
            arguments["horizon"],
            arguments["season"],
            max(1, arguments["horizon"] // 4),
        )
        found = forecast.probe_forecast(
            *encoders,
            corpora["source"],
            adapter,
            protocol,
            channels=patterns,
            seen=seen,
            max_rows=arguments["max_rows"],
            progress=progress,
        )
        return forecast_table(found, encoders[0].tap, protocol), forecast.to_json(found)
    scores = labels.probe_run(
        *encoders,
        corpora["source"],
        adapter,
        labels=patterns,
        unheard=corpora.get("unheard"),
        seen=seen,
        max_rows=arguments["max_rows"],
        pool=arguments["pool"],
        progress=progress,
    )
    return probe_tables(scores, encoders[0].tap), labels.to_json(scores)

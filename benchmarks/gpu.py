"""What one GPU does: steps of several sizes, the log-mel on it, the loader beside it, and a run for the rest.

    python benchmarks/gpu.py out=DIR [data=FOLDER] [seconds=480] [sizes="base xl"] [device=cuda]

`benchmarks/gpu.sh` installs, tests and calls it. Without data it is noise, written to DIR. Each step time is
that of `seqssl train` itself, loader and logging included, in a process of its own; the first updates are not
counted. It is ended as soon as it has logged the figures, before it evaluates or saves. What it said is in
DIR/runs/*.log. Writes gpu.json and gpu.md after each step.
"""

import json
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from seqssl import build_model, load_recipe
from seqssl.assembly import streams_of
from seqssl.data.batching import BatchLoader
from seqssl.data.lengths import lengths_of
from seqssl.data.prepare import open_or_prepare
from seqssl.runs.streams import workers_of
from seqssl.training.log import number_of, read_records

UPDATES, WARM_UP, LIMIT_S = 40, 20, 90  # of each measured case
NEVER = 10**6  # updates
LOADER_S, RESERVE_S, LEAST_RUN_S = 8, 20, 30
VOICES, FILES, FILE_S, RATE = 8, 8, 32, 16_000  # of the noise
FIGURES = ("throughput/input_s_per_s", "mfu", "memory_mib")
# The recipe, its size, and whether blocks are compiled; of an update, one micro-batch.
Case = tuple[str, str, bool]


def cases(sizes: list[str]) -> list[Case]:
    """What is measured, the most wanted first."""
    found: list[Case] = [("speech_w2vbert", size, False) for size in sizes]
    found += [("speech_w2vbert", size, True) for size in sizes]
    return [("speech_hubert", "base", False), *found] if "base" in sizes else found


def write_noise(folder: Path) -> Path:
    """A corpus of noise that gets louder and softer."""
    rng, size = np.random.default_rng(0), FILE_S * RATE
    loudness = 0.1 * np.abs(np.sin(np.arange(size) * (6 / RATE))) + 0.001
    for voice in range(VOICES):
        (folder / f"voice{voice}").mkdir(parents=True, exist_ok=True)
        for number in range(FILES):
            soundfile.write(folder / f"voice{voice}/{number}.wav", loudness * rng.normal(size=size), RATE)
    return folder


def train(
    recipe: str, size: str, out: Path, device: str, data: str, *more: str, until: int, limit: float
) -> str:
    """Train in a process of its own until an update is logged, or for a time; "" or what went wrong."""
    command = [
        sys.executable, "-m", "seqssl", "train", f"recipe={recipe}", f"size={size}", f"out={out}",
        f"data={data}", f"train.device={device}", "train.trackers=[]", "health=off", *more,
    ]  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    log, end = out.with_suffix(".log"), time.monotonic() + limit
    with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT) as process:
        try:
            while process.poll() is None:
                if any((number_of(each.get("step")) or 0) >= until for each in records_of(out)):
                    return ""
                if time.monotonic() > end:
                    return f"not done within {limit:.0f} s"
                time.sleep(0.5)
        finally:
            process.kill()
    last = " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
    return f"exit code {process.returncode}: {last}" if process.returncode else ""


def records_of(run: Path) -> list[Any]:
    """What a run has logged of training."""
    return [each for each in read_records(run / "metrics.jsonl") if each.get("kind") == "train"]


def step_of(case: Case, out: Path, device: str, data: str, limit: float) -> dict[str, Any]:
    """The figures of a case, as far as there are any, and what went wrong."""
    recipe, size, compiled = case
    folder = out / "runs" / f"{recipe}-{size}{'-compiled' if compiled else ''}"
    own = [f"train.{name}={NEVER}" for name in ("num_updates", "eval_every", "save_every")]
    own += [f"train.log_every={WARM_UP}", "train.accumulate=1", f"train.compile={str(compiled).lower()}"]
    if recipe == "speech_hubert":  # of two stages with one encoder, the one that needs no other run
        own.append("stage=first")
    problem = train(recipe, size, folder, device, data, *own, until=UPDATES, limit=limit)
    found: dict[str, Any] = {"recipe": recipe, "size": size, "compiled": compiled}
    for record in records_of(folder)[-1:]:
        found |= {"update": record["step"]} | {name: number_of(record.get(name)) for name in FIGURES}
    return found | ({"problem": problem} if problem else {})


def log_mel_of(device: str) -> dict[str, float]:
    """Seconds of audio that the log-mel front end makes frames of, a second."""
    config = load_recipe("speech_w2vbert", "size=tiny")
    (stream,) = streams_of(config)
    encoder = build_model(config).feature_encoder.to(device)
    seconds, rows = 16, 32
    inputs = torch.randn(rows, int(seconds * (stream.spec.rate_hz or 1)), device=device)
    lengths = torch.full((rows,), inputs.shape[1], device=device)
    times = []
    with torch.no_grad():
        for _ in range(12):
            began = time.perf_counter()
            encoder(inputs, lengths)
            if device != "cpu":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
    return {"input_s_per_s": seconds * rows / sorted(times)[len(times) // 2]}


def loader_of(data: str, workers: int) -> dict[str, float]:
    """Seconds of audio that the loader makes batches of, a second."""
    config = load_recipe("speech_w2vbert", "size=base", f"data={data}")
    (stream,) = streams_of(config)
    corpus = open_or_prepare(stream.adapter, config.data, modality="speech")
    loader = BatchLoader(
        corpus, stream.adapter, split="train", workers=workers, **lengths_of(config.data, stream.spec)
    )
    batches = loader.endless()
    next(batches)  # starts the workers
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < LOADER_S:
        steps += int(next(batches).lengths.sum())
    took = time.perf_counter() - began
    return {"workers": workers, "input_s_per_s": steps / (stream.spec.rate_hz or 1) / took}


def tried(measure: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, Any]:
    """What is measured, or what went wrong: the rest is measured all the same."""
    try:
        return measure(*arguments)
    except Exception as error:
        traceback.print_exc()
        return {"problem": f"{type(error).__name__}: {error}"}


def page(found: dict[str, Any]) -> str:
    """The figures in Markdown."""
    lines = [
        f"{found['device']}, torch {found['torch']}, {found['date']}",
        "",
        "| recipe | size | compiled | input s per s | MFU | memory, GiB | problem |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for case in found["steps"]:
        speed, mfu, memory = (case.get(name) for name in FIGURES)
        cells = [
            case["recipe"],
            case["size"],
            "yes" if case["compiled"] else "no",
            f"{speed:,.0f}" if speed else "",
            f"{mfu:.0%}" if mfu else "",
            f"{memory / 1024:.1f}" if memory else "",
            case.get("problem", "").replace("|", "/"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Log-mel, input s per s: {found['log_mel']}"]
    lines += [f"Loader, input s per s: {each}" for each in found["loader"]]
    lines += [f"Run: {found['run']}"]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Measure what the time allows, and write it after each step."""
    given = dict(text.partition("=")[::2] for text in arguments)
    out, device = Path(given["out"]), given.get("device", "cuda")
    end = float(given.get("began", time.time())) + float(given.get("seconds", 480)) - RESERVE_S
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "torch": str(torch.__version__),
        "date": time.strftime("%Y-%m-%d"),
        "steps": [],
        "log_mel": {},
        "loader": [],
        "run": "none: no time was left",
    }

    def keep() -> None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
        (out / "gpu.md").write_text(page(found))

    keep()
    data = given.get("data") or str(write_noise(out / "noise"))
    for case in cases(given.get("sizes", "base xl").split()):
        left = end - time.time() - LEAST_RUN_S
        if left < LIMIT_S / 2:
            break
        found["steps"].append(step_of(case, out, device, data, min(left, LIMIT_S)))
        print(found["steps"][-1], flush=True)
        keep()
    found["log_mel"] = tried(log_mel_of, device)
    keep()
    automatic = workers_of(load_recipe("speech_w2vbert", "size=base").data, torch.device(device))
    for workers in sorted({0, automatic}):
        if time.time() + 2 * LOADER_S < end:
            found["loader"].append(tried(loader_of, data, workers))
            keep()
    left = end - time.time()
    if left > LEAST_RUN_S:
        # It is ended by the clock; metrics.jsonl holds what it reached.
        folder = out / "runs" / "small"
        problem = train("speech_w2vbert", "small", folder, device, data, until=NEVER, limit=left)
        records = [
            each for each in read_records(folder / "metrics.jsonl") if each["kind"] in ("train", "valid")
        ]
        found["run"] = f"speech_w2vbert small: {problem or 'done'}; last record {records[-1:]}"
    keep()
    print((out / "gpu.md").read_text())


if __name__ == "__main__":
    main(sys.argv[1:])

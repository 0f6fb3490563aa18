"""What one GPU does: steps of several sizes, the log-mel on it, the loader beside it, and a run for the rest.

    python benchmarks/gpu.py out=DIR [data=PREPARED] [seconds=480] [sizes="base xl"] [device=cuda]

`benchmarks/gpu.sh` installs, tests and calls it. Each step time is that of `seqssl train` itself, loader and
logging included, in a process of its own; the first updates are not counted. Writes gpu.json and gpu.md.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from seqssl import build_model, load_recipe
from seqssl.assembly import streams_of
from seqssl.data.batching import BatchLoader
from seqssl.data.lengths import lengths_of
from seqssl.data.prepare import open_or_prepare
from seqssl.training.log import number_of, read_records

UPDATES, WARM_UP, LIMIT_S = 40, 20, 90  # of each measured case
LOADER_S, RESERVE_S, LEAST_RUN_S = 8, 20, 30
FIGURES = ("throughput/input_s_per_s", "mfu", "memory_mib")
# The recipe, its size, and whether blocks are compiled; of an update, one micro-batch.
Case = tuple[str, str, bool]


def cases(sizes: list[str]) -> list[Case]:
    """What is measured, the most wanted first."""
    found: list[Case] = [("speech_w2vbert", size, False) for size in sizes]
    found += [("speech_w2vbert", size, True) for size in sizes]
    return [("speech_hubert", "base", False), *found] if "base" in sizes else found


def train(recipe: str, size: str, out: Path, device: str, data: str, *more: str, limit: float) -> str:
    """Train in a process of its own; "" or what went wrong."""
    command = [
        sys.executable, "-m", "seqssl", "train", f"recipe={recipe}", f"size={size}", f"out={out}",
        f"train.device={device}", "train.trackers=[]", "health=off", *more,
        *([f"data={data}"] if data else []),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return f"not done within {limit:.0f} s"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]


def step_of(case: Case, out: Path, device: str, data: str) -> dict[str, Any]:
    """The figures of a case, or why there are none."""
    recipe, size, compiled = case
    folder = out / "runs" / f"{recipe}-{size}{'-compiled' if compiled else ''}"
    own = [
        f"train.num_updates={UPDATES}", f"train.log_every={WARM_UP}", f"train.eval_every={UPDATES}",
        f"train.save_every={UPDATES}", "train.eval_batches=1", "train.accumulate=1",
        f"train.compile={str(compiled).lower()}",
    ]  # fmt: skip
    if recipe == "speech_hubert":  # of two stages with one encoder, the one that needs no other run
        own.append("stage=first")
    problem = train(recipe, size, folder, device, data, *own, limit=LIMIT_S)
    found: dict[str, Any] = {"recipe": recipe, "size": size, "compiled": compiled}
    if problem:
        return found | {"problem": problem}
    records = [each for each in read_records(folder / "metrics.jsonl") if each.get("kind") == "train"]
    return found | {name: number_of(records[-1].get(name)) for name in FIGURES}


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
    config = load_recipe("speech_w2vbert", "size=base", *([f"data={data}"] if data else []))
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


def page(found: dict[str, Any]) -> str:
    """The figures in Markdown."""
    lines = [
        f"{found['device']}, torch {found['torch']}, {found['date']}",
        "",
        "| recipe | size | compiled | input s per s | MFU | memory, GiB |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for case in found["steps"]:
        head = f"| {case['recipe']} | {case['size']} | {'yes' if case['compiled'] else 'no'} |"
        speed, mfu, memory = (case.get(name) for name in FIGURES)
        told = (
            f"{speed or 0:,.0f} | {f'{mfu:.0%}' if mfu else ''} | {f'{memory / 1024:.1f}' if memory else ''}"
        )
        lines.append(f"{head} {case['problem']} | | |" if "problem" in case else f"{head} {told} |")
    lines += ["", f"Log-mel: {found['log_mel']['input_s_per_s']:,.0f} s of audio a second."]
    lines += [
        f"Loader, {each['workers']} workers: {each['input_s_per_s']:,.0f} s." for each in found["loader"]
    ]
    lines += [f"Run: {found['run']}"]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Measure what the time allows, and write it after each step."""
    given = dict(text.partition("=")[::2] for text in arguments)
    out, data, device = Path(given["out"]), given.get("data", ""), given.get("device", "cuda")
    began = float(given.get("began", time.time()))
    end = began + float(given.get("seconds", 480))
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "torch": str(torch.__version__),
        "date": time.strftime("%Y-%m-%d"),
        "steps": [],
        "loader": [],
        "run": "none: no time was left",
    }

    def keep() -> None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
        (out / "gpu.md").write_text(page(found))

    found["log_mel"] = log_mel_of(device)
    found["loader"] = [loader_of(data, workers) for workers in (0, 4)]
    keep()
    for case in cases(given.get("sizes", "base xl").split()):
        if time.time() + LIMIT_S / 2 + LEAST_RUN_S > end:
            break
        found["steps"].append(step_of(case, out, device, data))
        print(found["steps"][-1], flush=True)
        keep()
    left = end - time.time() - RESERVE_S
    if left > LEAST_RUN_S:
        # It is ended by the clock; metrics.jsonl holds what it reached.
        folder = out / "runs" / "small"
        problem = train("speech_w2vbert", "small", folder, device, data, limit=left)
        records = [r for r in read_records(folder / "metrics.jsonl") if r.get("kind") in ("train", "valid")]
        found["run"] = f"speech_w2vbert small, {left:.0f} s: {problem}; last record {records[-1:]}"
    keep()
    print((out / "gpu.md").read_text())


if __name__ == "__main__":
    main(sys.argv[1:])

"""How the cost of a step and of a forward pass grows with the length of a row, for each mixer.

    python benchmarks/length.py [recipe=dna_w2vbert] [mixers=attention,local] [lengths=4096,65536] [threads=2]

Lengths are frames. Every measurement is a process of its own, so that peaks of memory are its own. The
exponent is the slope of log time over log length, between the two longest. `million=true` adds the forward
pass of one row of a million input steps.
"""

import json
import math
import resource
import subprocess
import sys
import time
from typing import Any

import torch

from seqssl import Draws, build_model, load_recipe
from seqssl.assembly import streams_of
from seqssl.model.types import Batch

MIXERS = ("attention", "local", "summary", "fft_convolution", "gated_linear")
LENGTHS = (4096, 16384, 65536)
LIMIT_S = 600


def measure(recipe: str, mixer: str, frames: int, steps: int, threads: int, kind: str) -> dict[str, float]:
    """Seconds and the peak GiB of one training step, or of one forward pass (`kind`: step, forward).

    The row has so many frames, or, where that is 0, so many input steps.
    """
    torch.set_num_threads(threads)
    config = load_recipe(recipe, "size=tiny", f"mixer={mixer}", "train.precision=float32")
    (stream,) = streams_of(config)
    model, spec = build_model(config), stream.spec
    size = steps or math.ceil(frames * model.stride)
    shape = (1, size) if spec.channels is None else (1, size, spec.channels)
    generator = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(shape, generator=generator)
        if spec.vocab_size is None
        else torch.randint(spec.vocab_size, shape, generator=generator)
    )
    batch = Batch(inputs, torch.tensor([size]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    if kind == "forward":
        with torch.inference_mode():
            model.eval().encode(batch)
    else:
        draws = Draws((0, 0), 1.0)
        plan = model.train().plan(batch, draws)
        assert plan.frames is not None
        output = model(batch, plan.frames, temperature=1.0, generator=draws.generator())
        torch.stack([*output.terms.values()]).sum().backward()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gib = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts bytes, Linux KiB
    return {"seconds": seconds, "gib": peak / gib, "grown_gib": (peak - before) / gib}


def apart(**arguments: Any) -> dict[str, float] | None:
    """`measure` in a process of its own; None where it does not fit into memory or time."""
    command = [sys.executable, __file__, json.dumps(arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        print(*done.stderr.splitlines()[-1:], file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: dict[str, str]) -> None:
    """A table: a line for each mixer, what it takes at each length, and the exponent."""
    recipe, threads = arguments.get("recipe", "dna_w2vbert"), int(arguments.get("threads", "2"))
    mixers = arguments.get("mixers", ",".join(MIXERS)).split(",")
    lengths = [int(text) for text in arguments.get("lengths", ",".join(map(str, LENGTHS))).split(",")]
    print("| mixer | " + " | ".join(f"{each:,} frames" for each in lengths) + " | exponent |")
    print("| --- |" + " ---: |" * (len(lengths) + 1))
    common = {"recipe": recipe, "threads": threads}
    for mixer in mixers:
        found = [apart(mixer=mixer, frames=each, steps=0, kind="step", **common) for each in lengths]
        cells = [f"{each['seconds']:.2f} s, {each['gib']:.2f} GiB" if each else "not" for each in found]
        last = found[-2:]
        slope = "-"
        if all(last) and len(last) == 2:
            times = [each["seconds"] for each in last if each]
            slope = f"{math.log(times[1] / times[0]) / math.log(lengths[-1] / lengths[-2]):.2f}"
        print(f"| {mixer} | " + " | ".join(cells) + f" | {slope} |", flush=True)
    if arguments.get("million") == "true":
        print("\n| mixer | a million input steps, forward |\n| --- | ---: |")
        for mixer in mixers:
            one = apart(mixer=mixer, frames=0, steps=1_000_000, kind="forward", **common)
            print(
                f"| {mixer} | " + (f"{one['seconds']:.1f} s, {one['gib']:.2f} GiB |" if one else "not |"),
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        print(json.dumps(measure(**json.loads(sys.argv[1]))))
    else:
        main(dict(text.split("=", 1) for text in sys.argv[1:]))

"""Training with one process and all threads, beside as many processes as `train.processes=auto` takes.

    python benchmarks/processes.py [recipes=speech_w2vbert,dna_w2vbert] [updates=48] [repeats=2]

Runs take turns, each in a process of its own, on the demo data of the recipe. The figure is what `seqssl
train` records, loader and logging included; the first third of the updates is not counted.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from seqssl.runs.processes import processes_of
from seqssl.training.log import number_of, read_records

RECIPES = (
    "speech_w2vbert",
    "speech_clusters",
    "wearables_w2vbert",
    "dna_w2vbert",
    "weather_w2vbert",
    "music_w2vbert",
)
PREFIX = "throughput/"


def speed(recipe: str, processes: str, updates: int) -> tuple[int, float]:
    """How many processes there were, and input units a second."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        subprocess.run(
            [
                sys.executable, "-m", "seqssl", "train", f"recipe={recipe}", "size=tiny", f"out={out}",
                f"train.processes={processes}", f"train.num_updates={updates}", "train.eval_batches=1",
                f"train.log_every={updates // 3}", f"train.eval_every={updates}", "train.trackers=[]",
                "health=off",
            ],
            check=True, capture_output=True, env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
        )  # fmt: skip
        found = [each for each in read_records(out / "metrics.jsonl") if each.get("kind") == "train"][1:]
        speeds = [number_of(v) for each in found for k, v in each.items() if k.startswith(PREFIX)]
        return processes_of(out), statistics.harmonic_mean([value for value in speeds if value])


def main(arguments: list[str]) -> None:
    """A line for each recipe."""
    given = dict(text.partition("=")[::2] for text in arguments)
    recipes = given["recipes"].split(",") if "recipes" in given else list(RECIPES)
    updates, repeats = int(given.get("updates", 48)), int(given.get("repeats", 2))
    print("| recipe | processes | input a second, one process | several | ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for recipe in recipes:
        several, one, number = [], [], 1
        for _ in range(repeats):
            number, value = speed(recipe, "auto", updates)
            several.append(value)
            one.append(speed(recipe, "1", updates)[1])
        ratio = statistics.median(a / b for a, b in zip(several, one, strict=True))
        shown = " | ".join(", ".join(f"{value:,.4g}" for value in values) for values in (one, several))
        print(f"| `{recipe}` | {number} | {shown} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

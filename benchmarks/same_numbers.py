"""Do two revisions train to the same numbers? The first updates of the base recipes, compared bit by bit.

    python benchmarks/same_numbers.py OLD NEW [--recipes a,b] [--updates 20] [--patch FILE]

OLD and NEW are git revisions; NEW may be `.`, the working tree as it is. Each is checked out into a folder
of its own, trains every recipe at size=tiny through `python -m seqssl train`, and leaves a metrics.jsonl. Of
every update the loss, its terms and the gradient's norm are compared, and at the end the whole held-out
record. Names that one side alone has are listed, not compared. The exit code is 1 when anything differs or
a run fails.

`--patch FILE` applies a git patch to OLD first: what is then equal differs from OLD by that patch alone.

Prepared data are shared through the normal cache. The first run of a recipe fetches its demo corpus.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomllib

RECIPES = tuple(f"{name}_w2vbert" for name in ("speech", "wearables", "dna", "weather", "music", "joint"))
HELD_OUT_BATCHES = 4  # of each kind of data: enough to see how batches are added up
NOT_COMPARED = ("kind", "step", "epoch", "time_s")  # of the held-out record: no metrics

Record = dict[str, Any]


class RunFailed(Exception):
    """A run that left no numbers, and why."""


@dataclass(frozen=True)
class Side:
    """One of the two revisions."""

    name: str
    code: Path  # the root of its checkout
    entry_points: Path  # a folder for PYTHONPATH that tells Python of its entry points


@dataclass(frozen=True)
class Row:
    """What became of one metric: the first update where the sides differ (None: equal) and by how much."""

    metric: str
    first: int | None
    largest: float  # relative


def main() -> int:
    """Compare as the command line says; the exit code."""
    options = parsed()
    root = Path(git("rev-parse", "--show-toplevel"))
    differing = []
    with (
        tempfile.TemporaryDirectory(prefix="same_numbers_") as name,
        sides(options, root, Path(name)) as both,
    ):
        for recipe in options.recipes.split(","):
            began = time.monotonic()
            try:
                old, new = (trained(recipe, side, options, Path(name)) for side in both)
            except RunFailed as error:
                print(f"{recipe}: failed\n{error}\n", flush=True)
                differing.append(recipe)
                continue
            if not report(recipe, old, new, time.monotonic() - began):
                differing.append(recipe)
    print(f"not the same: {', '.join(differing)}" if differing else "all equal")
    return 1 if differing else 0


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("old", help="a git revision")
    parser.add_argument("new", help="a git revision, or . for the working tree as it is")
    parser.add_argument(
        "--recipes", default=",".join(RECIPES), help="names with commas between (default: all)"
    )
    parser.add_argument("--updates", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--patch", type=Path, help="a git patch to apply to OLD first")
    parser.add_argument("--precision", default="float32", help="train.precision (default: float32)")
    parser.add_argument("--cache", type=Path, help="where prepared data are (default: the normal cache)")
    return parser.parse_args()


@contextmanager
def sides(options: argparse.Namespace, root: Path, folder: Path) -> Iterator[list[Side]]:
    """OLD and NEW as folders of code; those made for it are gone afterwards."""
    made: list[Path] = []

    def checked_out(revision: str, name: str) -> Path:
        git("worktree", "add", "--detach", str(folder / name), revision, cwd=root)
        made.append(folder / name)
        return folder / name

    try:
        old = checked_out(options.old, "old")
        if options.patch:
            git("apply", str(options.patch.resolve()), cwd=old)
        new = root if options.new == "." else checked_out(options.new, "new")
        name = f"{options.old} with {options.patch.name}" if options.patch else options.old
        yield [
            Side(name, old, told(old, folder / "old-told")),
            Side(options.new, new, told(new, folder / "new-told")),
        ]
    finally:
        for path in made:
            git("worktree", "remove", "--force", str(path), cwd=root)


def told(code: Path, folder: Path) -> Path:
    """A folder that tells Python of the entry points that `code` has now.

    Recipes name their parts by entry point. Those of the installed seqssl may belong to another revision.
    """
    project = tomllib.loads((code / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    identity = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(identity, encoding="utf-8")
    groups = {"console_scripts": project.get("scripts", {}), **project.get("entry-points", {})}
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def trained(recipe: str, side: Side, options: argparse.Namespace, folder: Path) -> list[Record]:
    """The records of a run of one side, in a process of its own."""
    out = folder / "runs" / side.code.name / recipe
    updates = options.updates
    command = [sys.executable, "-m", "seqssl", "train", f"recipe={recipe}", "size=tiny", f"out={out}"]
    command += [f"train.{name}={updates}" for name in ("num_updates", "save_every", "eval_every")]
    command += ["train.log_every=1", f"train.eval_batches={HELD_OUT_BATCHES}"]
    command += [f"train.precision={options.precision}", "train.device=cpu"]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}  # as many threads as given, else one
    environment["PYTHONPATH"] = os.pathsep.join([str(side.code), str(side.entry_points)])
    if options.cache:
        environment["SEQSSL_CACHE"] = str(options.cache.resolve())
    done = subprocess.run(command, cwd=side.code, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise RunFailed(f"{side.name}: exit code {done.returncode}\n{said}")
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def report(recipe: str, old: Sequence[Record], new: Sequence[Record], seconds: float) -> bool:
    """Print a recipe's table; whether both sides are the same."""
    training = compared(updates_of(old), updates_of(new))
    held_out = compared(held_out_of(old), held_out_of(new))
    rows = [*training, *(row for row in held_out if row.first is not None)]
    same = all(row.first is None for row in rows) and len(training) > 0 and len(held_out) > 0
    print(f"{recipe}: {'equal' if same else 'not the same'} ({seconds:.0f} s)")
    width = max([30, *(len(f"held-out {row.metric}") + 2 for row in rows)])
    print(f"  {'metric':{width}}{'first update that differs':>27}{'largest relative difference':>29}")
    for row in training:
        print_row(row, width)
    equal = sum(row.first is None for row in held_out)
    print_row(Row(f"held-out record: {equal} metrics", None, 0.0), width)
    for row in held_out:
        if row.first is not None:
            print_row(Row(f"held-out {row.metric}", row.first, row.largest), width)
    for side, one, other in (("OLD", old, new), ("NEW", new, old)):
        alone = sorted(metrics_of(one) - metrics_of(other))
        if alone:
            print(f"  only in {side}: {', '.join(alone)}")
    print(flush=True)
    return same


def print_row(row: Row, width: int) -> None:
    """A line of the table."""
    largest = "" if row.first is None else f"{row.largest:.1e}"
    print(f"  {row.metric:{width}}{'equal' if row.first is None else row.first:>27}{largest:>29}")


def updates_of(records: Sequence[Record]) -> dict[int, Record]:
    """What is compared of each update."""
    training = (record for record in records if record["kind"] == "train")
    return {record["step"]: {k: v for k, v in record.items() if is_watched(k)} for record in training}


def held_out_of(records: Sequence[Record]) -> dict[int, Record]:
    """What is compared of the held-out data, by update."""
    held_out = (record for record in records if record["kind"] == "valid")
    return {record["step"]: {k: v for k, v in record.items() if k not in NOT_COMPARED} for record in held_out}


def is_watched(metric: str) -> bool:
    """Whether a training metric is compared: losses, of one kind of data too, and the gradient's norm."""
    parts = metric.split("/")
    return metric == "grad_norm" or "loss" in (parts[0], *parts[1:2])


def metrics_of(records: Sequence[Record]) -> set[str]:
    """The names that could be compared, were they on both sides."""
    training = {name for record in updates_of(records).values() for name in record}
    return training | {f"held-out {name}" for record in held_out_of(records).values() for name in record}


def compared(old: dict[int, Record], new: dict[int, Record]) -> list[Row]:
    """A row for each metric that both sides have; an update where one has none differs."""
    both = set(itertools.chain(*old.values())) & set(itertools.chain(*new.values()))
    rows = []
    for metric in sorted(both, key=lambda name: (name != "loss", name)):
        first, largest = None, 0.0
        for step in sorted(old.keys() | new.keys()):
            pair = [side.get(step, {}).get(metric) for side in (old, new)]
            if repr(pair[0]) != repr(pair[1]):  # as JSON has them, nan and -0.0 too
                first = step if first is None else first
                largest = max(largest, relative_difference(*pair))
        rows.append(Row(metric, first, largest))
    return rows


def relative_difference(old: object, new: object) -> float:
    """|old - new| / |old|; infinite where that is no number."""
    if not isinstance(old, int | float) or not isinstance(new, int | float):
        return math.inf
    return abs(old - new) / abs(old) if old else math.inf


def git(*arguments: str, cwd: Path | None = None) -> str:
    """What a git command prints; a failure ends the script with git's own words."""
    done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

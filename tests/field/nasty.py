"""Data made to break a codebook: each trains as `seqssl train data=FOLDER` would, and the health rules judge it.

    python tests/field/nasty.py OUT                          all of them, 400 updates each; OUT/table.md
    python tests/field/nasty.py OUT at-rest one-repeat --updates 200 quantizer_norm=none

A corpus passes if `seqssl doctor` has no finding that is a failure at the end, or if the data are refused in words.
Corpora that are done are not trained again.
"""

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

RATE = 50.0
BOUNDARY_PHONES = ((300, 2300), (700, 1200), (450, 1900), (350, 800), (600, 1700))  # formants in Hz


def movement(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Acceleration in g of somebody who changes what they do every few seconds."""
    pieces = []
    while sum(map(len, pieces)) < seconds * RATE:
        t = np.arange(int(rng.uniform(3, 12) * RATE)) / RATE
        pace, size = rng.uniform(0.5, 4), rng.uniform(0.02, 0.8)
        phases = rng.uniform(0, 2 * np.pi, 3)
        gravity = rng.normal(size=3)
        gravity /= np.linalg.norm(gravity)
        wave = np.sin(2 * np.pi * pace * t[:, None] + phases) + 0.4 * np.sin(4 * np.pi * pace * t[:, None])
        pieces.append(gravity + size * wave * rng.uniform(0.2, 1, 3))
    values = np.concatenate(pieces)[: int(seconds * RATE)]
    return values + 0.01 * rng.normal(size=values.shape)


def write_people(folder: Path, recordings: list[np.ndarray]) -> None:
    """A CSV file for each recording, each of a person of its own."""
    for number, values in enumerate(recordings):
        times = np.arange(len(values)) / RATE
        table = np.column_stack([times, values])
        np.savetxt(folder / f"p{number:02d}.csv", table, "%.4f", ",", header="time,x,y,z", comments="")


def at_rest(folder: Path, rng: np.random.Generator) -> None:
    """Still for 55 seconds of each minute."""
    found = []
    for _ in range(12):
        values = movement(600, rng)
        still = np.arange(len(values)) % (60 * RATE) > 5 * RATE
        values[still] = [0, 0, 1] + 0.002 * rng.normal(size=(still.sum(), 3))
        found.append(values)
    write_people(folder, found)


def one_dominates(folder: Path, rng: np.random.Generator) -> None:
    """One recording of two hours, eleven of a minute."""
    write_people(folder, [movement(7200, rng), *(movement(60, rng) for _ in range(11))])


def twenty_short(folder: Path, rng: np.random.Generator) -> None:
    """Twenty recordings of twelve seconds."""
    write_people(folder, [movement(12, rng) for _ in range(20)])


def heavy_tails(folder: Path, rng: np.random.Generator) -> None:
    """Noise with spikes of any size."""
    spikes = [0.05 * rng.standard_t(1.3, size=(int(300 * RATE), 3)) for _ in range(12)]
    write_people(folder, [movement(300, rng) + spike for spike in spikes])


def dead_axis(folder: Path, rng: np.random.Generator) -> None:
    """The third axis always says 0."""
    write_people(folder, [movement(300, rng) * [1, 1, 0] for _ in range(12)])


def all_alike(folder: Path, rng: np.random.Generator) -> None:
    """Sixty times the same half minute, with noise of a thousandth of a g."""
    values = movement(30, rng)
    write_people(folder, [values + 0.001 * rng.normal(size=values.shape) for _ in range(60)])


def voice(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Vowels after each other at 16 kHz, from a pulse train through two resonances."""
    from scipy.signal import lfilter

    pieces, pitch = [], rng.uniform(80, 250)
    while sum(map(len, pieces)) < seconds * 16000:
        size = int(rng.uniform(0.08, 0.3) * 16000)
        pulses = (np.arange(size) % int(16000 / (pitch * rng.uniform(0.9, 1.1))) == 0).astype(float)
        x = pulses + 0.02 * rng.normal(size=size)
        for center in BOUNDARY_PHONES[rng.integers(len(BOUNDARY_PHONES))]:
            radius, angle = 0.97, 2 * np.pi * center / 16000
            x = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], x)
        pieces.append(x * rng.uniform(0.3, 1))
    values = np.concatenate(pieces)[: int(seconds * 16000)]
    return 0.3 * values / np.abs(values).max()


def write_voices(folder: Path, recordings: list[np.ndarray]) -> None:
    """Recordings of four speakers."""
    import soundfile

    for number, values in enumerate(recordings):
        place = folder / f"speaker{number % 4}"
        place.mkdir(exist_ok=True)
        soundfile.write(place / f"{number:03d}.wav", values.clip(-1, 1), 16000)


def quiet_and_loud(folder: Path, rng: np.random.Generator) -> None:
    """Half of the recordings at a three-thousandth of full scale, half of them clipped."""
    gains = [0.001, 30.0]
    write_voices(folder, [voice(6, rng) * gains[number % 2] for number in range(80)])


def mostly_silence(folder: Path, rng: np.random.Generator) -> None:
    """Half a second of voice in ten seconds of zeros."""
    found = []
    for _ in range(60):
        values = np.zeros(160000)
        start = rng.integers(150000)
        values[start : start + 8000] = voice(0.5, rng)
        found.append(values)
    write_voices(folder, found)


def write_genome(folder: Path, chromosomes: list[str]) -> None:
    """A FASTA file for each chromosome."""
    for number, text in enumerate(chromosomes):
        (folder / f"chr{number}.fa").write_text(f">chr{number}\n{text}\n")


def extreme_composition(folder: Path, rng: np.random.Generator) -> None:
    """97 % of the bases are A or T, in no order."""
    shares = [0.485, 0.015, 0.015, 0.485]
    write_genome(folder, ["".join(rng.choice([*"ACGT"], 150_000, p=shares)) for _ in range(4)])


def one_repeat(folder: Path, rng: np.random.Generator) -> None:
    """171 bases over and over, one in a hundred changed."""
    unit = rng.choice([*"ACGT"], 171)
    found = []
    for _ in range(4):
        letters = np.tile(unit, 900)
        changed = rng.random(len(letters)) < 0.01
        letters[changed] = rng.choice([*"ACGT"], changed.sum())
        found.append("".join(letters))
    write_genome(folder, found)


def one_tune(folder: Path, rng: np.random.Generator) -> None:
    """Sixty files of one tune."""
    bars = ["CDEF GABc", "cBAG FEDC", "CEGc cGEC", "DFAd dAFD"] * 4
    for number in range(60):
        text = f"X:1\nT:tune {number}\nM:4/4\nL:1/8\nK:C\n{'|'.join(bars)}|\n"
        (folder / f"{number:02d}.abc").write_text(text)


def stuck(folder: Path, rng: np.random.Generator) -> None:
    """Sensors that say the same for weeks, and nothing for others."""
    import pandas as pd

    for number in range(6):
        hours = np.arange(24 * 365)
        table = pd.DataFrame({"time": pd.date_range("2021-01-01", periods=len(hours), freq="1h")})
        for name, usual, size in (("temperature", 10, 6), ("pressure", 1013, 5), ("wind", 8, 2)):
            walk = np.convolve(rng.normal(size=len(hours) + 23), np.ones(24) / 24, "valid")
            values = usual + size * (np.sin(2 * np.pi * hours / 24 + number) + 3 * walk)
            for start in rng.integers(0, len(hours), 12):
                values[start : start + 500] = values[start]
            for start in rng.integers(0, len(hours), 5):
                values[start : start + 300] = np.nan
            table[name] = values
        table.to_csv(folder / f"station{number}.csv", index=False)


CORPORA: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "at-rest": at_rest,
    "one-dominates": one_dominates,
    "twenty-short": twenty_short,
    "heavy-tails": heavy_tails,
    "dead-axis": dead_axis,
    "all-alike": all_alike,
    "quiet-and-loud": quiet_and_loud,
    "mostly-silence": mostly_silence,
    "extreme-composition": extreme_composition,
    "one-repeat": one_repeat,
    "one-tune": one_tune,
    "stuck": stuck,
}
DEMOS = ("speech", "wearables", "dna", "weather", "music")


def trial(name: str, out: Path, updates: int, overrides: tuple[str, ...], wanted: str = "") -> dict[str, Any]:
    """Train on one corpus by the recipe wanted, else by the recommended one, and what is to be said of it."""
    import torch

    from seqssl import load_recipe, train
    from seqssl.doctor import examine
    from seqssl.errors import HealthHalt, UserError
    from seqssl.runs.choosing import choose_recipe, recommended_recipes

    torch.set_num_threads(1)
    done = out / f"{name}.json"
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text())
        return found
    every = max(1, updates // 20)
    rest = ["size=tiny", f"out={out / 'runs' / name}", f"train.num_updates={updates}", "train.trackers=[]"]
    rest += [f"train.log_every={every}", f"train.eval_every={updates}", f"train.save_every={updates}"]
    found = {"name": name, "refused": "", "findings": [], "perplexity": 0.0, "size": 0.0}
    try:
        if name in CORPORA:
            source = out / "data" / name
            source.mkdir(parents=True, exist_ok=True)
            CORPORA[name](source, np.random.default_rng(0))
            recipe, settings, _ = choose_recipe(source)
            recipe = wanted or recipe
            rest += [f"data={source}", *settings]
        else:
            recipe = recommended_recipes()[name]
        found["recipe"] = recipe
        run = train(load_recipe(recipe, *rest, *overrides), say=lambda text: None)
    except (UserError, HealthHalt) as error:
        found["refused"] = " ".join(str(error).split())
    else:
        report = examine(out / "runs" / name)
        found["findings"] = [
            {"rule": each.rule, "severity": each.severity, "recovered": report.has_recovered(each)}
            for each in report.findings
        ]
        found["perplexity"] = run.metrics.get("perplexity/hard_0", 0.0)
        found["size"] = run.metrics.get("perplexity/size", 0.0)
        found["metrics"] = {key: value for key, value in run.metrics.items() if "accuracy" in key}
    done.write_text(json.dumps(found, indent=2) + "\n")
    return found


def passes(found: dict[str, Any]) -> bool:
    """Refused in words, or trained without a failure that is still there at the end."""
    bad = [each for each in found["findings"] if each["severity"] == "failure" and not each["recovered"]]
    return bool(found["refused"]) or not bad


def table_of(rows: list[dict[str, Any]]) -> str:
    """The verdicts in Markdown."""
    lines = ["| corpus | recipe | perplexity | findings | verdict |", "| --- | --- | ---: | --- | --- |"]
    for found in rows:
        told = found["refused"] or ", ".join(
            each["rule"] + (" (over)" if each["recovered"] else "") for each in found["findings"]
        )
        size = f"{found['perplexity']:.1f} of {found['size']:.0f}" if found["size"] else ""
        verdict = "refused" if found["refused"] else "healthy" if passes(found) else "**fails**"
        lines.append(
            f"| {found['name']} | {found.get('recipe', '')} | {size} | {told or 'none'} | {verdict} |"
        )
    passed = sum(map(passes, rows))
    return "\n".join([*lines, "", f"{passed} of {len(rows)} are healthy, or refused.", ""])


def main() -> None:
    """Run the corpora that were asked for, two at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("rest", nargs="*", help="corpora, and settings for all of them")
    parser.add_argument("--updates", type=int, default=400)
    given = parser.parse_intermixed_args()
    names = [text for text in given.rest if "=" not in text] or [*CORPORA, *DEMOS]
    overrides = tuple(text for text in given.rest if "=" in text)
    given.out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2) as pool:
        rows = []
        once = partial(trial, out=given.out, updates=given.updates, overrides=overrides)
        for found in pool.map(once, names):
            rows.append(found)
            print(table_of([found]).splitlines()[2], flush=True)
    (given.out / "table.md").write_text(table_of(rows))
    print(table_of(rows).splitlines()[-1])
    sys.exit(0 if all(map(passes, rows)) else 1)


if __name__ == "__main__":
    main()

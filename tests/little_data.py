"""A little data of each kind, written as files; each function returns what so little of it needs."""

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile


def wearables(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    t = np.arange(1500)[:, None] / 50
    x = np.stack([np.sin(t * f + np.arange(3)) * 0.3 + [0, 0, 1] for f in (3, 5, 8, 11)]) + 0.02 * rng.normal(
        size=(4, 1500, 3)
    )
    np.savez(folder / "watch.npz", X=x, pid=["a", "b", "c", "d"], y=["walk", "run", "walk", "run"])
    return ["modality.source_rate_hz=50"]


def dna(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for name in ("chr1", "chr2"):
        letters = "".join(rng.choice([*"ACGT"], 6000)) + "N" * 300 + "acgtry" * 100
        (folder / f"{name}.fa").write_text(f">{name}\n{letters}\n")
    return ["data.valid_groups=[chr2]", "modality.length=512", "data.batch_frames=2048"]


def weather(folder: Path) -> list[str]:
    for place, phase in (("north", 0.0), ("south", 2.0)):
        times = pd.date_range("2021-01-01", periods=600, freq="1h")
        hours = np.arange(600) / 24 * 2 * np.pi + phase
        table = pd.DataFrame(
            {"time": times, "temp_air": 10 + 5 * np.sin(hours), "ghi": np.maximum(0, np.sin(hours))}
        )
        table.loc[50:60, "temp_air"] = np.nan
        table.to_csv(folder / f"{place}.csv", index=False)
    return ["modality.columns=[temp_air,ghi]", "data.valid_groups=[south]"]


def music(folder: Path) -> list[str]:
    for tune in range(4):
        notes = "".join("CDEFGABc"[(i * (tune + 2)) % 8] for i in range(64))
        bars = "|".join(notes[i : i + 8] for i in range(0, 64, 8))
        (folder / f"{tune}.abc").write_text(f"X:1\nT:tune {tune}\nM:4/4\nL:1/8\nK:C\n{bars}|\n")
    return ["data.valid_share=0.3"]


def speech(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    seconds = np.arange(3 * 16000) / 16000
    for number in range(4):
        voice = sum(np.sin(2 * np.pi * (90 + 20 * number) * k * seconds) / k for k in range(1, 20))
        loudness = 0.05 * np.abs(np.sin(2 * np.pi * 3 * seconds))
        noise = 0.002 * rng.normal(size=len(seconds))
        soundfile.write(folder / f"{number}.flac", voice * loudness + noise, 16000)
    return ["data.join_seconds=null"]


SOURCES = {"wearables": wearables, "dna": dna, "weather": weather, "music": music}

"""C: who is who in names of public collections, from the files to the rows and what is said."""

from pathlib import Path

import numpy as np
import pandas as pd
from field import Prepared, prepare

NDBC = "#YY  MM DD hh mm WSPD ATMP\n#yr  mo dy hr mn m/s  degC\n"


def buoys(folder: Path) -> Prepared:
    """Three stations in two years, a value every half an hour, with minutes."""
    folder.mkdir()
    for place, (station, year) in enumerate(
        (s, y) for s in ("44025", "41nt1", "46042") for y in (2019, 2020)
    ):
        times = pd.date_range(f"{year}-01-01 00:20", periods=200, freq="30min")
        rows = [f"{t:%Y %m %d %H %M} {n % 7 + 0.5} {place + n % 9}.25" for n, t in enumerate(times)]
        (folder / f"{station}h{year}.txt").write_text(NDBC + "\n".join(rows) + "\n")
    return prepare("weather", folder, "modality.columns=[WSPD,ATMP]", "modality.freq=30min")


def test_years_of_a_buoy_are_one_group_and_its_minutes_are_read(tmp_path: Path) -> None:
    found = buoys(tmp_path / "in")
    assert {row["group"] for row in found.rows} == {"44025h", "41nt1h", "46042h"}, found.message
    assert sum(row["length"] for row in found.rows) == 1200 and "averaged" not in found.said
    assert "the header stands in a comment, above one that holds units" in found.said


def recordings(folder: Path, *names: str) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for name in names:
        table = pd.DataFrame(np.array([0, 0, 0.9]) + 0.1 * rng.normal(size=(750, 3)), columns=["x", "y", "z"])
        table.insert(0, "time", np.arange(750) / 25)
        table.round(4).to_csv(folder / name, index=False)
    return folder


def test_a_person_within_names_is_said_where_files_are_groups(tmp_path: Path) -> None:
    names = [f"HuGaDB_v1_{act}_{who}_{n}.csv" for act in ("walking", "running") for who in ("01", "02")
             for n in ("00", "01")]  # fmt: skip
    source = recordings(tmp_path / "in", *names)
    found = prepare("wearables", source, "modality.calibrate=false")
    assert len({row["group"] for row in found.rows}) == 8
    assert "if 01 in HuGaDB_v1_running_01_00 says whose it is" in found.said
    setting = found.said.partition("notice: ")[2].partition(" makes groups")[0]
    assert setting.startswith("modality.group_pattern='"), found.said
    told = prepare("wearables", source, "modality.calibrate=false", setting)
    assert {row["group"] for row in told.rows} == {"01", "02"} and "makes groups" not in told.said


def test_the_same_of_stations(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for year in (2019, 2020):
        for station in ("001", "002"):
            hours = pd.date_range(f"{year}-01-01", periods=300, freq="h")
            table = pd.DataFrame({"time": hours, "temp": np.arange(300) % 24 / 2, "rain": np.arange(300) % 5})
            table.to_csv(tmp_path / "in" / f"{year}_{station}.csv", index=False)
    found = prepare("weather", tmp_path / "in", "modality.columns=[temp,rain]")
    assert "modality.group_pattern=" in found.said and "if 001 in 2019_001 says whose it is" in found.said

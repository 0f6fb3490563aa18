"""B: what cannot have been measured is missing and counted; a wrong unit is refused with the setting that helps."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from field import prepare, values_of
from hypothesis import given
from hypothesis import strategies as st

from modalities.reading.quantities import TEMPERATURE as TEMPERATURE_OF_AIR
from modalities.reading.quantities import is_fraction, likely_unit, quantity_of, sentinels_in, unit_in

HOURS = pd.date_range("2020-01-01", periods=720, freq="h")
RNG = np.random.default_rng(0)
TEMPERATURE = (8 * np.sin(np.arange(720) / 24 * 2 * np.pi) + RNG.normal(size=720)).round(1)


def table(folder: Path, **columns: object) -> Path:
    folder.mkdir(exist_ok=True)
    pd.DataFrame({"time": HOURS, **columns}).to_csv(folder / "s.csv", index=False)
    return folder


def observed(rows: object) -> np.ndarray:
    return np.concatenate([values_of(row) for row in rows])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "sentinel", [-999, -99, -99.9, 999.9, 9999, 99999, -8888, -7777, -6999, -32767, -32768, 65535, -200, 1e20, -9999.9]
)  # fmt: skip
def test_sentinels_are_missing_and_said(tmp_path: Path, sentinel: float) -> None:
    values = TEMPERATURE.copy()
    values[50:70] = sentinel
    found = prepare("weather", table(tmp_path / "in", T2M=values), "modality.columns=[T2M]")
    assert np.isnan(observed(found.rows)).sum() == 20
    assert f"T2M: 20 of 720 values are {sentinel:g}" in found.said


@pytest.mark.parametrize(
    "values",
    [
        np.where(
            RNG.random(720) < 0.9, 0, RNG.exponential(3, 720).round(1)
        ),  # rain: nothing, and a few heavy hours
        np.append(RNG.exponential(2, 719).round(1), 60.0),  # one storm
        RNG.integers(0, 361, 720),  # a wind direction
        np.where(np.arange(720) % 24 < 12, 0, 99),  # full or empty
        RNG.choice([0, 1, 2, 3, 8, 9], 720),  # codes
        np.append(1013 + 8 * RNG.normal(size=719), 999.9).round(1),  # a pressure that looks like one
        np.where(RNG.random(720) < 0.3, 100.0, (40 + 30 * RNG.random(720)).round(0)),  # fog
    ],
    ids=["rain", "storm", "direction", "switch", "codes", "pressure", "fog"],
)
def test_measurements_are_no_sentinels(values: np.ndarray) -> None:
    assert sentinels_in(values.astype(float)) == []


@given(st.lists(st.floats(-50, 50), min_size=20, max_size=200), st.integers(0, 30))
def test_no_sentinel_among_values_of_one_range(values: list[float], count: int) -> None:
    """Whatever lies within the range of the rest is a measurement, however often it occurs."""
    data = np.array([*values, *([np.median(values)] * count)])
    assert all(abs(value) > np.ptp(values) / 2 for value, _ in sentinels_in(data))


def test_most_of_a_column_is_not_dropped_without_a_word(tmp_path: Path) -> None:
    values = TEMPERATURE.copy()
    values[100:600] = -999
    source = table(tmp_path / "in", T2M=values)
    found = prepare("weather", source, "modality.columns=[T2M]")
    assert found.code == 2 and "modality.missing_values=[-999]" in found.message
    told = prepare(
        "weather",
        source,
        "modality.columns=[T2M]",
        "modality.missing_values=[-999]",
        "modality.min_observed=0.1",
    )
    assert np.nanmin(observed(told.rows)) > -20
    kept = prepare("weather", source, "modality.columns=[T2M]", "modality.detect_missing=false")
    assert np.nanmin(observed(kept.rows)) == -999


UNITS = {
    "degF": (TEMPERATURE * 1.8 + 32, "temp_air", TEMPERATURE),
    "K": (TEMPERATURE + 273.15, "temp_air", TEMPERATURE),
    "fraction": (0.4 + 0.4 * RNG.random(720), "relative_humidity", None),
    "Pa": (101_300 + 500 * RNG.normal(size=720), "pressure", None),
    "kPa": (101.3 + 0.5 * RNG.normal(size=720), "pressure", None),
}


@pytest.mark.parametrize("unit", UNITS)
def test_a_wrong_unit_is_refused_and_the_setting_mends_it(tmp_path: Path, unit: str) -> None:
    values, column, right = UNITS[unit]
    values = values + 60 if unit == "degF" else values  # a hot place, or nothing would tell
    source = table(tmp_path / "in", **{column: values.round(3)})
    found = prepare("weather", source, f"modality.columns=[{column}]")
    assert found.code == 2 and f"modality.units.{column}={unit}" in found.message, found.message
    told = prepare("weather", source, f"modality.columns=[{column}]", f"modality.units.{column}={unit}")
    assert told.code == 0 and f"{column}: from {unit}" in told.said
    if right is not None:
        shift = 60 / 1.8 if unit == "degF" else 0
        np.testing.assert_allclose(observed(told.rows)[:, 0], right + shift, atol=0.01)


def test_a_unit_that_the_table_says_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    lines = [
        f"{time:%Y-%m-%d %H:%M},{value:.2f}"
        for time, value in zip(HOURS, TEMPERATURE * 1.8 + 32, strict=True)
    ]
    (folder / "s.csv").write_text("\n".join(["time,temp_air", "yyyy-mm-dd hh:mm,degF", *lines]) + "\n")
    found = prepare("weather", folder, "modality.columns=[temp_air]")
    np.testing.assert_allclose(observed(found.rows)[:, 0], TEMPERATURE, atol=0.01)


@pytest.mark.parametrize(
    ("name", "unit", "low"),
    [
        ("temperature_2m (°C)", "degC", -95),
        ("Temp [°F]", "degF", -139),
        ("rh (%)", "%", 0),
        ("x (furlongs)", "", None),
    ],
)
def test_units_in_names(name: str, unit: str, low: float | None) -> None:
    assert unit_in(name) == unit
    known = quantity_of(name, unit)
    assert (known is None) == (low is None) and (known is None or known.lowest == pytest.approx(low, abs=1))


def test_fractions_and_units_by_evidence() -> None:
    assert (
        is_fraction(RNG.random(100))
        and not is_fraction(100 * RNG.random(100))
        and not is_fraction(np.zeros(100))
    )
    assert likely_unit(np.full(100, 295.0), TEMPERATURE_OF_AIR) == "K"
    assert likely_unit(np.full(100, 5000.0), TEMPERATURE_OF_AIR) == ""


def movement(
    folder: Path, scale: float = 1.0, turn: float | None = None, *, still: bool = False, count: int = 3000
) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(1)
    shake = 0.002 if still else 0.15
    frame = (
        pd.DataFrame(np.array([0, 0, 0.9]) + shake * rng.normal(size=(count, 3)), columns=["x", "y", "z"])
        * scale
    )
    if turn is not None:
        noise = rng.normal(size=(count, 3)) * (0.01 if still else 1.0)
        frame[["gyro_x", "gyro_y", "gyro_z"]] = turn * (noise + (0.03 if still else 0))
    frame.insert(0, "time", np.arange(count) / 50)
    frame.to_csv(folder / "p.csv", index=False)
    return folder


@pytest.mark.parametrize(("scale", "unit"), [(1, "g"), (9.80665, "m/s2"), (1000, "mg")])
def test_units_of_acceleration_are_found(tmp_path: Path, scale: float, unit: str) -> None:
    found = prepare("wearables", movement(tmp_path / "in", scale), "modality.calibrate=false")
    assert f"the accelerometer in {unit}" in found.said
    assert np.nanmean(observed(found.rows)[:, 2]) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("counts", [64, 256, 2048, 16384])
def test_counts_are_refused_with_their_scale(tmp_path: Path, counts: int) -> None:
    source = movement(tmp_path / "in", counts)
    found = prepare("wearables", source, "modality.calibrate=false")
    assert found.code == 2 and f"modality.scale={1 / counts:.7g}" in found.message, found.message
    told = prepare("wearables", source, "modality.calibrate=false", f"modality.scale={1 / counts:.7g}")
    assert np.nanmean(observed(told.rows)[:, 2]) == pytest.approx(0.9, abs=0.02)


def test_a_gyroscope_in_degrees_is_told_by_a_sensor_that_lies_still(tmp_path: Path) -> None:
    still = movement(tmp_path / "in", turn=180 / np.pi, still=True)
    found = prepare(
        "wearables",
        still,
        "modality.gyroscope=true",
        "modality.calibrate=false",
        "modality.nonwear_minutes=600",
    )
    assert found.code == 2 and "modality.gyroscope_units=deg/s" in found.message
    settings = ("modality.gyroscope=true", "modality.calibrate=false", "modality.nonwear_minutes=600")
    told = prepare("wearables", still, *settings, "modality.gyroscope_units=deg/s")
    assert told.code == 0
    right = movement(tmp_path / "right", turn=1.0, still=True)
    assert prepare("wearables", right, *settings).code == 0


def test_a_gyroscope_in_radians_said_to_be_in_degrees_is_told_by_one_that_is_moved(tmp_path: Path) -> None:
    source = movement(tmp_path / "in", turn=0.5)
    settings = ("modality.gyroscope=true", "modality.calibrate=false")
    found = prepare("wearables", source, *settings, "modality.gyroscope_units=deg/s")
    assert found.code == 2 and "modality.gyroscope_units=rad/s" in found.message
    assert prepare("wearables", source, *settings).code == 0


def test_an_empatica_file_says_its_rate_and_start(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = np.rint(64 * (np.array([0, 0, 0.9]) + 0.1 * rng.normal(size=(1920, 3)))).astype(int)
    head = ["1544027337.000000, 1544027337.000000, 1544027337.000000", "32.000000, 32.000000, 32.000000"]
    (folder / "ACC.csv").write_text("\n".join([*head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    found = prepare("wearables", folder, "modality.calibrate=false")
    assert sum(row["length"] for row in found.rows) == pytest.approx(1800, abs=30)
    assert found.rows[0]["start"].startswith("2018-12-05T16:28:57")
    assert np.nanmean(observed(found.rows)[:, 2]) == pytest.approx(0.9, abs=0.02)

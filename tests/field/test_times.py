"""A: times are what the whole column says, whatever its format; what is not certain is refused with a setting."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from field import Prepared, prepare, values_of

HOURS = pd.date_range("2020-01-01", periods=360, freq="h")
TEMPERATURE = (10 + 8 * np.sin(np.arange(360) / 24 * 2 * np.pi) + np.arange(360) % 7 / 10).round(2)
COLUMNS = "modality.columns=[temp_air]"


def table(folder: Path, times: object, name: str = "s.csv", **columns: object) -> Path:
    folder.mkdir(exist_ok=True)
    frame = pd.DataFrame(
        {**({"time": times} if times is not None else {}), **columns, "temp_air": TEMPERATURE}
    )
    frame.to_csv(folder / name, index=False)
    return folder


def steps(found: Prepared) -> "pd.Series[float]":
    """All values by time, in order."""
    parts = []
    for row in found.rows:
        step = round(1 / found.manifest["spec"]["rate_hz"])
        times = pd.to_datetime(row["start_s"] + step * np.arange(row["length"]), unit="s")
        parts.append(pd.Series(values_of(row)[:, 0], index=times))
    return pd.concat(parts).sort_index() if parts else pd.Series(dtype=float)


def right(found: Prepared, start: str = "2020-01-01") -> None:
    series = steps(found)
    assert len(series) == 360, found.message
    assert series.index[0] == pd.Timestamp(start), found.message
    np.testing.assert_allclose(series.to_numpy(), TEMPERATURE, atol=1e-3)


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%SZ", "%Y/%m/%d %H:%M:%S", "%d/%m/%Y %H:%M", "%m/%d/%Y %I:%M %p",
        "%d.%m.%Y %H:%M", "%d.%m.%y %H.%M", "%d-%b-%Y %H:%M:%S", "%b %d, %Y %H:%M", "%Y%m%d %H:%M", "%Y%m%dT%H%M%S",
        "%Y-%m-%d_%H:%M:%S", "%d%b%Y:%H:%M:%S", "%Y-%m-%d %H:%M:%S UTC", "%Y-%m-%d %H:%M:%S+00:00", "%d.%m.%Y, %H:%M",
        "%m/%d/%y %I %p", "%Y-%j %H:%M", "%a, %d %b %Y %H:%M:%S",
    ],
)  # fmt: skip
def test_formats_of_text_are_found(tmp_path: Path, form: str) -> None:
    found = prepare("weather", table(tmp_path / "in", HOURS.strftime(form)), COLUMNS)
    right(found)
    assert "times in 'time': " in found.said


@pytest.mark.parametrize(
    "numbers",
    [
        HOURS.strftime("%Y%m%d%H").astype(int),
        HOURS.strftime("%Y%m%d%H%M").astype(int),
        HOURS.strftime("%Y%m%d%H%M%S").astype("int64"),
        HOURS.strftime("%Y%m%d%H").astype(float),
        (HOURS - pd.Timestamp(0)) // pd.Timedelta(seconds=1),
        (HOURS - pd.Timestamp(0)) // pd.Timedelta(milliseconds=1),
        (HOURS - pd.Timestamp(0)) // pd.Timedelta(microseconds=1),
        (HOURS - pd.Timestamp("1899-12-30")) / pd.Timedelta(days=1),
    ],
    ids=["yyyymmddhh", "minutes", "seconds", "float dates", "epoch s", "epoch ms", "epoch us", "excel"],
)
def test_numbers_are_dates_before_they_are_seconds(tmp_path: Path, numbers: object) -> None:
    right(prepare("weather", table(tmp_path / "in", numbers), COLUMNS))


def test_daily_dates_in_numbers(tmp_path: Path) -> None:
    days = pd.date_range("2010-01-01", periods=360)
    found = prepare(
        "weather", table(tmp_path / "in", days.strftime("%Y%m%d").astype(int)), COLUMNS, "modality.freq=1D"
    )
    assert steps(found).index[0] == pd.Timestamp("2010-01-01") and len(steps(found)) == 360


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d {}:00", "%Y-%m-%d {}:00:00", "%d.%m.%Y {}:00", "%Y%m%d{}", "%Y/%m/%d {}00"]
)
def test_hour_24_is_the_midnight_that_follows(tmp_path: Path, form: str) -> None:
    texts = [
        (time - pd.Timedelta(days=1)).strftime(form).format("24")
        if time.hour == 0
        else time.strftime(form).format(f"{time.hour:02}")
        for time in HOURS
    ]
    right(prepare("weather", table(tmp_path / "in", texts), COLUMNS))


PARTS = {
    "date and time": {"Date": HOURS.strftime("%d/%m/%Y"), "Time": HOURS.strftime("%H.%M.%S")},
    "date and hour": {"date": HOURS.strftime("%Y-%m-%d"), "hour": HOURS.hour},
    "date and hhmm": {"date": HOURS.strftime("%Y-%m-%d"), "time": HOURS.hour * 100},
    "NASA POWER": {"YEAR": HOURS.year, "MO": HOURS.month, "DY": HOURS.day, "HR": HOURS.hour},
    "year and doy": {"year": HOURS.year, "doy": HOURS.dayofyear, "hour": HOURS.hour},
    "German": {"Datum": HOURS.strftime("%d.%m.%Y"), "Time": HOURS.strftime("%H:%M")},
}


@pytest.mark.parametrize("name", PARTS)
def test_a_time_in_several_columns_is_one(tmp_path: Path, name: str) -> None:
    right(prepare("weather", table(tmp_path / "in", None, **PARTS[name]), COLUMNS))


def test_columns_of_a_time_can_be_named(tmp_path: Path) -> None:
    columns = {"Tag": HOURS.strftime("%d.%m.%Y"), "Uhr": HOURS.strftime("%H:%M")}
    source = table(tmp_path / "in", None, **columns)
    right(prepare("weather", source, COLUMNS, "modality.time_column=Tag+Uhr"))


def test_a_time_of_day_alone_is_no_time(tmp_path: Path) -> None:
    source = table(tmp_path / "in", HOURS.strftime("%H:%M:%S"))
    found = prepare("weather", source, COLUMNS)
    assert found.code == 2 and "without a date" in found.message
    found = prepare("weather", source, COLUMNS, 'modality.time_format="%H:%M:%S"')
    assert found.code == 2 and "no date" in found.message


@pytest.mark.parametrize(
    "form", ["%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%d-%m-%Y %H:%M:%S", "%d.%m.%y %H:%M:%S"]
)
def test_what_could_be_two_dates_is_refused_with_both_settings(tmp_path: Path, form: str) -> None:
    minutes = pd.date_range("2021-03-05", periods=360, freq="min")
    source = table(tmp_path / "in", minutes.strftime(form))
    found = prepare("weather", source, COLUMNS, "modality.freq=1min")
    if "%y" in form or "." in form:  # several readings may be left; none is taken
        assert found.code == 2 and "modality.time_format=" in found.message
        return
    assert found.code == 2 and f'modality.time_format="{form}"' in found.message
    told = prepare("weather", source, COLUMNS, "modality.freq=1min", f'modality.time_format="{form}"')
    assert steps(told).index[0] == pd.Timestamp("2021-03-05")


def test_regular_steps_decide_between_two_readings(tmp_path: Path) -> None:
    """Twelve days are dates both ways; only one of them has a step every hour."""
    times = pd.date_range("2020-01-01", periods=288, freq="h")
    folder = tmp_path / "in"
    folder.mkdir()
    frame = pd.DataFrame({"time": times.strftime("%d/%m/%Y %H:%M"), "temp_air": TEMPERATURE[:288]})
    frame.to_csv(folder / "s.csv", index=False)
    series = steps(prepare("weather", folder, COLUMNS))
    assert len(series) == 288 and series.index[-1] == times[-1]


def test_the_time_zone_and_summer_time(tmp_path: Path) -> None:
    local = pd.date_range("2020-01-01", periods=360, freq="h", tz="America/New_York")
    source = table(tmp_path / "in", local.tz_localize(None).strftime("%Y-%m-%d %H:%M"))
    right(prepare("weather", source, COLUMNS, "modality.timezone=America/New_York"), "2020-01-01 05:00")


def movement(
    folder: Path, times: object, name: str = "time", rate_hz: float = 25.0, seconds: float = 60.0
) -> Path:
    folder.mkdir()
    count = int(rate_hz * seconds)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        np.array([0, 0, 0.9]) + 0.1 * rng.normal(size=(count, 3)), columns=["x", "y", "z"]
    ).round(4)
    if times is not None:
        frame.insert(0, name, times)
    frame.to_csv(folder / "p1.csv", index=False)
    return folder


SAMPLES = pd.date_range("2021-03-15 11:59:40", periods=1500, freq="40ms")


@pytest.mark.parametrize(
    ("times", "start"),
    [
        (SAMPLES.strftime("%d/%m/%Y %H:%M:%S.%f"), "2021-03-15T11:59:40"),
        (SAMPLES.strftime("%Y-%m-%d %I:%M:%S.%f %p"), "2021-03-15T11:59:40"),
        (SAMPLES.strftime("%Y-%m-%d %H:%M:%S,%f"), "2021-03-15T11:59:40"),
        (SAMPLES.strftime("%Y-%m-%d %H:%M:%S:%f"), "2021-03-15T11:59:40"),
        ((SAMPLES - pd.Timestamp(0)) // pd.Timedelta(milliseconds=1), "2021-03-15T11:59:40"),
        ((SAMPLES - pd.Timestamp(0)) // pd.Timedelta(nanoseconds=1), "2021-03-15T11:59:40"),
        (np.arange(1500) * 40, ""),
        (np.arange(1500) * 40_000_000, ""),
        (np.arange(1500) / 25, ""),
        (SAMPLES.strftime("%H:%M:%S.%f"), ""),
    ],
    ids=["day first", "am and pm", "comma", "colon", "epoch ms", "epoch ns", "ms", "ns", "s", "time of day"],
)
def test_times_of_a_watch(tmp_path: Path, times: object, start: str) -> None:
    found = prepare("wearables", movement(tmp_path / "in", times), "modality.calibrate=false")
    assert abs(sum(row["length"] for row in found.rows) - 1800) < 30, found.message
    first = min(found.rows, key=lambda row: row["start_s"])
    assert first["start"].startswith(start) and bool(first["start"]) == bool(start)


def test_a_clock_goes_on_past_midnight(tmp_path: Path) -> None:
    times = pd.date_range("2021-03-15 23:59:40", periods=1500, freq="40ms").strftime("%H:%M:%S.%f")
    found = prepare("wearables", movement(tmp_path / "in", times), "modality.calibrate=false")
    assert found.quality["p1.csv"]["gaps"] == 0 and abs(found.quality["p1.csv"]["seconds"] - 60) < 1


def actigraph(folder: Path, *, hole_s: float, rate: str = "30") -> Path:
    """ActiLife's table, with a hole as its idle sleep makes."""
    folder.mkdir()
    first = pd.date_range("2015-04-02 18:40:00", periods=1800, freq="33333us")
    second = first + pd.Timedelta(seconds=60 + hole_s)
    head = [
        f"------------ Data File Created By ActiGraph GT3X+ ActiLife v6 date format dd/MM/yyyy at {rate} "
        "Hz -----------",
        "Serial Number: X", "Start Time 18:40:00", "Start Date 02/04/2015", "Epoch Period (hh:mm:ss) 00:00:00",
        "Download Time 00:00:00", "Download Date 03/04/2015", "Current Memory Address: 0", "Current Battery Voltage: 4",
        "--------------------------------------------------",
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    rows = [
        f"{time:%d/%m/%Y %H:%M:%S.%f},{x:.3f},{y:.3f},{0.9 + z:.3f}"
        for time, (x, y, z) in zip([*first, *second], 0.1 * rng.normal(size=(3600, 3)), strict=True)
    ]
    names = "Timestamp,Accelerometer X,Accelerometer Y,Accelerometer Z"
    (folder / "p1RAW.csv").write_text("\n".join([*head, names, *rows]) + "\n")
    return folder


@pytest.mark.parametrize("rate", ["30", "100"])
def test_timestamps_beat_the_rate_of_a_header(tmp_path: Path, rate: str) -> None:
    settings = ("modality.calibrate=false", 'modality.time_format="%d/%m/%Y %H:%M:%S.%f"')
    found = prepare("wearables", actigraph(tmp_path / "in", hole_s=300, rate=rate), *settings)
    (quality,) = found.quality.values()
    assert abs(quality["seconds"] - 420) < 1 and quality["gaps"] == 1 and abs(quality["gap_s"] - 300) < 1
    starts = sorted(row["start"][11:19] for row in found.rows)
    assert starts == ["18:40:00", "18:40:30", "18:46:00", "18:46:30"]

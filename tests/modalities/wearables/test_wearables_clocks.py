"""In which unit a column of numbers counts time."""

import numpy as np
import pandas as pd
import pytest
from wearables_files import assert_true, clock, frame, read, refused, truth, values, write

from modalities.wearables.clocks import stated_unit


def counted(path, name: str, rate_hz: float, ticks: float, start: float = 0.0, seconds: float = 40.0):
    """A file whose times count so many ticks a second from a start, in whole ones."""
    times = clock(seconds, rate_hz)
    table = frame(values=truth(times), times=np.rint(start + times * ticks).astype(np.int64))
    return write(path, table.rename(columns={"time": name}))


class TestUnitsInNames:
    @pytest.mark.parametrize(
        "name, unit",
        [
            *[
                ("time_ms", "ms"),
                ("Timestamp_NS", "ns"),
                ("t_us", "us"),
                ("elapsed_s", "s"),
                ("time ms", "ms"),
            ],
            *[("seconds_elapsed", "s"), ("elapsed (ms)", "ms"), ("Time [µs]", "us"), ("milliseconds", "ms")],
            *[("time", ""), ("timestamp (unix)", ""), ("items", ""), ("us_eastern", ""), ("s_time", "")],
        ],
    )
    def test_are_found(self, name, unit):
        assert stated_unit(name) == unit

    @pytest.mark.parametrize("rate_hz", [1000, 500, 50])
    def test_milliseconds_at_any_rate(self, tmp_path, rate_hz):
        rows = read(counted(tmp_path / "p.csv", "time_ms", rate_hz, 1e3))
        assert rows.quality["source_rate_hz"] == pytest.approx(rate_hz)
        assert_true(values(rows))

    @pytest.mark.parametrize("name, ticks", [("timestamp_us", 1e6), ("time_ns", 1e9), ("t_s", 1.0)])
    def test_columns_with_a_unit_are_found(self, tmp_path, name, ticks):
        path = write(tmp_path / "p.csv", frame().assign(time=clock() * ticks).rename(columns={"time": name}))
        assert_true(values(read(path)))

    def test_one_that_cannot_be_is_told(self, tmp_path):
        path = counted(tmp_path / "p.csv", "time_s", 50, 1e3)
        assert "is modality.time_unit right" in refused(path)


class TestUnitsByTheRate:
    @pytest.mark.parametrize("rate_hz, ticks", [(1000, 1e3), (1, 1.0), (1000, 1e6)])
    def test_two_that_are_possible_are_refused(self, tmp_path, rate_hz, ticks):
        seconds = 40.0 if rate_hz > 1 else 400.0
        path = counted(tmp_path / "p.csv", "time", rate_hz, ticks, seconds=seconds)
        reason = refused(path)
        units = {1e3: ("s", "ms"), 1.0: ("s", "ms"), 1e6: ("ms", "us")}[ticks]
        assert all(f"modality.time_unit={unit} for" in reason for unit in units)
        unit = next(unit for unit in units if {"s": 1.0, "ms": 1e3, "us": 1e6}[unit] == ticks)
        told = read(path, time_unit=unit)
        assert told.quality["source_rate_hz"] == pytest.approx(rate_hz)

    @pytest.mark.parametrize("rate_hz, ticks", [(50, 1e3), (100, 1e6), (200, 1e9), (8, 1e3)])
    def test_one_that_is_likely_is_taken(self, tmp_path, rate_hz, ticks):
        rows = read(counted(tmp_path / "p.csv", "time", rate_hz, ticks))
        assert rows.quality["source_rate_hz"] == pytest.approx(rate_hz)

    @pytest.mark.parametrize("ticks, start", [(1e9, 2e14), (1e6, 2e11), (1e3, 3e8), (1e9, 4.9e13)])
    def test_counts_since_a_phone_was_started_are_no_dates(self, tmp_path, ticks, start):
        rows = read(counted(tmp_path / "p.csv", "timestamp", 50, ticks, start))
        assert rows.quality["source_rate_hz"] == pytest.approx(50) and rows.rows[0]["start"] == ""
        assert_true(values(rows))

    @pytest.mark.parametrize("ticks", [1.0, 1e3, 1e6])
    def test_summaries_of_whole_minutes_are_no_fast_samples(self, tmp_path, ticks):
        path = counted(tmp_path / "p.csv", "timestamp", 1 / 60, ticks, 1.6e9 * ticks, seconds=60 * 300)
        assert "its samples are 60 s apart" in refused(path)

    def test_dates_stay_dates(self, tmp_path):
        for ticks in (1e3, 1e6, 1e9):
            rows = read(counted(tmp_path / "p.csv", "time", 50, ticks, 1.6e9 * ticks))
            assert rows.rows[0]["start"] == "2020-09-13T12:26:40.000"

    def test_samples_that_share_a_time_count(self, tmp_path):
        table = pd.DataFrame(frame().assign(time=np.floor(clock())))
        assert "modality.source_rate_hz=50" in refused(write(tmp_path / "p.csv", table))

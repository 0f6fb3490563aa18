"""Recordings of the night in which summer time ends, by the clock on the wall."""

import numpy as np
import pandas as pd
import pytest
from wearables_files import assert_true, clock, frame, read, refused, values, write

NIGHT = pd.Timestamp("2021-10-31 00:59:40", tz="UTC")  # 20 s before clocks are set back in Paris


def night(start=NIGHT, zone="Europe/Paris", form="%d.%m.%Y %H:%M:%S.%f", seconds=40.0) -> pd.DataFrame:
    """A recording by the clock on the wall."""
    wall = (start + pd.to_timedelta(clock(seconds), unit="s")).tz_convert(zone)
    return frame(clock(seconds)).assign(time=wall.strftime(form))


class TestTheEndOfSummerTime:
    @pytest.mark.parametrize("form", ["%d.%m.%Y %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f"])
    @pytest.mark.parametrize("timezone", ["", "Europe/Paris"])
    def test_is_read_on(self, tmp_path, form, timezone):
        rows = read(write(tmp_path / "p1.csv", night(form=form)), timezone=timezone)
        assert rows.quality["late_samples"] == rows.quality["gaps"] == 0
        assert_true(values(rows))
        hour = "00" if timezone else "02"
        assert rows.rows[0]["start"].startswith(f"2021-10-31T{hour}:59:40")
        assert any("the end of summer time" in reading for reading in rows.readings) != bool(timezone)

    @pytest.mark.parametrize(
        "utc, zone",
        [("2021-11-07 05:59:45", "America/New_York"), ("2021-04-03 15:59:45", "Australia/Sydney")],
    )
    def test_is_read_on_elsewhere(self, tmp_path, utc, zone):
        path = write(tmp_path / "p1.csv", night(pd.Timestamp(utc, tz="UTC"), zone, "%Y-%m-%d %H:%M:%S.%f"))
        for timezone in ("", zone):
            rows = read(path, timezone=timezone)
            assert rows.quality["late_samples"] == rows.quality["gaps"] == 0
            assert_true(values(rows))

    def test_is_named_where_the_clock_does_not_go_back_by_just_an_hour(self, tmp_path):
        table = night().drop(index=range(900, 1100))
        reason = refused(write(tmp_path / "p1.csv", table))
        assert "they go back once, by 3595.98 s" in reason and "the end of summer time" in reason

    @pytest.mark.parametrize("start", ["2021-10-30 00:59:40", "2021-10-31 08:59:40", "2021-07-04 00:59:40"])
    def test_is_on_no_other_day_or_hour(self, tmp_path, start):
        moments = pd.Timestamp(start) + pd.to_timedelta(clock(), unit="s")
        moments = moments.where(clock() < 20, moments - pd.Timedelta(hours=1))
        table = frame().assign(time=moments.strftime("%Y-%m-%d %H:%M:%S.%f"))
        assert "earlier than one before" in refused(write(tmp_path / "p1.csv", table))

    def test_is_ambiguous_where_nothing_goes_back(self, tmp_path):
        table = night(NIGHT + pd.Timedelta(minutes=10))
        reason = refused(write(tmp_path / "p1.csv", table), timezone="Europe/Paris")
        assert "are all missing" in reason
        np.testing.assert_equal(read(tmp_path / "p1.csv").quality["late_samples"], 0)

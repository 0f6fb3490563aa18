"""Tables whose rows hold samples of one sensor each."""

import numpy as np
import pandas as pd
import pytest
from wearables_files import assert_true, clock, frame, read, refused, steps, turning, values, write

GYRO = ["gyro_x", "gyro_y", "gyro_z"]


def rotation(times) -> pd.DataFrame:
    return pd.DataFrame(turning(times), columns=GYRO).assign(time=times)


def alternating(offset: float = 0.005, rate_hz: float = 50.0) -> pd.DataFrame:
    """Rows of the accelerometer, and rows of the gyroscope; each blank in the other's columns."""
    return pd.concat([frame(), rotation(clock(40.0, rate_hz) + offset)])


class TestRowsOfOneSensorEach:
    @pytest.mark.parametrize("order", ["by time", "one after the other", "in batches"])
    @pytest.mark.parametrize("offset", [0.005, 0.01, 0.0])
    def test_are_both_read(self, tmp_path, order, offset):
        table = alternating(offset)
        if order == "by time":
            table = table.sort_values("time", kind="stable")
        if order == "in batches":
            table = table.assign(second=table.time // 1).sort_values("second", kind="stable")
        rows = read(write(tmp_path / "p1.csv", table), gyroscope=True)
        both = values(rows)
        assert_true(both, columns=6)
        known = np.isfinite(both[:, 3])
        assert known.mean() > 0.99
        np.testing.assert_allclose(both[known, 3:], turning(steps(len(both)))[known], atol=0.02)
        assert rows.quality["samples"] == 2000 and rows.quality["late_samples"] == 0
        assert "2000 of 4000 rows are samples of another sensor than the accelerometer" in rows.readings

    @pytest.mark.parametrize("rate_hz", [25.0, 200.0])
    def test_may_be_of_two_rates(self, tmp_path, rate_hz):
        table = alternating(rate_hz=rate_hz).sort_values("time", kind="stable")
        both = values(read(write(tmp_path / "p1.csv", table), gyroscope=True))
        assert_true(both, columns=6)
        known = np.isfinite(both[:, 3])
        assert known.mean() > 0.99
        np.testing.assert_allclose(both[known][9:-9, 3:], turning(steps(len(both)))[known][9:-9], atol=0.05)

    @pytest.mark.parametrize("every_s", [0.02, 0.04, 1.0])
    def test_of_what_is_not_read_leave_no_holes(self, tmp_path, every_s):
        heart = pd.DataFrame({"time": np.arange(0, 40, every_s) + 0.005, "hr": 70.0})
        table = pd.concat([frame(), heart]).sort_values("time")
        found = values(read(write(tmp_path / "p1.csv", table)))
        assert np.isfinite(found).all()
        assert_true(found)

    def test_gaps_of_each_stay_gaps(self, tmp_path):
        table = alternating().sort_values("time", kind="stable")
        silent = table.gyro_x.notna() & table.time.between(10, 15)
        both = values(read(write(tmp_path / "p1.csv", table[~silent]), gyroscope=True))
        missing = np.isnan(both[:, 3])
        assert missing[305:445].all() and not missing[5:295].any() and not missing[455:-5].any()
        assert np.isfinite(both[:, :3]).all()


class TestBlankRows:
    def test_of_a_sensor_that_was_off_are_missing(self, tmp_path):
        table = frame()
        table.loc[500:749, ["x", "y", "z"]] = np.nan
        table.loc[1000, ["x", "y", "z"]] = np.nan
        rows = read(write(tmp_path / "p1.csv", table.assign(hr=70)))
        assert rows.quality["accelerometer"]["missing_samples"] == 251
        assert rows.quality["samples"] == 2000
        assert np.isnan(values(rows)[302:448]).all()

    def test_of_a_gyroscope_alone_say_so(self, tmp_path):
        table = alternating().assign(gyro_x=np.nan, gyro_y=np.nan, gyro_z=np.nan)
        assert "set modality.gyroscope=false" in refused(write(tmp_path / "p1.csv", table), gyroscope=True)

"""Units that a file says, and what samples without gravity are in."""

import numpy as np
import pytest
from wearables_files import GRAVITY, clock, found, frame, read, refused, steps, truth, turning, values, write

from modalities.wearables.units import Size, in_g

G = 9.80665


def moving(times, seed: int = 0) -> np.ndarray:
    """Acceleration in g without gravity."""
    return truth(times, seed) - GRAVITY


def named(samples: np.ndarray, unit: str):
    """A table whose header says a unit."""
    return frame(values=samples).rename(columns={axis: f"acc_{axis} ({unit})" for axis in "xyz"})


class TestUnitsThatAFileSays:
    @pytest.mark.parametrize("size", [0.9, 0.2, 5.0])
    @pytest.mark.parametrize("unit, factor", [("m/s^2", G), ("g", 1.0), ("mg", 1000.0)])
    def test_are_taken_where_gravity_was_removed(self, tmp_path, size, unit, factor):
        samples = moving(clock()) * size / np.median(np.linalg.norm(moving(clock()), axis=1)) / G
        rows = read(write(tmp_path / "p1.csv", named(samples * factor, unit)))
        assert np.nanmedian(np.linalg.norm(values(rows), axis=1)) == pytest.approx(size / G, rel=0.02)
        assert any("without gravity" in reading for reading in rows.readings)

    @pytest.mark.parametrize(
        "unit, factor, other", [("g", G, "m/s2"), ("m/s2", 1.0, "g"), ("mg", G, "m/s2"), ("g", 1000.0, "mg")]
    )
    def test_are_refused_where_gravity_contradicts_them(self, tmp_path, unit, factor, other):
        path = write(tmp_path / "p1.csv", named(truth(clock()) * factor, unit))
        reason = refused(path)
        assert f"taken as {unit}, as the file says" in reason
        assert reason.endswith(f"set modality.units={other}")
        np.testing.assert_allclose(values(read(path, units=other)), truth(steps(1200)), atol=2e-3)

    def test_are_taken_where_gravity_agrees(self, tmp_path):
        rows = read(write(tmp_path / "p1.csv", named(truth(clock()) * 0.4 * G, "m/s2")))
        np.testing.assert_allclose(values(rows), 0.4 * truth(steps(1200)), atol=2e-3)
        assert "the accelerometer in m/s2" in rows.readings

    @pytest.mark.parametrize("unit", ["µT", "deg/s", "rad/s"])
    def test_are_refused_where_they_are_those_of_another_sensor(self, tmp_path, unit):
        reason = refused(write(tmp_path / "p1.csv", named(truth(clock()), unit)))
        assert "which is no unit of acceleration" in reason

    def test_are_refused_where_they_differ(self, tmp_path):
        table = frame().rename(columns={"x": "x (g)", "y": "y (m/s2)"})
        reason = refused(write(tmp_path / "p1.csv", table))
        assert "are in different units (g, m/s2)" in reason

    def test_of_the_gyroscope_have_to_be_that_of_the_setting(self, tmp_path):
        table = frame(gyroscope=True).rename(columns={f"gyro_{axis}": f"gyro_{axis} (dps)" for axis in "xyz"})
        table.iloc[:, 4:] = np.rad2deg(0.2 * turning(clock()))
        path = write(tmp_path / "p1.csv", table)
        assert refused(path, gyroscope=True).endswith("set modality.gyroscope_units=deg/s")
        rows = read(path, gyroscope=True, gyroscope_units="deg/s")
        np.testing.assert_allclose(values(rows)[:, 3:], 0.2 * turning(steps(1200)), atol=5e-3)


class TestUnitsThatNobodySays:
    @pytest.mark.parametrize("size", [0.6, 1.0, 1.5])
    def test_are_not_found_without_gravity(self, tmp_path, size):
        samples = moving(clock()) * size / np.median(np.linalg.norm(moving(clock()), axis=1))
        path = write(tmp_path / "p1.csv", frame(values=samples))
        assert "gravity was removed" in refused(path)
        for unit, of_g in (("g", 1.0), ("m/s2", 1 / G)):
            np.testing.assert_allclose(
                values(read(path, units=unit))[9:-9],
                of_g
                * (size / np.median(np.linalg.norm(moving(clock()), axis=1)))
                * moving(steps(1200))[9:-9],
                atol=5e-3,
            )

    @pytest.mark.parametrize("rate_hz", [25.0, 100.0, 1000.0])
    @pytest.mark.parametrize("effort", [0.0, 0.5, 2.0, 5.0])
    def test_gravity_is_seen_in_any_movement(self, rate_hz, effort):
        samples = GRAVITY + effort * moving(clock(30, rate_hz))
        assert Size.of(samples + 0.01 * np.random.default_rng(0).normal(size=samples.shape)).gravity

    def test_absurd_values_do_not_hide_it(self):
        samples = truth(clock())
        samples[::50] = 1e30
        assert Size.of(samples).gravity

    @pytest.mark.parametrize("size", [1.7, 2.0, 2.5, 2.9])
    @pytest.mark.parametrize("unit, of_g", [("g", 1.0), ("m/s2", 1 / G)])
    def test_running_all_the_time_is_2_g_and_more(self, size, unit, of_g):
        running = GRAVITY + 0.5 * moving(clock())
        running *= size / np.median(np.linalg.norm(running, axis=1))
        scaled, found = in_g(running / of_g, "auto")
        assert found == unit
        np.testing.assert_allclose(scaled, running, rtol=1e-5)

    @pytest.mark.parametrize("in_1_g", [1, 2, 8, 16, 27])
    def test_small_counts_are_not_taken_for_g_or_metres(self, in_1_g):
        counts = np.round(in_1_g * truth(clock()))
        with pytest.raises(ValueError, match="counts"):
            in_g(counts, "auto")
        assert in_g(counts, "auto", 1 / in_1_g)[0].dtype == np.float32


class TestCountsWithAnOffset:
    @pytest.mark.parametrize("settings", [{}, {"scale": 1 / 4096}, {"scale": 1.0}])
    def test_are_refused_whatever_the_scale(self, tmp_path, settings):
        path = write(tmp_path / "p1.csv", frame(values=np.round(2048 + 100 * truth(clock()))))
        assert "subtract the offset first" in refused(path, **settings)

    def test_a_sensor_that_stays_upright_is_none_of_them(self):
        counts = np.array([4.0, 61.0, 13.0]) + np.random.default_rng(0).normal(size=(3000, 3))
        assert counts.min() > 0
        scaled, _ = in_g(counts, "auto", 1 / 64)
        np.testing.assert_allclose(scaled, counts / 64, rtol=1e-6)
        with pytest.raises(ValueError, match=r"set modality.scale=0.015625"):
            in_g(counts, "auto")

    def test_a_sensor_that_keeps_one_tilt_is_none_of_them_where_the_scale_is_right(self):
        counts = np.array([32.0, 35.0, 42.0]) + np.random.default_rng(0).normal(size=(3000, 3))
        np.testing.assert_allclose(in_g(counts, "auto", 1 / 64)[0], counts / 64, rtol=1e-6)
        with pytest.raises(ValueError, match="subtract the offset first"):
            in_g(counts, "auto", 1 / 80)

    def test_a_scale_of_the_format_is_believed(self):
        counts = 40 + np.random.default_rng(0).normal(size=(3000, 3))
        assert in_g(counts, "auto", 1 / 64, fixed=True)[0].min() > 0.5


class TestRecordingsOfOneArray:
    """A window of 10 s that is held so that all axes are positive tells its unit badly."""

    def stack(self, path, factor: float, others: float = 1.0):
        windows = np.stack([truth(clock(12), seed) for seed in range(8)])
        windows[::2] = np.abs(windows[::2]) + 0.01  # these point one way
        windows[3] *= others
        np.savez(path, X=np.round(windows * factor, 0 if factor > 100 else 6), pid=np.arange(8) // 2)
        return windows

    @pytest.mark.parametrize("factor", [1000.0, G, 1.0])
    def test_have_one_unit_found_from_all(self, tmp_path, factor):
        windows = self.stack(tmp_path / "a.npz", factor)
        records = found(tmp_path / "a.npz", source_rate_hz=50.0)
        assert len(records) == 8
        for record, window in zip(records, windows, strict=True):
            got = np.median(np.linalg.norm(values(record.read()), axis=1))
            assert got == pytest.approx(np.median(np.linalg.norm(window, axis=1)), rel=0.03)

    def test_that_are_in_another_are_refused(self, tmp_path):
        self.stack(tmp_path / "a.npz", 1000.0, others=0.001 * G)
        records = found(tmp_path / "a.npz", source_rate_hz=50.0)
        with pytest.raises(ValueError, match="taken as mg, the unit of all recordings"):
            records[3].read()
        assert records[2].read().rows

    def test_are_counts_where_no_value_of_any_is_below_zero(self, tmp_path):
        windows = np.stack([np.round(600 + 100 * truth(clock(12), seed)) for seed in range(4)])
        np.savez(tmp_path / "a.npz", X=windows, pid=[1, 1, 2, 2])
        for record in found(tmp_path / "a.npz", source_rate_hz=50.0):
            with pytest.raises(ValueError, match="offset"):
                record.read()

    def test_that_are_stuck_or_unreadable_say_nothing(self, tmp_path):
        ragged = np.empty(5, dtype=object)
        ragged[:] = [1000 * truth(clock(12)), *[np.zeros((600, 3))] * 3, np.zeros((5, 2))]
        np.savez(tmp_path / "a.npz", X=ragged, pid=[1, 2, 3, 4, 5])
        records = found(tmp_path / "a.npz", source_rate_hz=50.0)
        np.testing.assert_allclose(values(records[0].read()), truth(steps(360)), atol=5e-3)

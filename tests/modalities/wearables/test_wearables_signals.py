import collections
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wearables_files import (
    START,
    clock,
    frame,
    read,
    refused,
    steps,
    truth,
    turning,
    values,
    with_actipy,
    write,
)

from modalities.wearables import signals

G = 9.80665


def resampled(times, samples, rate_hz: float = 30.0) -> np.ndarray:
    times = np.asarray(times, dtype=float)
    num_steps = math.floor(times[-1] * rate_hz + 1e-6) + 1
    return signals.resample(times, samples, signals.Clock.of(times), rate_hz, num_steps)


class TestSignals:
    @given(
        st.lists(st.sampled_from([0.005, 0.01, 0.02, 0.02, 0.02, 0.03, 0.2, 1.0]), min_size=3, max_size=60),
        st.sets(st.integers(0, 59), max_size=9),
        st.sampled_from([10.0, 30.0, 37.5]),
    )
    def test_a_step_is_observed_where_samples_on_both_sides_are_near(self, gaps, holes, rate_hz):
        times = np.concatenate([[0.0], np.cumsum(gaps)])
        samples = truth(times)
        samples[[hole for hole in holes if hole < len(times)]] = np.nan
        out = resampled(times, samples, rate_hz)
        longest_s = 1.5 * np.percentile(gaps, 95)
        there = np.isfinite(samples).all(axis=1)
        for step, row in enumerate(out):
            time = step / rate_hz
            around = [
                there[i] and there[i + 1] and gaps[i] <= longest_s + 1e-9
                for i in range(len(gaps))
                if times[i] - 1e-7 <= time <= times[i + 1] + 1e-7
            ]
            assert np.isfinite(row).all() == any(around)
            assert np.isfinite(row).all() or np.isnan(row).all()

    @pytest.mark.parametrize("rate_hz", [20, 25, 30, 31.25, 50, 64, 100, 99.3, 256])
    def test_slow_movement_is_kept(self, rate_hz):
        times = clock(20, rate_hz)
        out = resampled(times, truth(times))
        # Between samples at 20 Hz a cubic has to guess; the end of a stretch has samples on one side only.
        tolerance = 0.01 if rate_hz < 30 else 2e-3
        np.testing.assert_allclose(out[9:-9], truth(steps(len(out)))[9:-9], atol=tolerance)
        np.testing.assert_allclose(out, truth(steps(len(out))), atol=5 * tolerance)

    def test_the_same_rate_changes_nothing(self):
        times = clock(20, 30)
        samples = np.random.default_rng(0).normal(size=(600, 3)).astype(np.float32)
        np.testing.assert_allclose(resampled(times, samples), samples, atol=1e-6)

    @pytest.mark.parametrize("irregular", [False, True])
    def test_fast_vibration_does_not_come_back_as_slow_movement(self, irregular):
        times = clock(40, 200)
        if irregular:
            jitter = np.random.default_rng(0).uniform(-0.45, 0.45, len(times)) / 200
            times = np.sort(np.maximum(times + jitter, 0))
            times -= times[0]
        vibration = np.sin(2 * np.pi * 31.0 * times)[:, None]  # picking samples at 30 Hz would show 1 Hz
        assert signals.Clock.of(times).regular != irregular
        # Lines between uneven samples leave some noise; without a filter 1.0 would be left
        assert np.abs(resampled(times, vibration)[30:-30]).max() < (0.1 if irregular else 0.02)

    def test_long_recordings_are_done_in_pieces(self, monkeypatch):
        times = np.delete(clock(60, 100), slice(3000, 3100))
        samples = truth(times) + np.random.default_rng(0).normal(size=(len(times), 3))
        whole = resampled(times, samples)
        monkeypatch.setattr(signals, "RESAMPLED_STEPS", 97)
        np.testing.assert_allclose(resampled(times, samples), whole, atol=1e-5)

    @given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, np.nan]), min_size=1, max_size=20))
    def test_only_later_times_are_kept(self, times):
        latest, expected = -np.inf, []
        for time in times:
            expected.append(time > latest)
            latest = max(latest, time) if time == time else latest
        assert signals.increasing(np.array(times)).tolist() == expected

    @given(st.lists(st.sampled_from(["", "sit", "run"]), max_size=12))
    def test_the_most_frequent_label(self, names):
        counts = collections.Counter(name for name in names if name)
        expected = min(counts, key=lambda name: (-counts[name], name)) if counts else ""
        assert signals.most_frequent(np.array(names, dtype=object)) == expected


def worn(minutes: float = 15, rate_hz: float = 30.0, seed: int = 0) -> np.ndarray:
    """Half a minute in each of many postures, still but for the sensor's noise; t 3, in g."""
    rng = np.random.default_rng(seed)
    postures = rng.normal(size=(round(minutes * 2), 3))
    postures /= np.linalg.norm(postures, axis=1, keepdims=True)
    still = np.repeat(postures, round(30 * rate_hz), axis=0)
    return (still + rng.normal(0, 0.005, still.shape)).astype(np.float32)


class TestCalibration:
    gain, offset = np.array([1.03, 0.97, 1.02]), np.array([0.03, -0.02, 0.04])

    def test_gain_and_offset_are_found(self):
        real = worn()
        samples = ((real - self.offset) / self.gain).astype(np.float32)
        calibrated, report = signals.calibrated(samples, 30.0)
        assert report["applied"] and report["error_before_mg"] > 15 and report["error_after_mg"] < 1
        np.testing.assert_allclose(report["gain"], self.gain, atol=2e-3)
        np.testing.assert_allclose(report["offset_g"], self.offset, atol=2e-3)
        np.testing.assert_allclose(calibrated, real, atol=3e-3)

    def test_agrees_with_actipy(self):
        processing = pytest.importorskip("actipy.processing")
        samples = ((worn() - self.offset) / self.gain).astype(np.float32)
        theirs, info = processing.calibrate_gravity(with_actipy(samples), stdtol=signals.STILL_G)
        ours, report = signals.calibrated(samples, 30.0)
        assert report["still_windows"] == info["CalibNumSamples"] == 90
        assert report["error_before_mg"] == pytest.approx(info["CalibErrorBefore(mg)"], abs=0.01)
        np.testing.assert_allclose(ours, theirs.to_numpy(), atol=2e-3)

    def test_idle_stretches_do_not_spoil_it(self, tmp_path):
        """Devices that sleep repeat one value, which is then the most frequent posture: actipy issue 65."""
        samples = ((worn() - self.offset) / self.gain).astype(np.float32)
        idle = np.concatenate([samples, np.tile(samples[-1] * np.float32(1.1), (30 * 600, 1))])
        reports = [
            read(write(tmp_path / "p1.csv", frame(steps(len(x)), x))).quality["calibration"]
            for x in (samples, idle)
        ]
        assert reports[0] == reports[1] and reports[0]["applied"]

    def test_is_skipped_with_the_reason(self, tmp_path):
        few = worn(minutes=5)
        one_way = np.abs(worn())
        moving = truth(steps(30 * 900))
        off = worn() * np.random.default_rng(0).choice([0.9, 1.1], (900 * 30 // 900, 1)).repeat(900, axis=0)
        for samples, reason in [
            (few, "fewer than 50 still windows"),
            (moving, "fewer than 50 still windows"),
            (one_way, "do not point both ways"),
            (off, "did not bring still windows near 1 g"),
        ]:
            path = write(tmp_path / "p1.csv", frame(steps(len(samples)), samples))
            rows = read(path)
            report = rows.quality["calibration"]
            assert not report["applied"] and reason in report["reason"]
            assert (report["error_before_mg"] is None) == (samples is moving)
            np.testing.assert_allclose(values(rows), samples, atol=1e-5)
        assert "modality.calibrate=false" in read(path, calibrate=False).quality["calibration"]["reason"]

    def test_windows_are_calibrated(self, tmp_path):
        samples = (worn() - self.offset) / self.gain
        rows = read(write(tmp_path / "p1.csv", frame(steps(len(samples)), samples)))
        np.testing.assert_allclose(values(rows), worn(), atol=3e-3)


class TestNonWear:
    def test_agrees_with_actipy(self, tmp_path):
        processing = pytest.importorskip("actipy.processing")
        lying = np.tile([0.0, 0.6, 0.8], (30 * 60 * 25, 1)) + np.random.default_rng(1).normal(
            0, 0.003, (45000, 3)
        )
        samples = np.concatenate(
            [truth(steps(18000)), lying, truth(steps(9000)), lying[:9000], truth(steps(9000))]
        )
        (start,), (length,) = zip(
            *processing.find_nonwear_segments(
                with_actipy(samples), patience="20m", stdtol=signals.STILL_G
            ).items(),
            strict=True,
        )
        ours = np.flatnonzero(signals.not_worn(samples, 30.0, 20.0))
        assert ours[0] / 30 == (start - pd.Timestamp(START)).total_seconds()
        # actipy leaves the last still window to the wearer
        assert (ours[-1] + 1 - ours[0]) / 30 == length.total_seconds() + signals.BLOCK_S
        assert len(ours) == ours[-1] + 1 - ours[0]
        path = write(tmp_path / "p1.csv", frame(steps(len(samples)), samples))
        rows = read(path, nonwear_minutes=20.0)
        assert rows.quality["nonwear_s"] == pytest.approx(len(ours) / 30)
        assert rows.quality["windows"]["little_observed"] == 50
        assert len(read(path).rows) == len(rows.rows) + 50

    def test_a_night_without_a_move_is_refused_when_all_there_is(self, tmp_path):
        still = np.tile([0.0, 0.6, 0.8], (10000, 1)) + np.random.default_rng(1).normal(0, 0.003, (10000, 3))
        path = write(tmp_path / "p1.csv", frame(steps(10000), still))
        assert "were not worn" in refused(path, nonwear_minutes=5.0)

    def test_gaps_do_not_count_as_movement(self):
        still = np.tile([0.0, 0.6, 0.8], (3000, 1)) + np.random.default_rng(1).normal(0, 0.003, (3000, 3))
        still[1000:1500] = np.nan
        assert signals.not_worn(still, 30.0, 1.5).all()
        assert not signals.not_worn(still, 30.0, 2.0).any()


class TestBadInput:
    @pytest.mark.parametrize("declared, factor, advice", [("g", G, "m/s2"), ("m/s2", 1.0, "g")])
    def test_wrong_units(self, tmp_path, declared, factor, advice):
        path = write(tmp_path / "p1.csv", frame(values=factor * truth(clock())))
        assert refused(path, units=declared).endswith(f"set modality.units={advice}")
        np.testing.assert_allclose(values(read(path, units=advice)), truth(np.arange(1200) / 30), atol=2e-3)

    @pytest.mark.parametrize("factor", [100, 0.02])
    def test_units_that_are_neither(self, tmp_path, factor):
        path = write(tmp_path / "p1.csv", frame(values=factor * truth(clock())))
        assert "modality.scale" in refused(path)

    def test_wrong_units_of_the_gyroscope(self, tmp_path):
        table = frame(gyroscope=True)
        table[["gyro_x", "gyro_y", "gyro_z"]] = np.rad2deg(turning(clock()))
        path = write(tmp_path / "p1.csv", table)
        assert "set modality.gyroscope_units=deg/s" in refused(path, gyroscope=True)
        rows = read(path, gyroscope=True, gyroscope_units="deg/s")
        np.testing.assert_allclose(values(rows)[:, 3:], turning(steps(1200)), atol=5e-3)

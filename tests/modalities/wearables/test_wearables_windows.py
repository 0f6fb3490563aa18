import inspect
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wearables_files import beside, clock, frame, prepared, read, refused, steps, truth, values, write

from modalities.wearables import Wearables, signals


class TestWindows:
    @given(st.floats(0.5, 100), st.sampled_from([20.0, 30.0, 50.0]), st.floats(1, 30), st.floats(1, 1.7))
    def test_cover_the_recording(self, seconds, rate_hz, min_window_s, factor):
        from modalities.wearables.recordings import Recording
        from modalities.wearables.windows import Windowing

        settings = {
            name: p.default
            for name, p in inspect.signature(Wearables).parameters.items()
            if p.default != p.empty
        }
        fields = {name: settings[name] for name in Windowing.__dataclass_fields__}
        window_s = min_window_s * factor
        windowing = Windowing(**{**fields, "min_window_s": min_window_s, "window_s": window_s})
        times = clock(seconds, rate_hz)
        total = math.floor(times[-1] * 30 + 1e-6) + 1
        size = round(window_s * 30)
        try:
            rows = windowing.rows(Recording(truth(times), times))
        except ValueError as error:
            assert "shorter" in str(error) and total < round(min(2.0, min_window_s) * 30)
            return
        lengths = [row["length"] for row in rows.rows]
        assert set(lengths[:-1]) <= {size}
        assert lengths == [total] or min(lengths) >= round(min_window_s * 30) - 1
        assert max(lengths) <= size
        rest = total - sum(lengths)
        assert rest == 0 or (rest == total % size < round(min_window_s * 30))
        assert [row["start_s"] for row in rows.rows] == [size * n / 30 for n in range(len(rows.rows))]
        assert len({row["part"] for row in rows.rows}) == len(lengths)

    def test_movement_weighs(self, tmp_path):
        rng = np.random.default_rng(0)
        still = np.tile([0.0, 0.6, 0.8], (900, 1)) + rng.normal(0, 0.003, (900, 3))
        some = still + 0.1 * np.sin(2 * np.pi * steps(900))[:, None] * [0, 0.6, 0.8]
        much = still + 0.5 * np.sin(2 * np.pi * steps(900))[:, None] * [0, 0.6, 0.8]
        path = write(tmp_path / "p1.csv", frame(steps(2700), np.concatenate([still, some, much])))
        weights = [row["weight"] for row in read(path).rows]
        assert 0.1 <= weights[0] < 0.15 and weights[2] == 1
        assert weights[1] == pytest.approx(0.1 + 0.9 * (0.1 * 2 / np.pi) / 0.1, rel=0.02)
        assert [row["weight"] for row in read(path, weight_floor=1.0).rows] == [1, 1, 1]

    def test_gaps_do_not_weigh(self, tmp_path):
        table = frame(times=clock(30, 30))
        rows = read(write(tmp_path / "p1.csv", table[(table.time < 5) | (table.time > 14)]))
        whole = read(write(tmp_path / "p1.csv", table))
        assert rows.rows[0]["weight"] == pytest.approx(whole.rows[0]["weight"], rel=0.2)


class TestLongGaps:
    @pytest.mark.parametrize("gap_s", [3601.237, 7200.0, 40_000.51])
    @pytest.mark.parametrize("window_s", [30.0, 7.1])
    def test_rows_and_report_are_those_of_the_whole_span(self, gap_s, window_s, tmp_path, monkeypatch):
        times = clock(200.0)
        times[times > 70] += gap_s
        times[times > 150 + gap_s] += 2 * gap_s
        path = write(tmp_path / "a.csv", frame(times, truth(times)))
        settings = {"window_s": window_s, "min_window_s": 5.0, "min_observed": 0.2, "nonwear_minutes": 20.0}
        short = read(path, **settings)
        monkeypatch.setattr(
            "modalities.wearables.windows.Windowing._shortened",
            lambda _, times: (times, np.zeros(len(times), dtype=np.int64)),
        )
        whole = read(path, **settings)
        assert short.quality == whole.quality
        assert [row["part"] for row in short.rows] == [row["part"] for row in whole.rows]
        for one, other in zip(short.rows, whole.rows, strict=True):
            assert (one["start_s"], one["length"]) == (other["start_s"], other["length"])
            np.testing.assert_array_equal(np.isfinite(one["values"]), np.isfinite(other["values"]))
            np.testing.assert_allclose(one["values"], other["values"], atol=1e-5)

    def test_a_month_of_nothing_takes_no_time(self, tmp_path, monkeypatch):
        sizes = []
        resample = signals.resample

        def counted(times, values, clock, rate_hz, num_steps):
            sizes.append(num_steps)
            return resample(times, values, clock, rate_hz, num_steps)

        monkeypatch.setattr(signals, "resample", counted)
        times = clock(120.0)
        times[times > 60] += 30 * 86_400
        rows = read(write(tmp_path / "a.csv", frame(times, truth(times))))
        assert max(sizes) < 30 * 6000
        assert rows.quality["gaps"] == 1 and rows.quality["windows"]["little_observed"] > 86_000
        assert rows.rows[-1]["start_s"] > 30 * 86_400


class TestBadInput:
    def test_files_of_other_rates_give_the_same_windows(self, tmp_path):
        for rate_hz in (20, 30, 50, 100, 128):
            write(tmp_path / f"p{rate_hz}.csv", frame(times=clock(40, rate_hz)))
        rows, _, quality = prepared(tmp_path, beside(tmp_path))
        for row in rows.values():
            times = row["start_s"] + np.arange(row["length"]) / 30
            np.testing.assert_allclose(row["values"], truth(times), atol=0.02)
            assert row["length"] in (900, *range(298, 301))
        assert quality["p20.csv"]["notes"] == ["upsampled: nothing faster than 10 Hz was recorded"]
        assert quality["p128.csv"]["notes"] == []

    def test_irregular_times(self, tmp_path):
        rng = np.random.default_rng(0)
        times = np.sort(rng.uniform(0, 40, 4000))
        times = times[np.concatenate([[True], np.diff(times) > 1e-4])]
        rows = read(write(tmp_path / "p1.csv", frame(times=times)))
        assert rows.quality["clock"] == "irregular"
        first = rows.rows[0]["values"]
        seen = np.isfinite(first).all(axis=1)
        assert seen.mean() > 0.8
        expected = truth(times[0] + np.arange(900) / 30)
        np.testing.assert_allclose(first[seen], expected[seen], atol=0.06)

    def test_gaps_stay_gaps(self, tmp_path):
        table = frame()
        rows = read(write(tmp_path / "p1.csv", table[(table.time <= 12) | (table.time >= 17)]))
        seen = np.isfinite(values(rows)).all(axis=1)
        np.testing.assert_array_equal(np.flatnonzero(~seen), np.arange(361, 510))
        assert (rows.quality["gaps"], rows.quality["gap_s"]) == (1, 5.0)
        np.testing.assert_allclose(values(rows)[seen], truth(np.arange(1200) / 30)[seen], atol=0.02)

    def test_windows_in_a_long_gap_are_left_out(self, tmp_path):
        table = frame(times=clock(120))
        rows = read(write(tmp_path / "p1.csv", table[(table.time <= 40) | (table.time >= 95)]))
        assert [row["part"] for row in rows.rows] == ["0", "90"]
        assert rows.quality["windows"] == {"kept": 2, "short": 0, "little_observed": 2}
        lenient = read(tmp_path / "p1.csv", min_observed=0.3)
        assert [row["part"] for row in lenient.rows] == ["0", "30", "90"]

    @pytest.mark.parametrize("value", [np.nan, 2e7, -2e7, np.inf, 1e300])
    @pytest.mark.parametrize("missing", [1, 50])
    def test_bad_values_in_the_middle(self, tmp_path, value, missing):
        table = frame(times=clock(20, 30))
        table.loc[300 : 299 + missing, "y"] = value
        rows = read(write(tmp_path / "p1.csv", table))
        wrong = ~np.isfinite(values(rows))
        np.testing.assert_array_equal(np.flatnonzero(wrong.all(axis=1)), np.arange(300, 300 + missing))
        assert wrong.sum() == 3 * missing
        counts = rows.quality["accelerometer"]
        absurd = np.isfinite(np.float64(value)) and abs(value) < 1e38
        assert counts["absurd_samples" if absurd else "missing_samples"] == missing
        sample = Wearables().load({**rows.rows[0], "label": "", "group": ""}, None)
        assert (sample.values[wrong] == 0).all() and (sample.observed == ~wrong).all()

    def test_a_constant_sensor(self, tmp_path):
        still = np.tile([0.0, 0.0, 1.0], (2000, 1))
        assert "constant" in refused(write(tmp_path / "p1.csv", frame(values=still)))
        assert "constant" in refused(write(tmp_path / "p1.csv", frame(values=0 * still)))

    @pytest.mark.parametrize("column", ["y", "gyro_y"])
    def test_a_dead_axis(self, tmp_path, column):
        table = frame(gyroscope=True).assign(**{column: 0.25})
        assert "axis y of the" in refused(write(tmp_path / "p1.csv", table), gyroscope=True)

    def test_a_stuck_stretch_is_not_observed(self, tmp_path):
        table = frame(times=clock(60, 30))
        table.loc[600:1000, ["x", "y", "z"]] = [0.0, 0.0, 0.0]
        rows = read(write(tmp_path / "p1.csv", table))
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(values(rows)[:, 0])), np.arange(600, 1001))
        assert rows.quality["accelerometer"] == {
            "missing_samples": 0,
            "absurd_samples": 0,
            "constant_samples": 401,
        }

    def test_times_out_of_order_or_repeated(self, tmp_path):
        table = frame(times=clock(20, 30))
        shuffled = table.iloc[[*range(100), 101, 100, *range(102, 200), 199, 199, *range(200, 600)]]
        rows = read(write(tmp_path / "p1.csv", shuffled))
        assert rows.quality["late_samples"] == 3
        seen = np.isfinite(values(rows)).all(axis=1)
        assert (~seen).sum() == 1  # number 100 came too late
        np.testing.assert_allclose(values(rows)[seen], truth(np.arange(600) / 30)[seen], atol=2e-3)

    @pytest.mark.parametrize(
        "times",
        [
            pytest.param(np.floor(clock()), id="a clock of whole seconds"),
            pytest.param(clock()[::-1], id="backwards"),
            pytest.param(np.concatenate([clock(20), clock(20)]), id="a clock that was set back"),
            pytest.param(np.where(clock() < 5, clock(), np.nan), id="missing"),
        ],
    )
    def test_a_clock_that_cannot_be_trusted(self, tmp_path, times):
        reason = refused(write(tmp_path / "p1.csv", frame(values=truth(clock()), times=times)))
        assert "the clock is too coarse, or the rows are out of order" in reason

    def test_a_clock_that_was_set_by_years(self, tmp_path):
        times = clock() + np.where(clock() < 5, 0, 1.4e9)
        assert "the clock was set meanwhile" in refused(
            write(tmp_path / "p1.csv", frame(times, truth(clock())))
        )

    def test_short_recordings(self, tmp_path):
        """One may be all that there is of a label; an end of a longer one is not."""
        whole = read(write(tmp_path / "p1.csv", frame(times=clock(4))))
        assert [row["length"] for row in whole.rows] == [pytest.approx(120, abs=1)]
        longer = read(write(tmp_path / "p2.csv", frame(times=clock(34))))
        assert [row["length"] for row in longer.rows] == [900]
        assert "shorter than 2 s" in refused(write(tmp_path / "p3.csv", frame(times=clock(1.5))))

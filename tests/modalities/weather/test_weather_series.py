import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from weather_files import HOUR, Rest, frame, read_alone, sensor, write

from modalities.weather.series import Grid, pieces, segments, to_grid


class TestTimes:
    def test_any_order(self, tmp_path):
        table = frame()
        write(tmp_path / "1" / "x.csv", table)
        write(tmp_path / "2" / "x.csv", table.sample(frac=1, random_state=0))
        one, two = (read_alone(tmp_path / name / "x.csv") for name in "12")
        np.testing.assert_array_equal(one.sample.values, two.sample.values)
        assert "unordered_times" not in one.quality["x.csv"]
        assert two.quality["x.csv"]["unordered_times"] > 20

    def test_repeated_times_are_averaged_and_counted(self, tmp_path):
        table = frame()
        again = table.iloc[[10, 11]].assign(a=[1e3, np.nan])
        write(tmp_path / "x.csv", pd.concat([table, again]))
        rest = read_alone(tmp_path / "x.csv")
        assert rest.quality["x.csv"]["repeated_times"] == 2
        values = rest.sample.values[:, 0]
        assert values[10] == pytest.approx((table["a"][10] + 1e3) / 2)
        assert values[11] == pytest.approx(table["a"][11])
        assert rest.sample.values[10, 1] == pytest.approx(table["b"][10])

    def test_a_finer_rate_is_averaged_over_the_step_that_ends_at_the_time(self, tmp_path):
        table = frame(6 * 40, start="2020-01-01 00:10", freq="10min")
        write(tmp_path / "x.csv", table)
        sample = read_alone(tmp_path / "x.csv").sample
        expected = table.set_index("time").resample("1h", closed="right", label="right").mean()
        np.testing.assert_allclose(sample.values, expected.to_numpy(), rtol=1e-6)
        np.testing.assert_array_equal(sample.times, expected.index.as_unit("s").astype(np.int64))

    def test_a_coarser_rate_is_refused(self, tmp_path):
        write(tmp_path / "x.csv", frame(freq="3h"))
        assert read_alone(tmp_path / "x.csv").reasons["x.csv"] == (
            "there is one value every 3h, modality.freq asks for one every 1h: set modality.freq=3h"
        )
        assert read_alone(tmp_path / "x.csv", freq="10800s").sample.observed.all()

    def test_mixed_rates_within_a_file_and_between_files(self, tmp_path):
        fine = frame(6 * 30, start="2020-01-01 00:10", freq="10min")
        coarse = frame(30, start="2020-01-02 07:00")
        write(tmp_path / "mixed.csv", pd.concat([fine, coarse]))
        write(tmp_path / "coarse.csv", coarse)
        write(tmp_path / "daily.csv", frame(freq="1D"))
        rest = Rest(sensor(), tmp_path)
        assert [*rest.reasons] == ["daily.csv"]
        mixed, alone = (rest.samples[key] for key in sorted(rest.samples, reverse=True))
        assert mixed.observed.all() and len(mixed.values) == 60
        np.testing.assert_allclose(mixed.values[30:], alone.values, rtol=1e-6)

    def test_channels_of_other_rates_are_observed_where_they_are(self, tmp_path):
        table = frame(120, freq="10min")
        table.loc[table["time"].dt.minute != 0, "b"] = np.nan
        write(tmp_path / "x.csv", table)
        fine = read_alone(tmp_path / "x.csv", freq="10min").sample
        assert fine.observed.mean(axis=0).tolist() == [1, pytest.approx(1 / 6)]
        assert read_alone(tmp_path / "x.csv", min_steps=10).sample.observed[:20].all()

    def test_jitter_keeps_one_value_a_step_and_a_phase_is_kept(self, tmp_path):
        table = frame(start="2020-01-01 00:30")
        jitter = np.random.default_rng(0).integers(-600, 600, len(table))
        write(tmp_path / "x.csv", table.assign(time=table["time"] + pd.to_timedelta(jitter, unit="s")))
        rest = read_alone(tmp_path / "x.csv")
        assert rest.sample.observed.all() and len(rest.sample.values) == 100
        assert abs(rest.sample.times[0] - table["time"][0].timestamp()) < 300

    def test_a_first_value_between_two_steps_does_not_move_the_others(self, tmp_path):
        table = frame()
        jitter = pd.to_timedelta([1800, *(5 * (-1) ** np.arange(99))], unit="s")
        write(tmp_path / "x.csv", table.assign(time=table["time"] + jitter))
        sample = read_alone(tmp_path / "x.csv").sample
        assert len(sample.values) == 100 and sample.observed[1:].all()
        assert np.abs(sample.times[1:] - 1577836800 - HOUR * np.arange(1, 100)).max() <= 5

    def test_leap_days(self, tmp_path):
        write(tmp_path / "x.csv", frame(72, start="2020-02-28"))
        write(tmp_path / "y.csv", frame(72, start="2021-02-28"))
        rest = Rest(sensor(), tmp_path)
        for sample in rest.samples.values():
            assert (np.diff(sample.times) == HOUR).all() and sample.observed.all()

    def test_a_date_that_means_never_costs_its_row_only(self, tmp_path):
        table = frame().astype({"time": str})
        write(tmp_path / "x.csv", pd.concat([table, table[:1].assign(time="9999-12-31 23:00:00")]))
        rest = read_alone(tmp_path / "x.csv")
        assert rest.sample.observed.all() and len(rest.sample.values) == 100
        assert rest.quality["x.csv"]["short_steps"] == 1

    def test_times_in_another_unit_are_read_or_told(self, tmp_path):
        days = 43831 + np.arange(100) / 24  # as spreadsheets count
        write(tmp_path / "x.csv", frame().assign(time=days))
        assert len(read_alone(tmp_path / "x.csv").sample.values) == 100
        write(tmp_path / "x.csv", frame().assign(time=np.arange(100)))
        reason = read_alone(tmp_path / "x.csv").reasons["x.csv"]
        assert "neither dates nor seconds since 1970" in reason
        write(tmp_path / "x.csv", frame().assign(time=1e9 + np.arange(100)))
        reason = read_alone(tmp_path / "x.csv").reasons["x.csv"]
        assert reason.startswith("all values lie within one step of 1h")


class TestGaps:
    def test_a_short_one_is_missing_and_a_long_one_splits(self, tmp_path):
        table = frame(200).drop(index=[*range(30, 34), *range(100, 130)])
        write(tmp_path / "x.csv", table)
        rest = read_alone(tmp_path / "x.csv", max_gap_steps=4)
        assert [row["length"] for row in rest.rows.values()] == [100, 70]
        first = next(iter(rest.samples.values()))
        missing = ~first.observed.any(axis=1)
        assert np.flatnonzero(missing).tolist() == [30, 31, 32, 33]
        assert (first.values[missing] == 0).all()
        split = read_alone(tmp_path / "x.csv", max_gap_steps=3)
        assert [row["length"] for row in split.rows.values()] == [30, 66, 70]
        assert split.quality["x.csv"]["num_segments"] == 3

    def test_rows_without_values_are_a_gap_like_rows_that_are_not_there(self, tmp_path):
        table = frame(200)
        write(tmp_path / "1" / "x.csv", table.drop(index=range(50, 90)))
        table.loc[50:89, ["a", "b"]] = np.nan
        write(tmp_path / "2" / "x.csv", table)
        one, two = (read_alone(tmp_path / name / "x.csv", max_gap_steps=10) for name in "12")
        assert [*one.rows] == [*two.rows]

    def test_one_channel_may_be_missing(self, tmp_path):
        table = frame(100)
        table.loc[10:80, "b"] = np.nan
        write(tmp_path / "x.csv", table)
        sample = read_alone(tmp_path / "x.csv").sample
        np.testing.assert_array_equal(sample.observed, table[["a", "b"]].notna().to_numpy())
        assert (sample.values[~sample.observed] == 0).all()

    def test_long_stretches_are_cut_evenly_and_short_ones_are_counted(self, tmp_path):
        write(tmp_path / "x.csv", frame(250).drop(index=range(205, 240)))
        rest = read_alone(tmp_path / "x.csv", segment_steps=100)
        assert [row["length"] for row in rest.rows.values()] == [69, 68, 68]
        assert rest.quality["x.csv"]["short_steps"] == 10
        assert rest.quality["x.csv"]["num_steps"] == 205

    def test_sparse_stretches_are_left_out_and_counted(self, tmp_path):
        table = frame(240)
        write(tmp_path / "x.csv", pd.concat([table[:120], table[120::3]]))
        rest = read_alone(tmp_path / "x.csv", segment_steps=60)
        assert [row["length"] for row in rest.rows.values()] == [60, 60]
        assert rest.quality["x.csv"]["sparse_steps"] == 118
        assert len(read_alone(tmp_path / "x.csv", segment_steps=60, min_observed=0.3).rows) == 4


class TestBadCells:
    def test_a_constant_sensor_is_not_observed(self, tmp_path):
        write(tmp_path / "x.csv", frame().assign(b=21.5))
        rest = read_alone(tmp_path / "x.csv")
        assert rest.quality["x.csv"]["constant"] == ["b"]
        assert rest.sample.observed.all(axis=0).tolist() == [True, False]
        assert (rest.sample.values[:, 1] == 0).all()
        fine = (
            frame(700, freq="10min").sample(500, random_state=0).assign(b=21.3)
        )  # some means of 6, some of 2
        write(tmp_path / "x.csv", fine)
        assert read_alone(tmp_path / "x.csv").quality["x.csv"]["constant"] == ["b"]
        write(tmp_path / "x.csv", frame().assign(a=0, b=21.5))
        assert read_alone(tmp_path / "x.csv").reasons["x.csv"].startswith("no channel ever changes")

    def test_a_constant_stretch_of_a_sensor_that_changes_is_kept(self, tmp_path):
        write(tmp_path / "x.csv", frame().assign(b=[0.0] * 90 + [1.0] * 10))
        assert (
            read_alone(tmp_path / "x.csv", segment_steps=50)
            .samples["x.csv#2020-01-01T00:00:00"]
            .observed.all()
        )


class TestGrid:
    @given(
        st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9)), min_size=1, max_size=60),
        st.sampled_from([1, 5, 60]),
    )
    def test_agrees_with_a_slow_reference(self, found, step):
        times = np.array([time for time, _ in found], float)
        values = np.array([[value, value if value % 2 else np.nan] for _, value in found], float)
        try:
            grid = to_grid(times, values, float(step), 0.0)
        except ValueError as error:
            assert "one value every" in str(error)
            return
        cells: dict[float, list[list[float]]] = {}
        for time, pair in zip(times, values, strict=True):
            same_step = grid.source_step_s >= 0.9 * step
            near = np.abs(grid.times_s - time) if same_step else grid.times_s - time
            assume(not same_step or np.abs(near - step / 2).min() > 1e-6)  # no ties
            place = int(np.argmin(np.where(near < 0, np.inf, near)))
            cells.setdefault(place, [[], []])
            for channel in range(2):
                cells[place][channel] += [pair[channel]] if np.isfinite(pair[channel]) else []
        assert sorted(cells) == [*range(len(grid.cells))]
        for place, channels in cells.items():
            for channel, numbers in enumerate(channels):
                assert grid.observed[place, channel] == bool(numbers)
                assert grid.values[place, channel] == pytest.approx(np.mean(numbers) if numbers else 0)

    @given(
        st.sets(st.integers(0, 9), min_size=1),
        st.sets(st.integers(10, 200)),
        st.integers(0, 8),
        st.integers(1, 40),
    )
    def test_segments_and_pieces_hold_every_value_once(self, first, later, max_gap, max_steps):
        cells = np.array(sorted(first | later))
        values = cells[:, None].astype(float)
        grid = Grid(cells, values, np.ones_like(values, bool), origin_s=7.0, step_s=HOUR, source_step_s=HOUR)
        parts = [piece for segment in segments(grid, max_gap) for piece in pieces(segment, max_steps)]
        assert all(1 <= len(part.cells) <= max_steps for part in parts)
        assert all((np.diff(part.cells) == 1).all() for part in parts)
        seen = [(part.cells[part.observed[:, 0]], part.values[part.observed]) for part in parts]
        np.testing.assert_array_equal(np.concatenate([cell for cell, _ in seen]), cells)
        np.testing.assert_array_equal(np.concatenate([value for _, value in seen]), cells)
        for segment in segments(grid, max_gap):
            assert segment.observed[[0, -1]].all()
            assert (np.diff(np.flatnonzero(segment.observed[:, 0])) <= max_gap + 1).all()

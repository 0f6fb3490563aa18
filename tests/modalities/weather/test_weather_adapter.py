import json

import numpy as np
import pandas as pd
import pytest
from weather_files import COLUMNS, Rest, frame, read_alone, sensor, write

from seqssl import Record
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus
from seqssl.testing import adapter_checks

SETTINGS = {
    "mix": {},
    "independent": {"channel_mode": "independent", "calendar": True, "shift_steps": 5, "segment_steps": 30},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name, check", adapter_checks())
def test_keeps_the_adapter_contract(name, check, settings, folder):
    check(sensor(patch=4, **settings), folder)


class TestGoodInput:
    def test_end_to_end(self, folder, tmp_path):
        (folder / "empty.csv").touch()
        manifest = prepare(sensor(), folder, tmp_path / "out", modality="weather", num_workers=1)
        corpus = Corpus(tmp_path / "out")
        rest = Rest(sensor(), folder)
        assert [row["key"] for row in map(corpus.row, range(len(corpus)))] == [*rest.rows]
        for number in range(len(corpus)):
            row = corpus.row(number)
            ours, direct = sensor().load(row, None), rest.samples[row["key"]]
            np.testing.assert_array_equal(ours.values, direct.values)
            np.testing.assert_array_equal(ours.observed, direct.observed)
        assert manifest.num_rejected == 1
        assert manifest.splits.keys() == {"train", "valid"}
        quality = (tmp_path / "out" / "quality.jsonl").read_text().splitlines()
        assert [json.loads(line)["path"] for line in quality] == ["east.csv", "west.csv"]

    def test_statistics_are_those_of_what_is_observed_in_train(self, folder, tmp_path):
        manifest = prepare(sensor(min_steps=9), folder, tmp_path / "out", modality="weather", num_workers=1)
        corpus = Corpus(tmp_path / "out")
        train = {corpus.row(int(number))["group"] for number in corpus.rows("train")}
        table = pd.concat(pd.read_csv(folder / f"{name}.csv") for name in train)
        np.testing.assert_allclose(manifest.statistics["mean"], table[["a", "b"]].mean(), rtol=1e-5)
        np.testing.assert_allclose(manifest.statistics["std"], table[["a", "b"]].std(ddof=0), rtol=1e-5)


class TestHeldOut:
    def test_the_end_of_a_lone_series(self, tmp_path):
        path = write(tmp_path / "x.csv", frame(200))
        rest = Rest(sensor(), path)
        assert {key.partition("#")[0]: row["length"] for key, row in rest.rows.items()} == {
            "x.csv": 160,
            "x.csv/valid": 40,
        }
        assert [*rest.splits.values()] == ["train", "valid"]
        joined = np.concatenate([sample.values for sample in rest.samples.values()])
        np.testing.assert_allclose(joined[:, 0], frame(200)["a"], rtol=1e-6)
        only = [record.key for record in sensor().records(path, "valid") if isinstance(record, Record)]
        assert only == ["x.csv/valid"]

    def test_a_date_cuts_every_series(self, tmp_path):
        for number in range(2):
            write(tmp_path / f"{number}.csv", frame(100 + number))
        rest = Rest(sensor(valid_from="2020-01-03 01:00"), tmp_path)
        assert [(row["length"], rest.splits[key]) for key, row in rest.rows.items()] == [
            (49, "train"), (51, "valid"), (49, "train"), (52, "valid"),
        ]  # fmt: skip
        late = Rest(sensor(valid_from="2021-01-01"), tmp_path)
        assert late.reasons["0.csv/valid"] == "no values from 2021-01-01T00:00:00 (UTC)"
        shares = Rest(sensor(valid_from="60%"), tmp_path)
        assert [row["length"] for row in shares.rows.values()] == [60, 40, 60, 41]


class TestSamples:
    def test_independent_channels_are_rows_of_their_own(self, folder):
        mixed = Rest(sensor(), folder)
        apart = Rest(sensor(channel_mode="independent"), folder)
        assert [*apart.rows] == [f"{key}/{name}" for key in mixed.rows for name in COLUMNS]
        for key, sample in mixed.samples.items():
            for place, name in enumerate(COLUMNS):
                alone = apart.samples[f"{key}/{name}"]
                np.testing.assert_array_equal(alone.values, sample.values[:, [place]])
                np.testing.assert_array_equal(alone.observed, sample.observed[:, [place]])

    def test_independent_channels_that_are_not_observed_make_no_row(self, tmp_path):
        write(tmp_path / "x.csv", frame().assign(b=1))
        rest = read_alone(tmp_path / "x.csv", channel_mode="independent")
        assert [*rest.rows] == ["x.csv#2020-01-01T00:00:00/a"]

    def test_the_calendar_is_local_and_silent_in_gaps(self, tmp_path):
        table = frame(120, start="2020-06-01").drop(index=range(50, 60))
        write(tmp_path / "x.csv", table)
        rest = read_alone(tmp_path / "x.csv", calendar=True, timezone="Asia/Tokyo")
        sample = rest.sample
        assert sensor(calendar=True).spec.channel_names[2:] == (
            "hour_sin",
            "hour_cos",
            "year_sin",
            "year_cos",
        )
        np.testing.assert_allclose(sample.values[0, 2:4], [0, 1], atol=1e-6)  # midnight in Tokyo
        np.testing.assert_allclose(sample.values[6, 2:4], [1, 0], atol=1e-6)
        day_of_year = 2 * np.pi * 152 / 365.2425
        np.testing.assert_allclose(
            sample.values[0, 4:], [np.sin(day_of_year), np.cos(day_of_year)], atol=0.02
        )
        np.testing.assert_array_equal(sample.observed[:, 2:].all(axis=1), sample.observed[:, :2].any(axis=1))
        assert (sample.values[~sample.observed] == 0).all()

    def test_shifts_leave_out_first_steps_only(self, folder):
        adapter = sensor(shift_steps=7)
        row = next(iter(Rest(adapter, folder).rows.values()))
        whole = adapter.load(row, None)
        lengths = set()
        for seed in range(40):
            sample = adapter.load(row, np.random.default_rng(seed))
            lengths.add(row["length"] - len(sample.values))
            start = row["length"] - len(sample.values)
            np.testing.assert_array_equal(sample.values, whole.values[start:])
            np.testing.assert_array_equal(sample.times, whole.times[start:])
            np.testing.assert_array_equal(sample.observed, whole.observed[start:])
        assert lengths == {*range(8)}


class TestBadSources:
    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"freq": "often"}, "no duration"),
            ({"freq": "0s"}, "longer than nothing"),
            ({"timezone": "Mars/Olympus"}, "timezone"),
            ({"valid_from": "soon"}, "no date"),
            ({"valid_from": "100%"}, "no date"),
            ({"columns": ()}, "columns"),
            ({"columns": ("a", "a")}, "columns"),
            ({"min_steps": 50, "segment_steps": 40}, "min_steps"),
            ({"min_observed": 1.5}, "min_observed"),
            ({"patch": 0}, r"modality.patch=0 must lie in \[1, 1000\]"),
            ({"patch": 1001}, "modality.patch=1001 must"),
            ({"shift_steps": -1}, r"modality.shift_steps=-1 must lie in \[0, 10000\]"),
            ({"shift_steps": 10**9}, "modality.shift_steps=1000000000 must"),
            ({"missing_values": ("nothing",)}, "missing_values"),
        ],
    )
    def test_impossible_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            sensor(**settings)

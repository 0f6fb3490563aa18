import gzip
import inspect
import math
import re
import types

import numpy as np
import pandas as pd
import pytest
from wearables_files import (
    assert_true,
    beside,
    clock,
    found,
    frame,
    prepared,
    refused,
    steps,
    truth,
    turning,
    values,
    write,
)

from modalities.wearables import Wearables
from seqssl import Rejected, UserError
from seqssl.testing import adapter_checks


@pytest.mark.parametrize("gyroscope", [False, True])
@pytest.mark.parametrize("name, check", adapter_checks())
def test_keeps_the_adapter_contract(name, check, folder, gyroscope):
    check(Wearables(source_rate_hz=50.0, gyroscope=gyroscope, rotate=True), folder)


def test_from_files_to_a_corpus(folder, tmp_path):
    rows, reasons, quality = prepared(folder, tmp_path / "out", source_rate_hz=50.0, gyroscope=True)
    assert not reasons
    assert [*rows] == [
        *("anna/walk.csv#0", "anna/walk.csv#30", "ben/walk.csv#0", "ben/walk.csv#30", "cleo/holes.csv#0"),
        *("cleo/holes.csv#30", "stack.npz/0#0", "stack.npz/1#0", "stack.npz/2#0"),
    ]
    assert [row["group"] for row in rows.values()][-5:] == ["cleo", "cleo", "7", "8", "8"]
    assert [row["label"] for row in rows.values()][-4:] == ["", "sit", "run", "sit"]
    assert quality["stack.npz/1"]["windows"] == {"kept": 1, "short": 1, "little_observed": 0}
    row = rows["anna/walk.csv#30"]
    assert (row["length"], row["start_s"], row["start"]) == (300, 30.0, "")
    sample = Wearables(gyroscope=True).load(row, None)
    times = 30 + sample.times.astype(float)
    np.testing.assert_allclose(sample.values[:, :3], truth(times), atol=2e-3)
    np.testing.assert_allclose(sample.values[:, 3:] * np.pi, turning(times), atol=5e-3)
    holes = Wearables(gyroscope=True).load(rows["cleo/holes.csv#0"], None)
    np.testing.assert_array_equal(np.flatnonzero(~holes.observed.all(axis=1)), np.arange(180, 301))


class TestLoading:
    row = types.MappingProxyType({"label": "walk", "group": "anna"})

    def test_values_are_clipped_and_scaled(self):
        window = np.array(
            [[0.5, -30, 9, np.pi, -np.pi / 2, 0], [1, 1, 1, np.nan, np.nan, np.nan]], np.float32
        )
        sample = Wearables(gyroscope=True).load({**self.row, "values": window}, None)
        np.testing.assert_allclose(sample.values, [[0.5, -8, 8, 1, -0.5, 0], [1, 1, 1, 0, 0, 0]])
        assert sample.observed.tolist() == [[True] * 6, [True] * 3 + [False] * 3]
        assert (sample.label, sample.group) == ("walk", "anna")
        np.testing.assert_allclose(sample.times, [0, 1 / 30], rtol=1e-6)

    def test_rotation_turns_all_sensors_alike(self):
        turn = np.concatenate([truth(steps(90)), truth(steps(90))], axis=1).astype(np.float32)
        turn[:5] = np.nan
        row = {**self.row, "values": turn}
        adapter = Wearables(gyroscope=True, rotate=True)
        original = adapter.load(row, None).values
        seen = []
        for seed in range(40):
            sample = adapter.load(row, np.random.default_rng(seed))
            first, second = sample.values[:, :3], sample.values[:, 3:] * np.pi
            np.testing.assert_allclose(first, second, atol=1e-5)
            norms = np.linalg.norm(original[:, :3], axis=1)
            np.testing.assert_allclose(np.linalg.norm(first, axis=1), norms, atol=1e-5)
            assert not sample.observed[:5].any() and (sample.values[:5] == 0).all()
            seen.append(first[50] / norms[50])
        assert np.linalg.norm(np.mean(seen, axis=0)) < 0.4  # directions of all kinds
        assert not np.allclose(first, original[:, :3], atol=0.1)
        still = Wearables(gyroscope=True).load(row, np.random.default_rng(0))
        np.testing.assert_array_equal(still.values, original)

    @pytest.mark.parametrize("rate_hz", [10.0, 20.0, 30.0, 50.0, 100.0])
    def test_five_frames_a_second_that_share_nothing(self, rate_hz):
        import torch

        adapter = Wearables(rate_hz=rate_hz)
        encoder = adapter.feature_encoder(16)
        assert int(encoder.output_lengths(torch.tensor([adapter.spec.max_len]))) == 5 * 30
        x = torch.randn(1, round(2 * rate_hz), 3)
        changed = x.clone()
        changed[:, : round(rate_hz / 5)] += 1
        lengths = torch.tensor([x.shape[1]])
        before, after = encoder(x, lengths).x, encoder(changed, lengths).x
        assert not torch.equal(before[:, 0], after[:, 0]) and torch.equal(before[:, 1:], after[:, 1:])


class TestSettings:
    def test_all_that_changes_rows_is_public(self):
        """`prepare` tells prepared folders apart by public attributes."""
        parameters = inspect.signature(Wearables).parameters
        adapter = Wearables(window_s=45.0, units="m/s2", group_pattern="(.)", csv_columns=("x", "y", "z"))
        public = {name for name in vars(adapter) if not name.startswith("_")}
        assert public == {*parameters, "spec"} - {"rotate", "segments"}
        assert vars(Wearables(segments=True))["segments"], "named only where it is on"
        assert (adapter.window_s, adapter.units, adapter.group_pattern) == (45.0, "m/s2", "(.)")
        assert adapter.spec.max_len == 1350

    @pytest.mark.parametrize(
        "settings",
        [
            {"min_window_s": 40.0},
            {"min_window_s": 0.0},
            {"rate_hz": 0.0},
            {"min_observed": 0.0},
            {"weight_floor": 1.5},
            {"group_pattern": "S\\d+"},
            {"label_pattern": "(S"},
        ],
    )
    def test_impossible_ones_are_told(self, settings):
        with pytest.raises(ValueError, match=next(iter(settings))):
            Wearables(**settings)

    def test_patterns_find_subject_and_label_in_the_path(self, tmp_path):
        for name in ("walk_1/sub_3.csv", "jog_2/sub_4.csv", "jog_2/other.csv"):
            write(tmp_path / name)
        records = found(tmp_path, group_pattern=r"sub_(\d+)", label_pattern=r"^([a-z]+)")
        assert isinstance(records[0], Rejected) and "finds no group" in records[0].reason
        assert [(r.group, r.label) for r in records[1:]] == [("4", "jog"), ("3", "walk")]
        assert [r.group for r in found(tmp_path)] == ["jog_2", "jog_2", "walk_1"]
        with pytest.raises(ValueError, match=r"label in none of 3 paths, .* such as 'jog_2/other.csv'"):
            found(tmp_path, label_pattern=f"{tmp_path.name}/([a-z]+)")


class TestHostileInput:
    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"clip_g": 0.0}, "modality.clip_g=0.0 must lie in (0, 1000]"),
            ({"clip_g": -1.0}, "modality.clip_g=-1.0 must"),
            ({"rate_hz": 0.01}, "modality.rate_hz=0.01 must lie in [1, 1000]"),
            ({"rate_hz": 1e9}, "modality.rate_hz=1000000000.0 must"),
            ({"window_s": 0.01, "min_window_s": 0.01}, "modality.min_window_s=0.01"),
            ({"window_s": math.inf}, "window_s=inf"),
            ({"source_rate_hz": 0.0}, "modality.source_rate_hz=0.0 must lie in [1, 5000]"),
            ({"source_rate_hz": -50.0}, "modality.source_rate_hz=-50.0 must"),
            (
                {"accelerometer_columns": ("x", "y", "Y")},
                "modality.accelerometer_columns=['x', 'y', 'Y'] must",
            ),
            ({"gyroscope_columns": ("a", "b")}, "modality.gyroscope_columns=['a', 'b'] must name 3"),
            (
                {"accelerometer_columns": ("x", "y", "z"), "gyroscope_columns": ("z", "y", "x")},
                "modality.gyroscope_columns=('z', 'y', 'x') must be other columns than accelerometer_columns",
            ),
        ],
    )
    def test_impossible_settings_name_key_value_and_range(self, settings, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            Wearables(**settings)


class TestBadInput:
    @pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet", "npy", "npz", "cwa", "gt3x"])
    def test_an_empty_file(self, tmp_path, suffix):
        (tmp_path / f"p1.{suffix}").touch()
        assert refused(tmp_path / f"p1.{suffix}") == "the file is empty"

    @pytest.mark.parametrize("suffix", ["csv.gz", "parquet", "npy", "npz"])
    def test_a_damaged_file(self, tmp_path, suffix):
        path = tmp_path / f"p1.{suffix}"
        path.write_bytes(b"neither one nor the other, but long enough to be something" * 9)
        assert "ot" in refused(path)
        whole = tmp_path / f"whole.{suffix}"
        if suffix == "csv.gz":
            whole.write_bytes(gzip.compress(frame().to_csv().encode()))
        elif suffix == "parquet":
            frame().to_parquet(whole)
        else:
            np.save(whole, truth(clock())) if suffix == "npy" else np.savez(whole, X=truth(clock()))
        path.write_bytes(whole.read_bytes()[:-200])
        assert "not readable as" in refused(path, source_rate_hz=50.0)

    def test_other_files_are_not_looked_at(self, tmp_path):
        for name in (".hidden.csv", "notes.txt", "LICENSE"):
            (tmp_path / name).write_text("x,y,z\n")
        assert found(tmp_path) == []
        with pytest.raises(UserError, match="Nothing in"):
            prepared(tmp_path, beside(tmp_path))

    def test_texts_of_numbers_are_recordings_and_others_are_left_alone(self, tmp_path):
        """PAMAP2 and mHealth: no header, blanks or tabs between numbers, texts beside them."""
        for number, name in enumerate(("Protocol/subject101.dat", "Optional/subject101.dat", "subject2.log")):
            table = frame(values=truth(clock(), number)).assign(activity=7)
            write(tmp_path / name, table, sep=" \t"[number % 2], header=False)
        (tmp_path / "README.txt").write_text("What this is, in 20 lines.\n" * 20)
        (tmp_path / "activity_labels.txt").write_text("".join(f"{n} WALKING_{n}\n" for n in range(20)))
        (tmp_path / "subject_train.txt").write_text("1\n" * 400)
        rejected = found(tmp_path)
        assert {row.reason.partition(":")[0] for row in rejected} == {"no header line"} and len(rejected) == 3
        records = found(tmp_path, csv_columns=("time", "x", "y", "z", "activity"))
        assert [record.group for record in records] == ["subject101", "subject101", "subject2"]
        assert_true(values(records[1].read()))

    def test_texts_beside_tables_are_left_alone(self, tmp_path):
        for name in ("P000_walk", "P000_run", "P001_walk", "P001_run"):
            write(tmp_path / "data" / f"{name}.csv")
        lines = [f"{number} 7{number} 1.8" for number in range(20)]
        (tmp_path / "subjects.txt").write_text("\n".join(lines) + "\n")
        records = found(tmp_path)
        assert [record.group for record in records] == ["P000", "P000", "P001", "P001"]
        assert "texts of numbers such as subjects.txt are left alone" in " ".join(records[0].read().notices)
        assert Wearables.suggest(tmp_path).words == "acceleration in 4 files (.csv)"
        for path in (tmp_path / "data").iterdir():
            path.write_text("name,age\nx,1\n")
        assert [row.path for row in found(tmp_path)][4:] == ["subjects.txt"]

    def test_a_text_that_is_the_source_says_why_it_is_no_table(self, tmp_path):
        (tmp_path / "notes.txt").write_text("a recording\nof nothing\n")
        assert "no accelerometer columns" in refused(tmp_path / "notes.txt")

    def test_what_programs_keep_for_themselves_is_no_recording(self, tmp_path):
        source = tmp_path / ".cache" / "corpus"  # the source itself may lie in a hidden folder
        for name in ("anna/walk.csv", "ben/walk.csv", "__MACOSX/anna/walk.csv", "anna/._walk.csv"):
            write(source / name)
        write(source / "anna" / ".ipynb_checkpoints" / "walk-checkpoint.csv")
        assert [(record.key, record.group) for record in found(source)] == [
            ("anna/walk.csv", "anna"),
            ("ben/walk.csv", "ben"),
        ]
        suggested = Wearables.suggest(source)
        assert suggested is not None and "in 2 files" in suggested.words

    def test_one_bad_file_does_not_stop_the_others(self, folder, tmp_path):
        (folder / "anna" / "empty.csv").touch()
        write(folder / "participants.csv", pd.DataFrame({"subject": [1, 2], "age": [30, 40]}))
        rows, reasons, _ = prepared(folder, tmp_path / "out", source_rate_hz=50.0)
        assert len(rows) == 9
        assert [*reasons] == ["anna/empty.csv", "participants.csv"]

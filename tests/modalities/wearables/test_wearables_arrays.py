import io
import pickle
import zipfile

import numpy as np
import pytest
from wearables_files import assert_true, clock, found, refused, steps, truth, turning, values

from modalities.wearables import Wearables
from seqssl import Rejected


class TestFormats:
    def test_arrays_beside_one_another(self, tmp_path):
        stack = np.stack([truth(clock(12), n) for n in range(4)])
        for name, array in {"X": stack, "Y": [0, 1, 1, 0], "pid": [3.0, 3.0, 4.0, 4.0]}.items():
            np.save(tmp_path / f"{name}.npy", array)
        records = found(tmp_path, source_rate_hz=50.0)
        assert [(r.key, r.group, r.label) for r in records] == [
            ("X.npy/0", "3", "0"),
            ("X.npy/1", "3", "1"),
            ("X.npy/2", "4", "1"),
            ("X.npy/3", "4", "0"),
        ]
        np.testing.assert_allclose(values(records[2].read()), truth(np.arange(360) / 30, 2), atol=5e-3)

    def test_an_array_of_one_recording(self, tmp_path):
        np.save(tmp_path / "s1.npy", truth(clock()))
        (record,) = found(tmp_path, source_rate_hz=50.0)
        assert (record.key, record.group) == ("s1.npy", "s1")
        assert len(values(record.read())) == 1200
        assert "set modality.source_rate_hz" in refused(tmp_path)

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_a_pickled_dict_in_an_npy(self, tmp_path, protocol):
        recordings = [np.concatenate([turning(clock(s)), truth(clock(s))], axis=1) for s in (20, 35)]
        content = {
            "X": recordings,
            "y": np.array([1, 0]),
            "y_labels": ["PEN", "ABD"],
            "subject": np.array([10, 7]),
            "side": np.array([1.0, 0.0]),
            "X_labels": ["wx", "wy", "wz", "ax", "ay", "az"],
        }
        path = tmp_path / "watch.npy"
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, {"shape": (), "fortran_order": False, "descr": "|O"})
        path.write_bytes(buffer.getvalue() + _old_pickle(np.array(content, dtype=object), protocol))
        records = found(path, source_rate_hz=50.0, gyroscope=True, min_window_s=5.0)
        assert [(r.key, r.group, r.label) for r in records] == [
            ("watch.npy/0", "10", "ABD"),
            ("watch.npy/1", "7", "PEN"),
        ]
        rows = records[1].read()
        assert_true(values(rows), columns=6)
        np.testing.assert_allclose(values(rows)[:, 3:], turning(steps(1050)), atol=5e-3)

    def test_recordings_of_other_lengths_in_an_npz(self, tmp_path):
        ragged = np.empty(2, dtype=object)
        ragged[:] = [truth(clock(20)), truth(clock(35))]
        np.savez(tmp_path / "all.npz", X=ragged, subject=["a", "b"], split=["dev", "train"])
        records = found(tmp_path / "all.npz", source_rate_hz=50.0)
        assert [len(values(record.read())) for record in records] == [600, 900]
        assert [record.split for record in records] == ["valid", "train"]
        assert [r.key for r in Wearables().records(tmp_path, "valid")] == ["all.npz/0"]


def _old_pickle(array: np.ndarray, protocol: int) -> bytes:
    """As numpy writes objects; with protocol 2 bytes are written as `_codecs.encode`."""
    if protocol == 5:  # numpy would hand over buffers, which np.save never does
        return pickle.dumps(array, protocol=4)
    return pickle.dumps(array, protocol=protocol)


class TestBadInput:
    def test_arrays_without_subjects(self, tmp_path):
        stack = np.stack([truth(clock(12), n) for n in range(3)])
        path = tmp_path / "S01.npz"
        np.savez(path, X=stack)
        assert "no subject ids: put an array pid" in refused(path)
        records = found(path, group_pattern=r"(S\d+)")
        assert [record.group for record in records] == ["S01"] * 3
        np.savez(path, X=stack, pid=[1, 2])
        assert "pid has shape [2]" in refused(path)
        np.savez(path, X=stack, pid=[1, np.nan, 2])
        assert found(path)[1] == Rejected("S01.npz/1", "no subject id")

    @pytest.mark.parametrize(
        "arrays, reason",
        [
            ({"X": np.zeros((5, 3, 100))}, "looks like (n, c, t)"),
            ({"X": np.zeros(5)}, "X has shape [5]"),
            ({"X": np.zeros((0, 100, 3))}, "no recordings"),
            (
                {"acceleration": np.zeros((5, 100, 3))},
                "no samples (X, x, data, samples) in it, only acceleration",
            ),
            ({"X": truth(clock())[:, [0, 1]]}, "2 channels without names"),
            ({"X": np.array([["a"] * 3] * 9)}, "where numbers (t, c) are wanted"),
            ({"X": truth(clock()), "channel_names": ["x", "y"]}, "3 channels and 2 names"),
        ],
    )
    def test_arrays_of_other_shapes(self, tmp_path, arrays, reason):
        np.savez(tmp_path / "x.npz", **arrays)
        assert reason in refused(tmp_path / "x.npz", source_rate_hz=50.0)


class TestHostileInput:
    def test_an_array_that_claims_more_than_the_file_holds(self, tmp_path):
        header = io.BytesIO()
        claims = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 3)}
        np.lib.format.write_array_header_1_0(header, claims)
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("X.npy", header.getvalue() + bytes(120))
        (tmp_path / "b.npy").write_bytes(header.getvalue() + bytes(120))
        for name in ("a.npz", "b.npy"):
            reason = refused(tmp_path / name, source_rate_hz=50.0)
            assert "12,000,000,000,000 bytes" in reason and "it holds 120" in reason

    def test_what_does_not_fit_into_memory(self, tmp_path, monkeypatch):
        def full(*_: object, **__: object) -> None:
            raise MemoryError

        np.savez(tmp_path / "a.npz", X=np.zeros((9, 3), np.float32))
        monkeypatch.setattr("modalities.wearables.arrays._read_npy", full)
        assert "does not fit into memory" in refused(tmp_path / "a.npz", source_rate_hz=50.0)

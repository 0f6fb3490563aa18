import io
import math
import os
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wearables_files import refused

from modalities.wearables import pickles


class TestPickles:
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        st.sampled_from(["f4", ">f8", "i8", "u1", "?", "U3", "S2", "O"]),
        st.sampled_from([(), (0,), (3,), (2, 3)]),
        st.booleans(),
        st.sampled_from([2, 3, 4]),
    )
    def test_hold_what_numpy_would_read(self, value, dtype, shape, fortran, protocol):
        array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
        array = np.asfortranarray(array) if fortran and array.ndim else array
        content = {"value": value, "array": array, "number": np.float32(0.5), "list": [array, array]}
        loaded = pickles.load(
            io.BytesIO(pickle.dumps(np.array(content, dtype=object), protocol=protocol))
        ).item()
        assert loaded["value"] == value and loaded["number"] == 0.5
        for copy in (loaded["array"], *loaded["list"]):
            assert copy.dtype == array.dtype
            np.testing.assert_array_equal(copy, array)

    def test_run_nothing(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path}/owned",)

        np.save(tmp_path / "evil.npy", np.array({"X": Evil(), "subject": [1]}, dtype=object))
        reason = refused(tmp_path / "evil.npy", source_rate_hz=50.0)
        assert (
            "its pickle wants to run posix.system" in reason or "its pickle wants to run nt.system" in reason
        )
        np.savez(tmp_path / "evil.npz", X=np.array([Evil()], dtype=object), subject=[1])
        assert "its pickle wants to run" in refused(tmp_path / "evil.npz", source_rate_hz=50.0)
        assert not (tmp_path / "owned").exists()

    @pytest.mark.parametrize("name", ["builtins.eval", "numpy.load", "numpy.memmap", "pickle.loads"])
    def test_reach_no_other_function(self, name):
        module, _, function = name.partition(".")
        stream = f"c{module}\n{function}\n(S'1'\ntR.".encode()
        with pytest.raises(ValueError, match=f"its pickle wants to run {name}"):
            pickles.load(io.BytesIO(stream))

    def test_forge_no_dtype(self):
        """Bytes that pass for a list of objects are addresses: numpy itself would read any memory by them."""
        array = np.empty(1, dtype=object)
        reconstruct, arguments, (version, shape, _, fortran, _) = array.__reduce__()

        class Forged:
            def __reduce__(self):
                return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)

        class Array:
            def __reduce__(self):
                return reconstruct, arguments, (version, shape, Forged(), fortran, b"\x01" * 8)

        with pytest.raises(ValueError, match="reshape"):
            pickles.load(io.BytesIO(pickle.dumps(Array(), protocol=3)))

    @pytest.mark.parametrize(
        "content", [np.zeros(2, "f4,i4"), np.zeros(2, "M8[s]"), np.zeros(2, "c8"), np.zeros(2, "V3")]
    )
    def test_hold_no_other_dtype(self, content):
        with pytest.raises(ValueError, match="its pickle holds an array of"):
            pickles.load(io.BytesIO(pickle.dumps(content, protocol=3)))

    def test_may_be_damaged_in_any_way(self):
        whole = pickle.dumps(np.array({"X": [np.zeros(3)], "s": "text"}, dtype=object), protocol=4)
        rng = np.random.default_rng(0)
        for _ in range(300):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] = rng.integers(256)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "setrecursionlimit", lambda _: None)
                try:
                    pickles.load(io.BytesIO(bytes(damaged[: rng.integers(1, len(whole) + 1)])))
                except ValueError:
                    pass

    def test_may_share_parts_and_hold_themselves(self):
        endless: list = [np.zeros(2)]
        endless += [endless] * 2
        loaded = pickles.load(io.BytesIO(pickle.dumps(endless)))
        assert loaded[1] is loaded[2] is loaded
        bomb: list = [0]
        for _ in range(60):  # 3 to the power of 60 if each were looked at apart
            bomb = [bomb] * 3
        assert len(pickles.load(io.BytesIO(pickle.dumps(bomb)))) == 3

    def test_deeper_than_the_stack(self):
        deep = b"(" * 100_000 + b"l" * 100_000 + b"."
        with pytest.raises(ValueError, match="RecursionError"):
            pickles.load(io.BytesIO(deep))

    def test_make_no_numbers_without_bytes(self):
        """`bytes(10**12)` would fill the memory."""
        _, arguments, (version, shape, dtype, fortran, _) = np.zeros(3).__reduce__()

        class Array:
            def __reduce__(self):
                return np.zeros(3).__reduce__()[0], arguments, (version, shape, dtype, fortran, 10**12)

        with pytest.raises(ValueError, match="no bytes"):
            pickles.load(io.BytesIO(pickle.dumps(Array(), protocol=3)))

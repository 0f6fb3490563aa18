import numpy as np
import pytest
from weather_files import Rest, sensor

from seqssl import UserError

ARCHIVE = """# a comment
@problemName Test
@timeStamps false
@missing true
@univariate false
@dimensions 3
@equalLength false
@classLabel true left right
@data
1,2,3,4:5,?,7,8:0,0,0,0:left
1,2:3,4:0,0:right
"""


class TestArchive:
    def test_instances_are_rows(self, tmp_path):
        (tmp_path / "x_TRAIN.ts").write_text(ARCHIVE)
        (tmp_path / "x_TEST.ts").write_text(ARCHIVE)
        adapter = sensor(columns=("dim_1", "dim_0", "dim_2"), freq="100ms", min_steps=2)
        rest = Rest(adapter, tmp_path)
        assert adapter.spec.rate_hz == 10
        assert [(row["label"], row["group"], row["length"]) for row in rest.rows.values()] == 2 * [
            ("left", "", 4), ("right", "", 2)
        ]  # fmt: skip
        assert [*rest.splits.values()] == ["test", "test", "", ""]
        sample = rest.samples["x_TRAIN.ts/00000#1970-01-01T00:00:00"]
        np.testing.assert_array_equal(sample.values[:, :2], [[5, 1], [0, 2], [7, 3], [8, 4]])
        assert sample.observed.tolist() == [
            [True, True, False],
            [False, True, False],
            *2 * [[True, True, False]],
        ]
        np.testing.assert_allclose(sample.times, [0, 0.1, 0.2, 0.3], atol=1e-12)
        assert rest.quality["x_TRAIN.ts/00000"]["constant"] == ["dim_2"]

    def test_values_come_back_as_they_were_written(self, tmp_path):
        rng = np.random.default_rng(0)
        instances = [rng.normal(size=(int(rng.integers(5, 30)), 2)) for _ in range(20)]
        lines = [":".join(",".join(map(repr, channel.tolist())) for channel in x.T) for x in instances]
        (tmp_path / "x.ts").write_text("@univariate false\n@classLabel false\n@data\n" + "\n".join(lines))
        rest = Rest(sensor(columns=("dim_0", "dim_1"), min_steps=1), tmp_path)
        for x, (key, sample) in zip(instances, rest.samples.items(), strict=True):
            np.testing.assert_array_equal(sample.values, x.astype(np.float32))
            assert rest.rows[key]["label"] == ""

    @pytest.mark.parametrize(
        "text, reason",
        [
            (ARCHIVE.replace("timeStamps false", "timeStamps true"), "time stamps inside .ts files"),
            (ARCHIVE.partition("@data")[0], "there is no line @data"),
            (ARCHIVE.partition("1,2")[0], "there are no instances"),
            (
                ARCHIVE.replace("1,2:3,4:0,0:right", "1,2:3,4:right"),
                "line 11 has 2 channels, the first one has 3",
            ),
            (ARCHIVE.replace("1,2,3,4:", "1,2,x,4:"), "line 10 is not a row of numbers: could not convert"),
        ],
    )
    def test_damaged_files(self, tmp_path, text, reason):
        (tmp_path / "x.ts").write_text(text)
        assert Rest(sensor(columns=("dim_0",)), tmp_path).reasons["x.ts"].startswith(reason)

    def test_columns_are_told(self, tmp_path):
        (tmp_path / "x.ts").write_text(ARCHIVE)
        with pytest.raises(UserError, match=r"are dim_0, dim_1, dim_2: choose by modality.columns=\[dim_0"):
            Rest(sensor(), tmp_path / "x.ts")

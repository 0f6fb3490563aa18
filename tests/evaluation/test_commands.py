"""`seqssl embed`, `seqssl probe` and `seqssl.load` on a run with initial weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from toy import toy_config, write_waves

import seqssl
from seqssl import UserError, cli
from seqssl.assembly import OpenStream, build_adapter, streams_of
from seqssl.data.prepare import open_or_prepare
from seqssl.evaluation import embedding
from seqssl.runs.folder import write_config
from seqssl.training import checkpoint

NUM_ROWS = 16


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    return write_waves(tmp_path / "waves", num_rows=NUM_ROWS)


@pytest.fixture
def run(tmp_path: Path, waves: Path) -> Path:
    """A run folder as `seqssl train` leaves it, but with other weights than the seed's."""
    out = tmp_path / "run"
    config = toy_config(waves, out)
    (stream,) = streams_of(config)
    corpus = open_or_prepare(stream.adapter, config.data, modality="toy:Toy")
    write_config(config, out, [OpenStream("", config, stream.adapter, corpus=corpus)])
    config.seed = 1
    weights = checkpoint.weights_of(seqssl.build_model(config))
    state = checkpoint.State(update=3, cursor=3, best=None, tally={})
    checkpoint.save(out / "checkpoints" / "step-00000003", weights, None, state)
    return out


def arrays_of(waves: Path) -> dict[str, np.ndarray]:
    return {path.relative_to(waves).as_posix(): np.load(path) for path in sorted(waves.rglob("*.npy"))}


def embed(run: Path, source: Path, out: Path, *more: str) -> list[dict[str, Any]]:
    assert cli.main(["embed", f"run={run}", f"source={source}", f"out={out}", *more]) == 0
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return rows


@pytest.mark.parametrize("tap", ["", "features", "contrastive"])
def test_embed_writes_what_the_encoder_gives(
    run: Path, waves: Path, tmp_path: Path, tap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "ROWS_AT_ONCE", 5)
    rows = embed(run, waves, tmp_path / "new" / "x.parquet", *([f"tap={tap}"] if tap else []))
    arrays = arrays_of(waves)
    assert {row["key"] for row in rows} == set(arrays)
    assert {row["group"] for row in rows} == {"group0", "group1"}
    assert {row["label"] for row in rows} == set("abcd")
    assert {row["split"] for row in rows} == {"train", "valid"}
    expected = seqssl.load(run, tap=tap).transform([arrays[row["key"]] for row in rows])
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-5)
    assert not list((tmp_path / "new").glob("*.tmp"))


def test_embed_without_pooling_writes_frames(run: Path, waves: Path, tmp_path: Path) -> None:
    pooled = embed(run, waves, tmp_path / "mean.parquet")
    frames = embed(run, waves, tmp_path / "none.parquet", "pool=none")
    for one, other in zip(pooled, frames, strict=True):
        np.testing.assert_allclose(np.mean(other["embedding"], axis=0), one["embedding"], atol=1e-5)


def test_embed_reads_a_prepared_folder(run: Path, waves: Path, tmp_path: Path) -> None:
    prepared = tmp_path / "prepared"
    assert cli.main(["prepare", "modality=toy:Toy", f"source={waves}", f"out={prepared}"]) == 0
    assert len(embed(run, prepared, tmp_path / "all.parquet")) == NUM_ROWS


def test_a_failure_leaves_no_file(
    run: Path, waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: object, arrays: object, pool: str) -> None:
        raise UserError("array 0 is bad")

    monkeypatch.setattr(seqssl.Encoder, "embed", failing)
    out = tmp_path / "out"
    assert cli.main(["embed", f"run={run}", f"source={waves}", f"out={out / 'x.parquet'}"]) == 2
    assert list(out.iterdir()) == []


def test_probe_prints_a_table_and_writes_every_fold(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = write_waves(tmp_path / "others", num_rows=8)
    command = ["probe", f"run={run}", "labels=*,[ab]", f"unheard={others}", "tap=contrastive"]
    assert cli.main(command) == 2
    assert "groups group0, group1 are in" in capsys.readouterr().err
    for group in ("group0", "group1"):
        (others / group).rename(others / f"{group}_b")
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "contrastive" in shown
    assert "unheard group" in shown
    written = json.loads((run / "probe.json").read_text())
    assert written["tap"] == "contrastive"
    scores = written["scores"]
    stages = {(score["weights"], score["stage"]) for score in scores}
    taps = ("features", "contrastive", "output")
    assert stages == {(w, s) for w in ("trained", "random") for s in taps} | {
        ("none", "majority"),
        ("none", "input"),
        ("none", "summary"),
    }
    assert {score["labels"] for score in scores} == {"*"}  # no other group has a and b both
    assert all(0 <= score["accuracy"] <= 1 for score in scores)


def test_probe_of_random_weights_gains_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", f"run={run}", "weights=random"]) == 0
    assert capsys.readouterr().out.count("+0.0") >= 3


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["embed", "source=nowhere", "out=x.parquet"], "there is no file or folder nowhere"),
        (
            ["embed", "source=.", "out=x.parquet", "pool=max"],
            "expected mean, statistics, thirds, last or none",
        ),
        (["embed", "source=.", "out=x.parquet", "tap=middle"], "there is no tap 'middle'"),
        (["embed", "source=.", "out=x.parquet", "weights=worst"], "expected last, best or random"),
        (["embed", "source=.", "out=x.parquet", "weights=best"], "no best checkpoint"),
        (["probe", "pool=none"], "expected mean, statistics, thirds or last"),
        (["probe", "labels=zebra"], "zebra"),
        (["probe", "unheard=nowhere"], "there is no file or folder nowhere"),
    ],
)
def test_bad_input_is_explained(
    run: Path, command: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *rest = command
    assert cli.main([name, f"run={run}", *rest]) == 2
    assert words in capsys.readouterr().err


def test_load_takes_a_run_or_one_of_its_checkpoints(run: Path, waves: Path) -> None:
    arrays = list(arrays_of(waves).values())
    whole, single = seqssl.load(run), seqssl.load(str(run / "checkpoints" / "step-00000003"))
    np.testing.assert_array_equal(whole.transform(arrays), single.transform(arrays))
    assert whole.spec == build_adapter(toy_config(waves, run).modality).spec
    random = [seqssl.load(run, weights="random").transform(arrays) for _ in range(2)]
    np.testing.assert_array_equal(*random)
    assert not np.allclose(whole.transform(arrays), random[0])


def test_load_of_no_run_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.yaml"):
        seqssl.load(tmp_path)


def test_embed_overwrites_nothing_of_value(
    run: Path, waves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = next(waves.rglob("*.npy"))
    table = tmp_path / "mine.parquet"
    table.write_bytes(b"precious")
    for out, given in ((source, source), (run / "config.yaml", waves), (table, table), (waves, waves)):
        before = given.read_bytes() if given.is_file() else b""
        assert cli.main(["embed", f"run={run}", f"source={given}", f"out={out}"]) == 2
        assert "out = " in capsys.readouterr().err
        assert not given.is_file() or given.read_bytes() == before


def test_a_probe_notices_that_the_data_has_changed(
    run: Path, waves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(waves / "group0" / "new.npy", np.zeros((40, 2), np.float32))
    assert cli.main(["probe", f"run={run}"]) == 2
    assert "has changed since; say source=" in capsys.readouterr().err
    assert cli.main(["probe", f"run={run}", f"source={waves}"]) == 0

"""Each recipe on a little data of its kind: trained, judged, opened and embedded; then all kinds at once."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from little_data import SOURCES, wearables

from seqssl import cli

SMALL = (
    "size=tiny train.num_updates=3 train.log_every=1 train.eval_every=3 encoder.dim=16 encoder.ffn_dim=16 "
    "encoder.num_layers=2 encoder.taps.contrastive=1 encoder.taps.output=2 encoder.position_groups=4 "
    "mixer.num_heads=2"
).split()
BOOKS = "quantizer.codebook_size=8 quantizer.dim=16".split()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def last(run: Path) -> dict[str, float]:
    record: dict[str, float] = json.loads((run / "metrics.jsonl").read_text().splitlines()[-2])
    return record


@pytest.mark.parametrize("kind", SOURCES)
def test_a_recipe_on_little_data(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    settings = SOURCES[kind](source)
    command = ["train", f"recipe={kind}_w2vbert", f"data={source}", "out=run", *SMALL, *BOOKS, *settings]
    assert cli.main(command) == 0, capsys.readouterr().err
    metrics = last(Path("run"))
    assert metrics["kind"] == "valid" and np.isfinite(metrics["loss"])
    assert metrics["contrastive/num_negatives"] > 0
    assert cli.main([*command[:3], "out=run", *command[4:]]) == 0  # a finished run is not trained again
    capsys.readouterr()
    assert cli.main(["info", "run"]) == 0
    shown = capsys.readouterr().out
    assert "channel 0" in shown or "ids below" in shown or "float32" in shown
    assert ("mean 10" in shown or "deviation" in shown) == (kind == "weather")
    assert cli.main(["embed", "run=run", f"source={source}", "out=x.parquet"]) == 0
    rows = pq.read_table("x.parquet").to_pylist()
    assert rows and all(np.isfinite(row["embedding"]).all() and len(row["embedding"]) == 16 for row in rows)
    page = Path("run/report.html").read_text()
    assert "codes and mask" in page and ("sequence logos" in page) == (kind == "dna")
    if kind == "weather":
        assert cli.main(["probe", "run=run", "task=forecast", "lookback=48", "horizon=12"]) == 0
    if kind == "dna":
        assert metrics["symbols/markov_bits"] < 2.1
        assert cli.main(["probe", "run=run", f"source={source}", "modality.shuffled=true"]) == 0
        assert cli.main(["embed", "run=run", f"source={source}", "out=y.parquet", "modality.stride=1"]) == 0


def test_settings_that_break_the_contract_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    settings = wearables(source)
    train = ["train", "recipe=wearables_w2vbert", f"data={source}", "out=run", *SMALL, *BOOKS, *settings]
    assert cli.main(train) == 0
    capsys.readouterr()
    embed = ["embed", "run=run", f"source={source}", "out=x.parquet", "modality.rate_hz=50.0"]
    assert cli.main(embed) == 2
    assert "rate_hz=30.0, these settings of the modality give rate_hz=50.0" in capsys.readouterr().err
    prepare = ["prepare", "modality=wearables", f"source={source}", "out=other", "modality.rate_hz=50.0"]
    assert cli.main([*prepare, "modality.source_rate_hz=50.0"]) == 0
    capsys.readouterr()
    assert cli.main(["embed", "run=run", "source=other", "out=x.parquet"]) == 2
    assert "was prepared with rate_hz=50.0, the modality wants rate_hz=30.0" in capsys.readouterr().err


def test_all_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = []
    for kind, write in SOURCES.items():
        source = tmp_path / kind
        source.mkdir()
        own = [f"data.source={source}", *BOOKS, *write(source)]
        overrides += [f"streams.{kind}.{setting}" for setting in own]
    more = ["train.num_updates=6", "train.eval_every=6"]
    assert cli.main(["train", "recipe=joint_w2vbert", "out=run", *SMALL, *more, *overrides]) == 0, (
        capsys.readouterr().err
    )
    metrics = last(Path("run"))
    for kind in SOURCES:
        assert np.isfinite(metrics[f"{kind}/loss"])
        assert (
            cli.main(["embed", "run=run", f"source={tmp_path / kind}", "out=x.parquet", f"stream={kind}"])
            == 0
        )
    assert cli.main(["plan", "recipe=run"]) == 0

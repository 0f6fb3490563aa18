"""Labels and inputs of a corpus, as probes read them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy import Toy, toy_config, write_waves

from seqssl import Encoder, Sample, UserError, build_model
from seqssl.data.adapters import SampleSpec
from seqssl.data.prepare import open_or_prepare
from seqssl.evaluation import embedding
from seqssl.evaluation.embedding import pooled_input, pooled_stages, write_embeddings
from seqssl.evaluation.probe import labels_of


class Rows:
    """Stands for a corpus."""

    keys = np.array(["anna/words/yes.npy", "bert/no.npy", "loose.npy", "anna/x.npy"])
    labels = np.array(["", "", "", ""])
    groups = np.array(["anna", "bert", "", "anna"])

    def row(self, number: int) -> dict[str, Any]:
        return {"values": np.arange(6) + number, "label": "", "group": ""}


class OneChannel(Toy):
    def load(self, row: Any, rng: Any) -> Sample:
        return Sample(np.asarray(row["values"], np.float32))


def encoder(channels: int | None) -> Encoder:
    spec = SampleSpec(dtype="float32", units="one", channels=channels)
    return Encoder(build_model(toy_config(Path("unused"), Path("unused"))), spec, batch_inputs=100)


def test_rows_without_a_label_take_the_name_below_their_group() -> None:
    rows = Rows()
    assert labels_of(rows).tolist() == ["words/yes", "no", "", "x"]  # type: ignore[arg-type]


def test_names_of_files_are_no_labels_where_rows_have_some() -> None:
    rows = Rows()
    rows.labels = np.array(["", "", "", "given"])
    assert labels_of(rows).tolist() == ["", "", "", "given"]  # type: ignore[arg-type]


def test_the_input_is_read_by_channel() -> None:
    pooled = pooled_input(encoder(2), Rows(), Toy(), np.array([0, 1]))["input"]  # type: ignore[arg-type]
    deviation = np.std([0, 2, 4])
    np.testing.assert_allclose(
        pooled, [[2, 3, deviation, deviation], [3, 4, deviation, deviation]], rtol=1e-6
    )


def test_the_input_is_read_by_the_picture_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = encoder(None)
    rows: Any = Rows()
    assert pooled_input(frozen, rows, OneChannel(), np.array([0])) == {}

    def picture(inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        assert lengths.tolist() == [6]
        return torch.stack([inputs, 10 * inputs], dim=2)

    monkeypatch.setattr(frozen.model.feature_encoder, "picture", picture, raising=False)
    pooled = pooled_input(frozen, rows, OneChannel(), np.array([0]))["input"]
    np.testing.assert_allclose(pooled, [[2.5, 25, np.std(range(6)), 10 * np.std(range(6))]], rtol=1e-6)


class Broken(Toy):
    """One row is damaged."""

    def load(self, row: Any, rng: Any) -> Sample:
        sample = super().load(row, rng)
        return Sample(sample.values * np.float32(np.inf if row["key"].endswith("c06.npy") else 1))


def test_a_row_that_cannot_be_embedded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, its number within some rows was."""
    monkeypatch.setattr(embedding, "ROWS_AT_ONCE", 2)
    config = toy_config(write_waves(tmp_path / "waves"), tmp_path)
    corpus = open_or_prepare(Toy(), config.data, modality="toy:Toy")
    frozen = Encoder(build_model(config), Toy().spec, batch_inputs=100)
    with pytest.raises(UserError, match=r"^row group0/c06.npy holds NaN or infinite values"):
        write_embeddings(frozen, corpus, Broken(), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"^row group0/c06.npy holds"):
        pooled_stages(frozen, corpus, Broken(), np.arange(len(corpus)))

"""Frozen features: what goes in, what comes out, and what must not matter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from toy import TOY, Letters, Toy, toy_config

from seqssl import Batch, Encoder, Frames, Sample, UserError, build_model, load_recipe
from seqssl.data.adapters import SampleSpec
from seqssl.model import alignment


def toy_encoder(tap: str = "", batch_inputs: int = 100, **spec: object) -> Encoder:
    model = build_model(toy_config(Path("unused"), Path("unused")))
    given = SampleSpec(**{**vars(Toy().spec), **spec})  # type: ignore[arg-type]
    return Encoder(model, given, tap=tap, batch_inputs=batch_inputs)


def waves(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(length, 2)).astype(np.float32) for length in lengths]


@pytest.mark.parametrize("tap", ["", "features", "contrastive", "output"])
@pytest.mark.parametrize("batch_inputs", [1, 100, 10_000])
def test_batch_mates_and_padding_change_nothing(tap: str, batch_inputs: int) -> None:
    arrays = waves(1, 40, 7, 63, 40, 2)
    encoder = toy_encoder(tap, batch_inputs)
    alone = np.concatenate([encoder.transform([array]) for array in arrays])
    np.testing.assert_allclose(encoder.transform(arrays), alone, atol=1e-5)


def test_rows_come_back_in_their_order_with_one_vector_per_frame() -> None:
    arrays = waves(30, 9, 50)
    encoder = toy_encoder()
    frames = encoder.embed(arrays, pool="none")
    lengths = encoder.model.feature_encoder.output_lengths(torch.tensor([30, 9, 50]))
    assert [row.shape for row in frames] == [(length, encoder.dim) for length in lengths.tolist()]
    np.testing.assert_allclose([row.mean(axis=0) for row in frames], encoder.embed(arrays), atol=1e-6)


def test_all_stages_from_one_pass_are_those_of_each_tap() -> None:
    arrays = waves(30, 9, 50)
    stages = toy_encoder().embed_stages(arrays)
    assert list(stages) == ["features", "contrastive", "output"]
    for name, embedded in stages.items():
        encoder = toy_encoder(name)
        assert embedded.shape == (3, encoder.dim)
        np.testing.assert_array_equal(embedded, encoder.transform(arrays))
    np.testing.assert_array_equal(stages["output"], toy_encoder().transform(arrays))


def test_taps_are_what_the_model_itself_reads() -> None:
    array = waves(30)[0]
    config = toy_config(Path("unused"), Path("unused"), "encoder.feature_norm=layer")
    model = build_model(config)
    encoder = Encoder(model, Toy().spec, batch_inputs=100)
    stages = encoder.embed_stages([array])
    batch = Batch(torch.from_numpy(array)[None], torch.tensor([30]))
    with torch.no_grad():
        for tap in ("contrastive", "output"):
            np.testing.assert_allclose(stages[tap][0], model.encode(batch, tap).x[0].mean(0), atol=1e-6)
        np.testing.assert_allclose(
            stages["features"][0], model.encode_features(batch).x[0].mean(0), atol=1e-6
        )


def test_no_rows_make_no_embeddings() -> None:
    encoder = toy_encoder()
    assert encoder.transform([]).shape == (0, encoder.dim)
    assert encoder.embed([], pool="none") == []


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((5, 3), np.float32), "(5, 3); the encoder expects (t, 2)"),
        (np.zeros(5, np.float32), "(5,)"),
        (np.zeros((0, 2), np.float32), "t >= 1"),
        (np.full((5, 2), np.nan, np.float32), "missing values only"),
        (np.full((5, 2), np.inf, np.float32), "infinite"),
        (np.zeros((5, 2), np.int16), "int16; the encoder expects float32, as one"),
        (np.array([["a", "b"]]), "the encoder expects float32"),
        (np.zeros((80, 2), np.float32), "80 steps long; the encoder takes 70"),
    ],
)
def test_arrays_that_break_the_contract_are_refused(array: np.ndarray, words: str) -> None:
    encoder = toy_encoder(max_len=70)
    with pytest.raises(UserError) as error:
        encoder.embed([*waves(5), array])
    assert "array 1 " in str(error.value)
    assert words in str(error.value)


def test_ids_outside_the_vocabulary_are_refused() -> None:
    encoder = toy_encoder(dtype="int64", channels=None, vocab_size=4)
    for bad in ([0, 4], [-1, 3]):
        with pytest.raises(UserError, match=r"ids outside \[0, 4\)"):
            encoder.embed([np.array(bad)])
    with pytest.raises(UserError, match="expects int64"):
        encoder.embed([np.zeros(3, np.float32)])


def test_unknown_taps_and_pools_are_refused() -> None:
    with pytest.raises(UserError, match="features, contrastive, output"):
        toy_encoder("middle")
    with pytest.raises(UserError, match="mean, statistics, thirds, last or none"):
        toy_encoder().embed(waves(5), pool="max")


def test_double_precision_and_read_only_arrays_are_welcome() -> None:
    array = waves(20)[0]
    locked = array.copy()
    locked.flags.writeable = False
    encoder = toy_encoder()
    np.testing.assert_array_equal(
        encoder.transform([array.astype(np.float64), locked]), encoder.transform([array] * 2)
    )


def test_embedding_needs_no_gradient_and_leaves_the_model_as_it_was() -> None:
    encoder = toy_encoder()
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    encoder.transform(waves(30, 9))
    assert not encoder.model.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.model.state_dict().items())


def test_it_is_a_step_of_a_scikit_learn_pipeline() -> None:
    slow, fast = np.sin(np.arange(40) * 0.1), np.sin(np.arange(40) * 1.5)
    arrays = [
        np.stack([wave, wave], axis=1).astype(np.float32) * (1 + 0.1 * i)
        for i in range(6)
        for wave in (slow, fast)
    ]
    labels = ["slow", "fast"] * 6
    encoder = toy_encoder()
    pipeline = make_pipeline(encoder, LogisticRegression())
    assert pipeline.fit(arrays, labels).score(arrays, labels) == 1.0
    assert cross_val_score(pipeline, arrays, labels, cv=3).mean() == 1.0
    assert clone(pipeline).steps[0][1] is encoder  # frozen: a copy would cost memory and change nothing


def letters_encoder(views: Any = None) -> Encoder:
    """Of ids with gaps, stride 2."""

    overrides = ["modality=toy:Letters" if entry.startswith("modality") else entry for entry in TOY]
    config = load_recipe("base/w2vbert", "size=tiny", "data=unused", *overrides)
    return Encoder(build_model(config), Letters().spec, batch_inputs=100, views=views)


def test_what_is_missing_changes_no_embedding() -> None:
    encoder, rng = letters_encoder(), np.random.default_rng(0)
    ids, observed = rng.integers(0, 5, 40), rng.random(40) < 0.7
    other = np.where(observed, ids, (ids + 1) % 5)
    one = encoder.embed([Sample(ids, observed=observed), ids[:7]])
    two = encoder.embed([Sample(other, observed=observed), ids[:7]])
    np.testing.assert_array_equal(one, two)
    assert np.abs(one[0] - encoder.embed([ids])[0]).max() > 1e-4


def test_frames_that_are_mostly_missing_are_not_pooled() -> None:
    encoder, ids = letters_encoder(), np.arange(20) % 4
    observed = np.arange(20) < 10
    frames = encoder.embed([Sample(ids, observed=observed)], pool="none")[0]
    np.testing.assert_allclose(
        encoder.embed([Sample(ids, observed=observed)])[0], frames[:5].mean(axis=0), atol=1e-5
    )
    with pytest.raises(UserError, match="holds missing values only"):
        encoder.embed([Sample(ids, observed=np.zeros(20, bool))])


def test_embeddings_are_averaged_over_views() -> None:
    def both_ways(sample: Sample) -> list[Sample]:
        return [sample, Sample(sample.values[::-1].copy(), observed=None)]

    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 4, length) for length in (31, 8, 1, 50)]
    averaged, plain = letters_encoder(both_ways), letters_encoder()
    forward = averaged.embed(rows)
    np.testing.assert_allclose(forward, averaged.embed([row[::-1].copy() for row in rows]), atol=1e-5)
    single = [plain.embed([row])[0] + plain.embed([row[::-1].copy()])[0] for row in rows]
    np.testing.assert_allclose(forward, np.stack(single) / 2, atol=1e-5)
    np.testing.assert_allclose(averaged.embed_stages(rows)["output"], forward, atol=1e-5)


@pytest.mark.parametrize("kind", ["waves", "letters"])
def test_what_is_ahead_is_hidden_as_in_training(kind: str) -> None:
    """The frames ahead are those of a row whose end is masked, whatever stands there."""
    rng = np.random.default_rng(0)
    if kind == "letters":
        encoder, whole = letters_encoder(), rng.integers(0, 4, 40)
    else:
        patches = "feature_encoder={target: patch, dim: 12, patch: 4}"
        config = load_recipe("base/w2vbert", "size=tiny", "data=unused", *TOY, patches)
        encoder = Encoder(build_model(config), Toy().spec, batch_inputs=100)
        whole = rng.normal(size=(40, 2)).astype(np.float32)
    found = encoder.frames([whole[:28]], ahead=12)["output"][0]
    model = encoder.model
    batch = Batch(torch.from_numpy(whole)[None], torch.tensor([40]))
    first, size = model.feature_encoder.output_lengths(torch.tensor([28, 40])).tolist()
    mask = (torch.arange(size) >= first)[None]
    with torch.no_grad():
        if model.mask_input:
            x = model.encode_features(alignment.hide(batch, mask, model.stride)).x
        else:
            noise = torch.Generator().manual_seed(0)
            x = model.masking.apply(model.encode_features(batch).x, mask, noise)
        valid = torch.ones(1, size, dtype=torch.bool)
        expected = model.encoder(model.input_projection(x), Frames(valid))["output"][0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert len(encoder.frames([whole[:28]])["output"][0]) == first


def test_nan_is_missing_only_where_the_encoder_knows_what_that_is() -> None:
    encoder, row = toy_encoder(), waves(30)[0]
    gap = row.copy()
    gap[3:5, 1] = np.nan
    found = encoder.embed([gap])
    zeroed = np.nan_to_num(gap)
    observed = ~np.isnan(gap)
    np.testing.assert_array_equal(found, encoder.embed([Sample(zeroed, observed=observed)]))
    encoder.model.extra_inputs = []
    with pytest.raises(UserError, match="array 0 holds NaN"):
        encoder.embed([gap])


@pytest.mark.parametrize(
    ("extras", "words"),
    [
        ({"observed": np.ones(30, bool)}, "`observed` must be an array of shape (30, 2)"),
        ({"observed": np.ones((31, 2), bool)}, "`observed` must be an array of shape (30, 2)"),
        ({"observed": np.ones((30, 2), np.float32)}, "`observed` holds float32, not bool"),
        ({"observed": [[True, True]] * 30}, "`observed` must be an array"),
        ({"times": np.zeros(29)}, "`times` must be an array of shape (30,)"),
    ],
)
def test_samples_that_contradict_themselves_are_refused(extras: Any, words: str) -> None:
    class Given(Sample):
        """A sample whose shapes nobody checked, as outside of tests."""

        def __init__(self) -> None:
            values = {"values": waves(30)[0], "label": "", "group": "", "observed": None, "times": None}
            for name, value in (values | extras).items():
                object.__setattr__(self, name, value)

    with pytest.raises(UserError) as caught:
        toy_encoder().embed([Given()])
    assert words in str(caught.value)


def test_values_that_no_number_can_hold_are_refused() -> None:
    with pytest.raises(UserError, match="beyond the range of float32"):
        toy_encoder().embed([np.full((5, 2), 1e300)])
    encoder = toy_encoder()
    with torch.no_grad():
        encoder.model.input_projection.bias[0] = torch.nan
    with pytest.raises(UserError, match="array 0 gives no finite embedding"):
        encoder.embed(waves(5))


def test_an_array_is_named_by_its_place_and_not_by_that_of_its_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, the place among all views was named."""
    encoder = letters_encoder(lambda sample: [sample] * 3)
    contexts = encoder.model.contexts

    def broken(batch: Batch, *rest: Any) -> dict[str, torch.Tensor]:
        bad = (batch.lengths == 9)[:, None, None]
        return {name: x.masked_fill(bad, torch.nan) for name, x in contexts(batch, *rest).items()}

    monkeypatch.setattr(encoder.model, "contexts", broken)
    rows = [np.arange(length) % 4 for length in (5, 31, 9, 5)]
    for pool in ("mean", "none"):
        with pytest.raises(UserError, match="array 2 gives no finite embedding"):
            encoder.embed(rows, pool)

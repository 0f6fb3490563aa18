"""Where heads start: fits that agree with scikit-learn's, over groups, and runs that begin and go on so."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tuned_toys import pretrain, tune

from seqssl.errors import Interrupted, UserError
from seqssl.finetuning.head_start import ALPHAS, STRENGTHS, Linear, classifier, regressor, spread
from seqssl.finetuning.heads import PooledHead
from seqssl.runs.folder import load_task
from seqssl.training.loop import Trainer


def scores(fitted: Linear, x: np.ndarray) -> np.ndarray:
    return (x - fitted.mean) / fitted.std @ fitted.weight.T + fitted.bias


def softmax(x: np.ndarray) -> np.ndarray:
    return np.asarray(torch.as_tensor(x).softmax(-1))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(1, 6), st.integers(0, 2**16), st.sampled_from([0.01, 1.0, 100.0]))
def test_a_classifier_is_scikit_learns(size: int, dim: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = scale * (rng.normal(size=(40, dim)) + 5)
    classes = [*range(size), *rng.integers(0, size, 40 - size).tolist()]
    fitted = classifier(torch.as_tensor(x), classes, size, [str(n % 4) for n in range(40)])
    assert fitted.penalty in STRENGTHS
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=fitted.penalty, max_iter=300))
    expected = oracle.fit(x, classes).predict_proba(x)
    np.testing.assert_allclose(softmax(scores(fitted, x)), expected, atol=1e-3)


def test_classes_without_rows_are_the_least_probable() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 4))
    classes = (1 + 2 * (x[:, 0] > 0)).tolist()  # 1 and 3 of 5
    said = scores(classifier(torch.as_tensor(x), classes, 5, [""] * 30), x)
    assert {*said.argmax(1).tolist()} == {1, 3}
    assert (said.argmax(1) == classes).mean() > 0.9


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_one_class_alone_is_no_fit_and_no_error(rows: int) -> None:
    x = torch.randn(rows, 3)
    fitted = classifier(x, [2] * rows, 4, ["g"] * rows)
    assert not fitted.weight.any() and not fitted.bias.any()
    assert np.isfinite(scores(fitted, x.numpy())).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.booleans(), st.integers(0, 2**16))
def test_a_regressor_is_scikit_learns(size: int, dim: int, bias: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, dim)) + 3
    values = x @ rng.normal(size=(dim, size)) + rng.normal(size=(30, size))
    fitted = regressor(torch.as_tensor(x), values, [str(n % 5) for n in range(30)], bias=bias)
    assert fitted.penalty in ALPHAS
    scaler = StandardScaler(with_mean=bias)
    oracle = make_pipeline(scaler, Ridge(fitted.penalty, fit_intercept=bias)).fit(x, values)
    np.testing.assert_allclose(scores(fitted, x), oracle.predict(x).reshape(30, size), atol=1e-4)
    if not bias:
        assert not fitted.mean.any() and not fitted.bias.any()


def test_of_thousands_of_classes_a_fit_takes_seconds() -> None:
    rng = np.random.default_rng(0)
    centers, classes = rng.normal(size=(1000, 100)), np.repeat(np.arange(1000), 4)
    x = torch.as_tensor(centers[classes] + 0.1 * rng.normal(size=(4000, 100)))
    began = time.monotonic()
    fitted = classifier(x, classes.tolist(), 1000, [str(n % 4) for n in range(4000)])
    assert time.monotonic() - began < 60
    assert (scores(fitted, x.numpy()).argmax(1) == classes).mean() > 0.9


def test_a_ridge_that_fits_is_taken() -> None:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    for size in (1, 2):
        values = (x[:, :size] * 2 + 1).double().numpy()
        fitted = regressor(x, values, [str(n % 6) for n in range(60)])
        assert fitted.penalty == min(ALPHAS)
        assert np.square(scores(fitted, x.numpy()) - values).mean() < 0.01


def test_a_value_that_never_changes_is_left_alone() -> None:
    x = torch.cat([torch.randn(20, 2), torch.full((20, 1), 7.0)], 1)
    fitted = classifier(x, [0, 1] * 10, 2, [""] * 20)
    assert fitted.std[2] == 1 and np.isfinite(fitted.weight).all() and fitted.weight[:, 2] == pytest.approx(0)


def test_a_value_that_hardly_changes_is_not_blown_up() -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    x[:, 2] *= 1e-5
    mean, std = spread(x)
    assert std[:2] == pytest.approx(x[:, :2].std(0, correction=0).numpy(), rel=1e-5)
    assert std[2] == pytest.approx(1e-3 * np.sqrt(np.square(std[:2]).sum() / 3), rel=1e-3)
    assert mean == pytest.approx(x.mean(0).numpy(), abs=1e-6)


def test_the_penalty_is_chosen_on_groups_that_the_fit_has_not_seen() -> None:
    """What tells the classes apart within each group alone must not look worth a weak penalty."""
    rng = np.random.default_rng(0)
    groups, classes, rows = [], [], []
    for group in range(12):
        own = rng.normal(size=(2, 20))  # a pattern of each class that no other group has
        for number in range(20):
            groups.append(str(group))
            classes.append(number % 2)
            rows.append(own[number % 2] + 0.01 * rng.normal(size=20))
    x = torch.as_tensor(np.array(rows))
    assert classifier(x, classes, 2, groups).penalty == min(STRENGTHS)
    assert classifier(x, classes, 2, [""] * len(x)).penalty == max(STRENGTHS), "rows alone would be fooled"


def test_a_head_gives_what_was_fitted_in_any_precision() -> None:
    """Pools that differ by a thousandth of what they have in common are still told apart."""
    torch.manual_seed(0)
    head = PooledHead(4, 2, "mean", 0.0).eval()
    frames, valid = 8 + 0.004 * torch.randn(64, 5, 4), torch.ones(64, 5, dtype=torch.bool)
    classes = (frames.mean(1)[:, 0] > 8).long()
    fitted = classifier(frames.mean(1), classes.tolist(), 2, [""] * 64)
    head.begin_at(fitted)
    with torch.autocast("cpu", torch.bfloat16):
        said = head(frames, valid)
    assert said.dtype == torch.float32 and (said.argmax(1) == classes).float().mean() > 0.9
    torch.testing.assert_close(
        said.double(), torch.as_tensor(scores(fitted, frames.mean(1).numpy())), atol=1e-2, rtol=0
    )


@pytest.mark.parametrize(
    ("task", "modality", "settings"),
    [
        ("classify", "tuned_toys:Labelled", []),
        ("classify", "tuned_toys:Labelled", ["task.pool=attention"]),
        ("regress", "{target: tuned_toys:Labelled, kind: number}", []),
        ("tag", "tuned_toys:Segmented", []),
        ("forecast", "tuned_toys:Labelled", ["task.lookback=16", "task.horizon=4"]),
    ],
)
def test_a_run_says_how_its_head_starts_and_is_better_from_the_first_update_on(
    labelled: Path, tmp_path: Path, task: str, modality: str, settings: list[str]
) -> None:
    run, losses = pretrain(labelled, tmp_path / "run", modality=modality), {}
    for start in ("fitted", "zeros"):
        said: list[str] = []
        short = ("train.num_updates=1", "optim.lr=1e-6", f"finetune.head_start={start}")
        losses[start] = tune(run, task, tmp_path / start, *settings, *short, say=said.append).metrics["loss"]
        assert any("starts as a linear fit" in text for text in said) == (start == "fitted")
    assert losses["fitted"] < 0.8 * losses["zeros"]


def test_a_run_that_goes_on_keeps_its_head(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("train.num_updates=8", "train.save_every=4", "finetune.average=0.9")
    whole = tune(run, "classify", tmp_path / "whole", *more).metrics
    step = Trainer.step

    def interrupted(self: Trainer, batches: Any) -> None:
        if self.update == 5:
            raise Interrupted("stopped")
        step(self, batches)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Trainer, "step", interrupted)
        tune(run, "classify", tmp_path / "parts", *more)
    said: list[str] = []
    assert tune(run, "classify", tmp_path / "parts", *more, say=said.append).metrics == whole
    assert not any("starts as" in text for text in said)


@pytest.mark.parametrize(
    ("settings", "rate"),
    [([], 1.0), (["finetune.head_start=zeros"], 10.0), (["finetune.head_rate=4"], 0.4)],
)
def test_a_head_that_was_fitted_learns_as_slowly_as_the_encoder(
    run: Path, tmp_path: Path, settings: list[str], rate: float
) -> None:
    task = load_task(tune(run, "classify", tmp_path / "t", "train.num_updates=1", *settings).out)
    head = {id(p) for p in task.model.head.parameters()}
    scales = {g["lr_scale"] for g in task.parameter_groups() for p in g["params"] if id(p) in head}
    assert [*scales] == pytest.approx([rate])


def test_a_run_from_before_heads_were_fitted_goes_on_as_it_began(run: Path, tmp_path: Path) -> None:
    out, zeros = tmp_path / "t", "finetune.head_start=zeros"
    tune(run, "classify", out, "train.num_updates=2", zeros)
    config = out / "config.yaml"
    config.write_text(config.read_text().replace("  head_start: zeros\n", ""))
    with pytest.raises(UserError, match="head_start: zeros there, fitted now"):
        tune(run, "classify", out, "train.num_updates=2")
    assert tune(run, "classify", out, "train.num_updates=2", zeros).metrics


def test_an_average_begins_where_the_head_does(labelled: Path, tmp_path: Path) -> None:
    run = pretrain(labelled, tmp_path / "run")
    short = ("train.num_updates=1", "optim.lr=1e-6", "finetune.average=0.999")
    told = tune(run, "classify", tmp_path / "averaged", *short).metrics
    plain = tune(run, "classify", tmp_path / "plain", *short[:2]).metrics
    assert told["loss"] == pytest.approx(plain["loss"], rel=1e-3)

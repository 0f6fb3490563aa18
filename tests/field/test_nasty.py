"""The smallest of the corpora that are made to break a codebook; `nasty.py` has all of them, at length."""

import nasty
import pytest

SHORT = (
    "train.precision=float32",
    "train.device=cpu",
    "optim.warmup_updates=20",
    "data.batch_seconds=120",
)
SMALL = (
    *SHORT,
    "encoder.num_layers=2",
    "encoder.dim=64",
    "feature_encoder={target: patch, patch: 6}",  # as wide as at `tiny`
    "encoder.block.ffn_dim=128",
    "encoder.position.groups=4",
    "encoder.taps={contrastive: 1, output: 2}",
    "mixer.num_heads=2",
)


@pytest.mark.parametrize("name", ["twenty-short", "all-alike", "dead-axis"])
def test_trains_in_health_or_is_refused_in_words(name, tmp_path):
    found = nasty.trial(name, tmp_path, 200, SMALL, "wearables_w2vbert")
    assert nasty.passes(found), found
    assert bool(found["refused"]) == (name == "dead-axis")
    if found["refused"]:
        assert "axis z of the accelerometer never changes" in found["refused"]
    else:
        assert found["perplexity"] >= 4


@pytest.mark.parametrize("name", ["twenty-short", "all-alike"])
def test_what_is_recommended_trains_in_health(name, tmp_path):
    """Without a codebook: rows must not become one vector, nor views stay untold apart where rows differ."""
    found = nasty.trial(name, tmp_path, 100, SHORT)
    assert found["recipe"] == "wearables_views" and not found["refused"]
    assert nasty.passes(found), found


def test_a_codebook_that_has_collapsed_does_not_pass():
    finding = {"rule": "collapse", "severity": "failure", "recovered": False}
    assert not nasty.passes({"refused": "", "findings": [finding]})
    assert nasty.passes({"refused": "", "findings": [{**finding, "recovered": True}]})
    assert nasty.passes({"refused": "nothing usable in it", "findings": []})

"""Every mixer in a run: planned, trained, and opened again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toy import toy_arguments, write_waves

from seqssl.assembly import build_model
from seqssl.errors import UserError
from seqssl.planning.cost import cost_of
from seqssl.planning.plan import load_recipe
from seqssl.runs.folder import load
from seqssl.runs.train import train

MIXERS = {
    "local": "mixer={target: local, num_heads: 2, window: 4}",
    "summary": "mixer={target: summary}",
    "fft_convolution": "mixer={target: fft_convolution, filter_dim: 8}",
    "gated_linear": "mixer={target: gated_linear, num_heads: 2, chunk: 8}",
}


@pytest.mark.parametrize("name", MIXERS)
def test_a_run_with_each_mixer(name: str, tmp_path: Path) -> None:
    """Rows give what they give alone, also where they are padded to the length of another."""
    short = ["train.num_updates=2", "train.eval_every=2", "train.save_every=2"]
    given = toy_arguments(write_waves(tmp_path / "waves"), tmp_path / "run", MIXERS[name], *short)
    config = load_recipe("base/w2vbert", *(text for text in given[1:] if not text.startswith("mixer.")))
    assert cost_of(config).micro_flops > 0
    train(config, say=None)
    encoder = load(tmp_path / "run")
    rows = [torch.randn(size, 2, generator=torch.Generator().manual_seed(size)).numpy() for size in (60, 25)]
    together = encoder.embed(rows)
    np.testing.assert_allclose(together[1:], encoder.embed(rows[1:]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mixer", ["gated_linear", "local", "summary", "fft_convolution"])
def test_what_is_foreseen_must_not_be_read(mixer: str) -> None:
    with pytest.raises(UserError, match="foresees later frames"):
        build_model(load_recipe("wearables_next_latent", "size=tiny", f"mixer={mixer}"), "meta")
    for causal in ("causal_gated_linear", "{target: fft_convolution, causal: true}"):
        build_model(load_recipe("wearables_next_latent", "size=tiny", f"mixer={causal}"), "meta")

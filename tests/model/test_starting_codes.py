"""Codes that do not die: a codebook that starts at clusters, and entries that are given frames again."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from toy import toy_config, write_waves

from seqssl import GumbelProductQuantizer, LinearTarget
from seqssl.errors import UserError
from seqssl.model.objectives import perplexity
from seqssl.model.quantizers import COUNTS_DECAY, GRACE, MARGIN
from seqssl.model.starting_codes import StartedCodes
from seqssl.runs.train import train
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import seeds

SIZE, DIM = 16, 24


def frames(number: int, seed: int = 0, *, common: float = 0.0) -> Tensor:
    """Frames that share a component, `common` times as large as what tells them apart."""
    generator = seeded(seed)
    return torch.randn(number, DIM, generator=generator) + common * torch.randn(DIM, generator=generator)


def gumbel(num_codebooks: int = 1, *, revive: float = 0.0, size: int = SIZE) -> GumbelProductQuantizer:
    torch.manual_seed(0)
    return GumbelProductQuantizer(
        DIM, num_codebooks=num_codebooks, codebook_size=size, dim=8 * num_codebooks, revive=revive
    )


def in_use(quantizer: GumbelProductQuantizer, x: Tensor) -> list[float]:
    """The perplexity of the codes of each codebook, without noise."""
    codes = quantizer(x, temperature=None).codes
    counts = torch.stack([torch.bincount(own, minlength=quantizer.codebook_size) for own in codes.unbind(1)])
    return perplexity(counts / len(x)).tolist()


@given(seeds, st.integers(1, 3), st.sampled_from([0.0, 3.0, 30.0]))
def test_codes_that_start_at_clusters_are_all_in_use(seed: int, num_codebooks: int, common: float) -> None:
    x, quantizer = frames(600, seed, common=common), gumbel(num_codebooks)
    if common == 30:
        assert max(in_use(quantizer, x)) < SIZE / 4, "random codes are not: what frames share decides"
    quantizer.start_at_clusters(x, seeded(seed))
    assert min(in_use(quantizer, x)) > SIZE / 2


def test_a_frame_takes_the_nearest_center() -> None:
    """Blobs far apart: each has one code, and no two the same."""
    centers = 50 * torch.randn(SIZE, DIM, generator=seeded(1)) + 200
    blobs = centers.repeat_interleave(20, 0) + torch.randn(20 * SIZE, DIM, generator=seeded(2))
    quantizer = gumbel()
    quantizer.start_at_clusters(blobs, seeded(3))
    codes = quantizer(blobs, temperature=None).codes.view(SIZE, 20)
    assert (codes == codes[:, :1]).all()
    assert len(codes[:, 0].unique()) == SIZE


def test_the_logits_keep_their_deviation() -> None:
    """So that temperature and noise mean what they meant."""
    x, quantizer = frames(500, common=10), gumbel(2)
    before = quantizer.logits(x - x.mean(0)).unflatten(-1, (2, SIZE)).std(-1).mean(0)
    quantizer.start_at_clusters(x, seeded())
    after = quantizer.logits(x).unflatten(-1, (2, SIZE)).std(-1).mean(0)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


def test_frames_that_are_all_alike_do_no_harm() -> None:
    quantizer = gumbel()
    quantizer.start_at_clusters(torch.ones(100, DIM), seeded())
    assert all(value.isfinite().all() for value in quantizer.state_dict().values())


def test_half_precision_finds_the_same_codes() -> None:
    """Also where frames share much: training computes logits in bfloat16."""
    x, quantizer = frames(600, common=3), gumbel()
    quantizer.start_at_clusters(x, seeded())
    exact = quantizer(x, temperature=None).codes
    with torch.autocast("cpu", torch.bfloat16):
        assert (quantizer(x, temperature=None).codes == exact).float().mean() > 0.95


def update(quantizer: GumbelProductQuantizer, x: Tensor, generator: torch.Generator) -> None:
    """What training does to the counts of an update, without its gradient."""
    quantizer.train()
    quantizer(x, temperature=1.0, generator=generator)
    quantizer.after_update()


@torch.no_grad()
def test_dead_entries_are_given_frames() -> None:
    quantizer, x, generator = gumbel(2, revive=1.0), frames(400), seeded()
    quantizer.logits.bias[0] = quantizer.logits.bias[SIZE] = 1e4  # one entry of each codebook takes all
    assert in_use(quantizer, x) == [1.0, 1.0]
    for _ in range(GRACE + 20):
        update(quantizer, x, generator)
    assert min(in_use(quantizer, x)) > SIZE / 2


@torch.no_grad()
def test_a_revived_entry_takes_the_side_of_the_drawn_frame() -> None:
    """Against the definition: a margin ahead at a frame, on a par at the mean of the busy entry's frames."""
    quantizer, x = gumbel(revive=1.0, size=2), frames(30)
    quantizer.logits.bias[0] = 1e4
    weight, bias = quantizer.logits.weight[0].clone(), quantizer.logits.bias[0].clone()
    for _ in range(GRACE):
        update(quantizer, x, seeded(7))
    quantizer.eval()
    lead = quantizer.logits(x)[:, 1] - quantizer.logits(x)[:, 0]
    torch.testing.assert_close(quantizer.logits.weight[0], weight)
    torch.testing.assert_close(quantizer.logits.bias[0], bias)
    sides = (x - x.mean(0)) @ (x - x.mean(0)).T > 0  # for each frame that may have been drawn
    drawn = [place for place, own in enumerate(sides) if torch.equal(own, lead > 0)]
    assert any(float(lead[place]) == pytest.approx(MARGIN, abs=0.01) for place in drawn)
    mean = quantizer.logits(x.mean(0))
    assert float(mean[1] - mean[0]) == pytest.approx(0, abs=0.01)
    assert quantizer.ages[0].tolist() == [GRACE, 0], "and is left alone for a while"


@torch.no_grad()
def test_an_entry_that_is_rare_and_alive_is_left_alone() -> None:
    """Each entry has one frame in five updates, five times as many as it needs."""
    quantizer, generator = gumbel(revive=0.04), seeded()
    x = frames(400)
    quantizer.start_at_clusters(x, generator)
    before = quantizer.logits.weight.clone()
    for _ in range(3 * GRACE):
        update(quantizer, x[torch.randint(len(x), (SIZE // 5,), generator=generator)], generator)
    changed = (quantizer.logits.weight != before).any(1)
    assert changed.float().mean() < 0.2


@torch.no_grad()
def test_updates_of_other_streams_do_not_count() -> None:
    quantizer = gumbel(revive=1.0).train()
    for _ in range(3 * GRACE):
        quantizer.after_update()
    assert not quantizer.ages.any() and not quantizer.counts.any()


@torch.no_grad()
def test_what_is_used_is_left_alone() -> None:
    x = frames(400)
    for quantizer, noisy in ((gumbel(revive=0.01), True), (gumbel(revive=1.0), False)):
        quantizer.start_at_clusters(x, seeded())
        before = {name: value.clone() for name, value in quantizer.state_dict().items()}
        for _ in range(GRACE + 5):
            if noisy:
                update(quantizer, x, seeded())
            else:  # an evaluation
                quantizer.eval()(x, temperature=None)
        for name, value in quantizer.state_dict().items():
            assert name in ("counts", "ages") or torch.equal(value, before[name])


@torch.no_grad()
def test_an_update_counts_all_its_micro_batches() -> None:
    quantizer, x = gumbel(revive=0.5), frames(60)
    quantizer.train()
    for part in x.split(20):
        quantizer(part, temperature=1.0, generator=seeded())
    codes = quantizer(x, temperature=None).codes[:, 0]
    before = quantizer.counts[0].clone()
    expected = before.lerp(torch.bincount(codes, minlength=SIZE).float(), 1 - COUNTS_DECAY)
    quantizer.after_update()
    torch.testing.assert_close(quantizer.counts[0], expected)


@torch.no_grad()
def test_two_ranks_with_the_same_frames_do_as_one() -> None:
    one, two = gumbel(revive=1.0), gumbel(revive=1.0)
    two.all_reduce = lambda x: 2 * x
    for each in (one, two):
        each.logits.bias[0] = 1e4
        for _ in range(GRACE):
            update(each, frames(50), seeded())
    assert two.logits.bias[1] != 0
    torch.testing.assert_close(one.logits.weight, two.logits.weight)
    torch.testing.assert_close(one.logits.bias, two.logits.bias)


def test_a_run_starts_at_clusters_and_says_so(tmp_path: Path) -> None:
    told = list[str]()
    config = toy_config(
        write_waves(tmp_path / "waves"),
        tmp_path / "run",
        "targets=learned_from_clusters",
        "quantizer_norm=batch",
        "quantizer.revive=0.1",
    )
    train(config, say=told.append)
    assert any("targets fitted: clusters" in text for text in told)
    saved = load_file(tmp_path / "run/checkpoints/step-00000012/model.safetensors")
    assert saved["targets.quantizer.logits.bias"].abs().max() > 0.5, "12 updates from 0 do not get there"


def test_other_quantizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="starts a Gumbel quantizer, and this is LinearTarget"):
        StartedCodes(LinearTarget(6, dim=4))
    with pytest.raises(UserError, match="clusters need as many frames"):
        train(
            toy_config(
                write_waves(tmp_path / "waves"), tmp_path / "run",
                "targets=learned_from_clusters", "quantizer.codebook_size=100000",
            )
        )  # fmt: skip

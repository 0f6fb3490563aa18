"""Quantizers of nearest entries, residuals and levels: as vector-quantize-pytorch's on the same weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqssl.model.codebooks import FiniteScalarQuantizer, NearestQuantizer, ResidualQuantizer
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import seeds

library = pytest.importorskip("vector_quantize_pytorch")
DIM = 6


def as_identity(quantizer: NearestQuantizer | ResidualQuantizer | FiniteScalarQuantizer) -> None:
    """Take the projection out: theirs has none."""
    with torch.no_grad():
        torch.nn.init.eye_(quantizer.project.weight)
        torch.nn.init.zeros_(quantizer.project.bias)


def frames(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, DIM, generator=seeded(seed))


@given(st.integers(1, 30), seeds)
def test_nearest_entries_and_the_commitment(n: int, seed: int) -> None:
    theirs = library.VectorQuantize(
        dim=DIM, codebook_size=7, commitment_weight=0.25, learnable_codebook=True, ema_update=False,
        rotation_trick=False,
    ).train()  # fmt: skip
    ours = NearestQuantizer(DIM, num_codebooks=1, codebook_size=7, dim=DIM, commitment=0.25)
    as_identity(ours)
    with torch.no_grad():
        theirs._codebook.embed.normal_(generator=seeded(seed + 1))
        ours.codebooks[0].entries.copy_(theirs._codebook.embed[0])
    x = [frames(n, seed).requires_grad_() for _ in range(2)]
    found = ours.train()(x[0], temperature=1.0, generator=seeded())
    vectors, codes, _ = theirs(x[1][None])
    assert torch.equal(found.codes[:, 0], codes[0])
    torch.testing.assert_close(found.vectors, vectors[0])
    upstream = torch.randn(n, DIM, generator=seeded(3))
    torch.testing.assert_close(*(
        torch.autograd.grad(value, where, upstream, retain_graph=True)[0]
        for value, where in ((found.vectors, x[0]), (vectors[0], x[1]))
    ))  # fmt: skip
    entries = ours.codebooks[0].entries[found.codes[:, 0]]
    expected = (entries - x[0]).square().mean(-1) * 1.25
    torch.testing.assert_close(found.costs, expected)
    grads = torch.autograd.grad(found.costs.sum(), (x[0], ours.codebooks[0].entries))
    torch.testing.assert_close(grads[0], 0.25 * 2 * (x[0] - entries).detach() / DIM)
    assert grads[1].shape == (7, DIM)


@given(st.integers(2, 40), seeds)
def test_running_means_follow_as_theirs(n: int, seed: int) -> None:
    theirs = library.VectorQuantize(dim=DIM, codebook_size=5, decay=0.9, rotation_trick=False).train()
    ours = NearestQuantizer(DIM, num_codebooks=1, codebook_size=5, dim=DIM, decay=0.9).train()
    as_identity(ours)
    book = ours.codebooks[0]
    with torch.no_grad():
        start = torch.randn(1, 5, DIM, generator=seeded(seed + 1))
        theirs._codebook.embed.copy_(start)
        theirs._codebook.embed_avg.copy_(start)
        book.entries.copy_(start[0])
        book.sums.copy_(start[0])
    for step in range(3):
        x = frames(n, seed + step)
        for part in x.tensor_split(2):  # micro-batches add up to one update
            ours(part, temperature=1.0, generator=seeded())
        book.after_update()
        theirs(x[None])
        torch.testing.assert_close(book.counts, theirs._codebook.cluster_size[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(book.entries, theirs._codebook.embed[0], rtol=1e-3, atol=1e-4)
    still = book.entries.clone()
    ours(frames(n, 9), temperature=None)
    ours.eval()(frames(n, 9), temperature=1.0, generator=seeded())
    ours.train()(frames(n, 9), temperature=1.0, generator=seeded())
    assert torch.equal(book.entries, still), "only an update moves them"


@given(st.integers(1, 3), st.integers(1, 30), seeds)
def test_residuals(depth: int, n: int, seed: int) -> None:
    theirs = library.ResidualVQ(dim=DIM, num_quantizers=depth, codebook_size=6).eval()
    ours = ResidualQuantizer(DIM, num_codebooks=depth, codebook_size=6, dim=DIM).eval()
    as_identity(ours)
    with torch.no_grad():
        for number, (mine, other) in enumerate(zip(ours.codebooks, theirs.layers, strict=True)):
            other._codebook.embed.normal_(generator=seeded(seed + number)).div_(number + 1)
            mine.entries.copy_(other._codebook.embed[0])
    x = frames(n, seed)
    vectors, codes, _ = theirs(x[None])
    found = ours(x, temperature=None)
    assert torch.equal(found.codes, codes[0])
    torch.testing.assert_close(found.vectors, vectors[0], rtol=1e-4, atol=1e-5)


@given(st.lists(st.integers(3, 9), min_size=1, max_size=4), st.integers(1, 30), seeds)
def test_levels(levels: list[int], n: int, seed: int) -> None:
    theirs = library.FSQ(levels=levels)
    ours = FiniteScalarQuantizer(len(levels), levels=tuple(levels))
    as_identity(ours)
    x = 2 * torch.randn(n, len(levels), generator=seeded(seed))
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    vectors, codes = theirs(inputs[1][None])
    found = ours(inputs[0], temperature=None)
    torch.testing.assert_close(found.vectors, vectors[0], rtol=1e-5, atol=1e-6)
    assert torch.equal(found.codes[:, 0], codes[0].long())
    assert int(found.codes.max()) < ours.codebook_size
    grads = [
        torch.autograd.grad(v.sum(), i)[0] for v, i in ((found.vectors, inputs[0]), (vectors, inputs[1]))
    ]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)


def test_dead_entries_become_frames() -> None:
    ours = NearestQuantizer(DIM, num_codebooks=1, codebook_size=9, dim=DIM, decay=0.5, revive=0.5).train()
    as_identity(ours)
    book = ours.codebooks[0]
    with torch.no_grad():
        book.entries[1:] = 100.0  # too far from anything
        book.sums.copy_(book.entries)
    x = frames(200, 1)
    used = []
    for _ in range(12):
        used.append(len(ours(x, temperature=1.0, generator=seeded(len(used))).codes.unique()))
        book.after_update()
    assert used[0] == 1 and used[-1] == 9

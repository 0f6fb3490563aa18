"""Properties of the objectives, against slow and plain references."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from seqssl import (
    Context,
    ContrastiveLoss,
    DiversityLoss,
    FeaturePenalty,
    Features,
    LossTerm,
    MaskedFrames,
    MaskedPredictionLoss,
    Quantized,
)
from seqssl.model.objectives import count_distinct, perplexity
from seqssl.testing.harness import seeded
from seqssl.testing.objectives import Case, Sizes, random_case
from seqssl.testing.strategies import masked_frames, seeds

counts = st.lists(st.integers(0, 8), min_size=1, max_size=4).map(tuple)
sizes = st.builds(
    Sizes,
    context_dim=st.just(12),
    target_dim=st.just(12),
    num_codebooks=st.sampled_from([1, 2, 3]),
    codebook_size=st.integers(1, 6),
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    return random_case(draw(counts), draw(sizes), draw(seeds))


def contrastive(num_negatives: int = 6, **settings: object) -> ContrastiveLoss:
    torch.manual_seed(0)
    return ContrastiveLoss(12, 12, tap="", num_negatives=num_negatives, **settings)  # type: ignore[arg-type]


def in_rows(frames: MaskedFrames, row: int) -> Tensor:
    """Flat numbers of a row's masked frames."""
    return (frames.rows == row).nonzero()[:, 0]


def slow_contrastive(objective: ContrastiveLoss, case: Case, negatives: Tensor) -> LossTerm:
    """Frame by frame, in float64: gather K vectors, compare, and leave out equal codes."""
    context, targets = case
    projected = objective.double().project_target(targets.vectors.double())
    contexts = objective.project_context(context.x.double())
    objective.float()
    total, correct, chance, distinct = torch.zeros((), dtype=torch.float64), 0.0, 0.0, 0.0
    for i, slots in enumerate(negatives):
        mates = in_rows(context.frames, int(context.frames.rows[i]))
        chosen = [int(mates[slot]) for slot in slots] if len(mates) > 1 else []
        usable = [j for j in chosen if not torch.equal(targets.codes[i], targets.codes[j])]
        candidates = torch.stack([projected[i], *(projected[j] for j in usable)])
        logits = F.cosine_similarity(contexts[i], candidates, dim=-1) / objective.temperature
        total = total - logits.log_softmax(0)[0]
        different = len({tuple(targets.codes[j].tolist()) for j in usable})
        correct += float((logits[0] > logits[1:]).all())
        chance += 1 / (1 + different)
        distinct += different
    stats = {"accuracy": correct, "chance": chance, "num_negatives": distinct}
    return LossTerm(total, torch.tensor(len(negatives)), {k: torch.tensor(v) for k, v in stats.items()})


@given(masked_frames(), st.integers(1, 30), seeds)
def test_negatives_are_other_masked_frames_of_the_row(
    frames: MaskedFrames, num_negatives: int, seed: int
) -> None:
    """Slots lie in the row; none is the frame's own, unless the row holds no other."""
    slots = contrastive(num_negatives)._draw(frames, seeded(seed))
    in_row = frames.mask.sum(1)[frames.rows, None]
    assert slots.shape == (len(frames.rows), num_negatives)
    assert ((slots >= 0) & (slots < in_row)).all()
    assert ((slots != frames.slots[:, None]) | (in_row == 1)).all()


def test_negatives_are_uniform() -> None:
    """Each of the other frames of the row equally often."""
    frames = MaskedFrames.of(torch.tensor([[True] * 5 + [False] * 2, [True] * 3 + [False] * 4]))
    slots = contrastive(20_000)._draw(frames, seeded())
    for i, (row, slot) in enumerate(zip(frames.rows.tolist(), frames.slots.tolist(), strict=True)):
        size = int(frames.mask[row].sum())
        shares = torch.bincount(slots[i], minlength=size) / 20_000
        expected = torch.full((size,), 1 / (size - 1))
        expected[slot] = 0
        torch.testing.assert_close(shares, expected, rtol=0, atol=0.02)


@given(cases(), st.integers(1, 12), st.sampled_from([None, 5]), seeds)
def test_contrastive_equals_the_slow_reference(
    case: Case, num_negatives: int, final_dim: int | None, seed: int
) -> None:
    """Loss, every statistic, and the gradients to contexts and targets."""
    objective = contrastive(num_negatives, final_dim=final_dim)
    context, targets = case
    negatives = objective._draw(context.frames, seeded(seed))
    for tensor in (context.x, targets.vectors):
        tensor.requires_grad_()
    term = objective(context, targets, seeded(seed))
    expected = slow_contrastive(objective, case, negatives)
    assert int(term.count) == len(context.x)
    torch.testing.assert_close(term.total.double(), expected.total, rtol=1e-5, atol=1e-4)
    assert term.stats.keys() == expected.stats.keys()
    for name, value in expected.stats.items():
        if name != "accuracy":  # cosines of equal vectors tie in one precision and not in the other
            torch.testing.assert_close(term.stats[name].double(), value.double(), rtol=1e-5, atol=1e-5)
    if len(context.x):
        inputs = (context.x, targets.vectors)
        actual, wanted = torch.autograd.grad(term.total, inputs), torch.autograd.grad(expected.total, inputs)
        for a, b in zip(actual, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@given(seeds)
def test_accuracy_and_chance(seed: int) -> None:
    """Contexts equal to their targets are all right; chance is the mean of 1 / (1 + distinct negatives)."""
    context, targets = random_case((20, 12), Sizes(codebook_size=50), seed)
    matched = Context(targets.vectors.clone(), context.frames, context.features)
    stats = contrastive(40)(matched, targets, seeded(seed)).stats
    assert int(stats["accuracy"]) == 32
    assert 32 / 20 <= float(stats["chance"]) <= 32 / 2


@given(counts, seeds)
def test_equal_codes_are_no_negatives(masked: tuple[int, ...], seed: int) -> None:
    """After a collapse every negative is left out: loss 0, no negatives, and chance says 1."""
    context, targets = random_case(masked, seed=seed)
    collapsed = Quantized(targets.vectors, torch.zeros_like(targets.codes), targets.usage)
    term = contrastive()(context, collapsed, seeded(seed))
    assert float(term.total) == 0
    assert float(term.stats["num_negatives"]) == 0
    assert float(term.stats["chance"]) == len(context.x)


@given(st.integers(1, 5), seeds)
def test_rows_of_one_masked_frame_lose_nothing(num_rows: int, seed: int) -> None:
    context, targets = random_case((1,) * num_rows, seed=seed)
    term = contrastive()(context, targets, seeded(seed))
    assert float(term.total) == 0
    assert int(term.count) == num_rows


@given(cases(), seeds)
def test_contrastive_reads_each_row_alone(case: Case, seed: int) -> None:
    """The negatives of a row being equal, other rows change nothing."""
    context, targets = case
    frames = context.frames
    negatives = contrastive()._draw(frames, seeded(seed))
    objective = contrastive()
    whole = 0.0
    for row in range(len(frames.mask)):
        members = in_rows(frames, row)
        alone = MaskedFrames.of(frames.mask[row : row + 1])
        objective._draw = lambda _frames, _generator, chosen=negatives[members]: chosen  # type: ignore[method-assign, misc]
        part = Context(context.x[members], alone, context.features)
        own = Quantized(targets.vectors[members], targets.codes[members], targets.usage)
        whole += float(objective(part, own, seeded()).total)
    objective._draw = lambda _frames, _generator: negatives  # type: ignore[method-assign]
    assert float(objective(context, targets, seeded()).total) == pytest.approx(whole, rel=1e-4, abs=1e-4)


@given(st.integers(1, 6), st.integers(1, 10), st.integers(1, 5), st.integers(1, 12), seeds)
def test_count_distinct_counts_sets(n: int, k: int, g: int, v: int, seed: int) -> None:
    """As Python counts them, for any number of codebooks."""
    generator = seeded(seed)
    codes = torch.randint(v, (n, k, g), generator=generator)
    usable = torch.rand(n, k, generator=generator) < 0.7
    expected = [
        len({tuple(code.tolist()) for code, good in zip(*pair, strict=True) if good})
        for pair in zip(codes, usable, strict=True)
    ]
    assert count_distinct(codes, usable).tolist() == expected


def test_count_distinct_with_large_codebooks() -> None:
    """Hashes of many large codes stay usable, and different."""
    codes = torch.randint(1024, (4, 100, 8), generator=seeded())
    assert count_distinct(codes, torch.ones(4, 100, dtype=torch.bool)).tolist() == [100.0] * 4


@given(cases())
def test_masked_prediction_is_the_mean_over_codebooks(case: Case) -> None:
    """Against one cross-entropy per codebook."""
    context, targets = case
    g, v = targets.usage.shape
    torch.manual_seed(0)
    objective = MaskedPredictionLoss(12, g, v, tap="output")
    term = objective(context, targets, seeded())
    logits = objective.head(context.x).view(-1, g, v)
    losses = [F.cross_entropy(logits[:, i], targets.codes[:, i], reduction="sum") for i in range(g)]
    torch.testing.assert_close(term.total, torch.stack(losses).mean())
    correct = (logits.argmax(-1) == targets.codes).double().mean(-1).sum()
    torch.testing.assert_close(term.stats["accuracy"].double(), correct, rtol=1e-5, atol=1e-5)
    assert int(term.count) == len(context.x)


@given(cases())
def test_a_cosine_head_compares_with_a_vector_of_each_code(case: Case) -> None:
    """HuBERT's equation 2, one frame and one code at a time."""
    context, targets = case
    g, v = targets.usage.shape
    torch.manual_seed(0)
    objective = MaskedPredictionLoss(12, g, v, tap="output", final_dim=6, temperature=0.1)
    term = objective(context, targets, seeded())
    assert objective.embeddings is not None
    total = 0.0
    for frame, codes in zip(context.x, targets.codes, strict=True):
        projected = objective.head(frame)
        for book, code in enumerate(codes.tolist()):
            vectors = objective.embeddings[book * v : (book + 1) * v]
            logits = torch.stack([F.cosine_similarity(projected, vector, dim=0) / 0.1 for vector in vectors])
            total += (logits.logsumexp(0) - logits[code]).item()
    assert term.total.item() == pytest.approx(total / g, rel=1e-4, abs=1e-3)


@given(cases(), st.integers(0, 4))
def test_two_micro_batches_are_one(case: Case, rows: int) -> None:
    """Terms that are sums over frames: totals, counts and gradients of two parts add up to the whole's."""
    context, targets = case
    torch.manual_seed(0)
    objective = MaskedPredictionLoss(12, *targets.usage.shape, tap="output")
    first = context.frames.rows < rows
    parts = []
    for chosen, mask in ((first, context.frames.mask[:rows]), (~first, context.frames.mask[rows:])):
        if len(mask):
            part = Context(context.x[chosen], MaskedFrames.of(mask), context.features)
            own = Quantized(targets.vectors[chosen], targets.codes[chosen], targets.usage)
            parts.append(objective(part, own, seeded()))
    whole = objective(context, targets, seeded())
    grads = torch.autograd.grad(torch.stack([p.total for p in parts]).sum(), [*objective.parameters()])
    for a, b in zip(grads, torch.autograd.grad(whole.total, [*objective.parameters()]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert sum(int(p.count) for p in parts) == int(whole.count)
    assert sum(float(p.stats["accuracy"]) for p in parts) == pytest.approx(float(whole.stats["accuracy"]))


def diversity(usage: Tensor) -> float:
    g, v = usage.shape
    context, targets = random_case((3, 2), Sizes(target_dim=12 * g, num_codebooks=g, codebook_size=v))
    term = DiversityLoss()(context, Quantized(targets.vectors, targets.codes, usage), seeded())
    return float(term.total / term.count)


@given(st.integers(1, 4), st.integers(1, 40))
def test_diversity_limits(g: int, v: int) -> None:
    """0 at even use, 1 - 1/V at collapse."""
    assert diversity(torch.full((g, v), 1 / v)) == pytest.approx(0, abs=1e-5)
    assert diversity(F.one_hot(torch.zeros(g, dtype=torch.long), v).float()) == pytest.approx(
        1 - 1 / v, abs=1e-5
    )


@given(st.integers(1, 4), st.integers(1, 12), seeds)
def test_diversity_is_between_its_limits_and_falls_along_its_gradient(g: int, v: int, seed: int) -> None:
    logits = torch.randn(g, v, generator=seeded(seed)).requires_grad_()
    usage = logits.softmax(-1)
    value = diversity(usage.detach())
    assert -1e-5 <= value <= 1 - 1 / v + 1e-5
    (1 - perplexity(usage).sum() / usage.numel()).backward()
    stepped = (logits.detach() - 0.1 * logits.grad).softmax(-1)
    assert diversity(stepped) <= value + 1e-6


@given(st.integers(1, 30), seeds)
def test_perplexity_counts_entries(v: int, seed: int) -> None:
    """v equal entries: v; never fewer than 1, never more than there are."""
    assert float(perplexity(torch.full((1, v), 1 / v))) == pytest.approx(v, rel=1e-4)
    drawn = perplexity(torch.randn(3, v, generator=seeded(seed)).softmax(-1))
    assert ((drawn >= 1 - 1e-5) & (drawn <= v + 1e-3)).all()


def test_feature_penalty_ignores_padding() -> None:
    """Mean square of valid frames, whatever stands behind them."""
    context, targets = random_case((3, 2))
    x = torch.full((2, 24, 12), 1e6)
    x[0, :5], x[1, :10] = 2.0, 1.0
    penalized = Context(context.x, context.frames, Features(x, torch.tensor([5, 10])))
    term = FeaturePenalty()(penalized, targets, seeded())
    assert float(term.total / term.count) == pytest.approx((5 * 4 + 10 * 1) / 15)


def test_uniform_guessing_costs_the_log_of_the_candidates() -> None:
    """With contexts orthogonal to every target: log(1 + K), the 4.615 that a stuck run shows."""
    context, targets = random_case((30, 30), Sizes(codebook_size=1000))
    orthogonal = targets.vectors.clone()
    orthogonal[:, 6:] = 0
    x = torch.zeros_like(context.x)
    x[:, 6:] = 1
    unrelated = Quantized(orthogonal, targets.codes, targets.usage)
    term = contrastive(100)(Context(x, context.frames, context.features), unrelated, seeded())
    assert float(term.total / term.count) == pytest.approx(math.log(101), rel=1e-3)


def test_unequal_widths_need_a_projection() -> None:
    with pytest.raises(ValueError, match="final_dim"):
        ContrastiveLoss(12, 8, tap="")

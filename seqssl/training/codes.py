"""How codes are used and predicted, from sums over steps."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from seqssl.model.objectives import perplexity


def code_summary(
    sums: Mapping[str, Tensor], predicting: Sequence[str] = (), *, word: int = 1
) -> dict[str, float]:
    """Metrics of the codes that frames had as targets, and of the objectives that predict them.

    `sums` holds "codes" (g v), how often each entry was the target of a masked frame, learned codebooks
    first; "usage" (l v), the sum over masked frames of the soft use of the learned ones; and the numbers of
    "masked" and "maskable" frames. For each objective of `predicting` it holds "<name>/count" of frames,
    "<name>/nats" (g) and, where there are several codebooks, "<name>/accuracy_<g>". Metrics of symbols alone,
    or of learned codes alone, are taken from the first of these objectives. `word` is the number of symbols
    that one code stands for.
    """
    counts, usage, masked = sums["codes"], sums["usage"], sums["masked"].clamp(min=1)
    num_books, num_learned = len(counts), len(usage)
    metrics: dict[str, float] = {}
    if num_learned:
        metrics |= code_metrics(counts[:num_learned, : usage.shape[1]], usage / masked)
    if predicting and num_books:
        tops = (counts.max(dim=1).values / masked).tolist()
        for name in predicting:
            metrics[f"{name}/trivial"] = mean(tops)
            if num_books > 1:
                metrics |= {f"{name}/trivial_{g}": top for g, top in enumerate(tops)}
        first = predicting[0]
        number = sums[f"{first}/count"].clamp(min=1)
        if num_learned < num_books and f"{first}/nats" in sums:
            nats = sums[f"{first}/nats"][num_learned:] / number
            metrics |= symbol_metrics(counts[num_learned:], nats, word)
        kinds = {"codes": range(num_learned), "symbols": range(num_learned, num_books)}
        if all(kinds.values()) and f"{first}/accuracy_0" in sums:  # both kinds: each for itself, too
            for kind, books in kinds.items():
                found = [float(sums[f"{first}/accuracy_{g}"] / number) for g in books]
                metrics[f"{kind}/accuracy"] = mean(found)
                metrics[f"{kind}/trivial"] = mean([tops[g] for g in books])
    metrics["mask/share"] = float(sums["masked"] / sums["maskable"])
    return metrics


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return sum(values) / len(values)


def symbol_metrics(counts: Tensor, nats: Tensor, word: int) -> dict[str, float]:
    """How well symbols given by the data are predicted: bits for each, beside the entropy of their counts.

    `counts` (g v) and `nats` (g) are those of codes that stand for `word` symbols each.
    """
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    return {
        "symbols/bits": mean(nats.tolist()) / math.log(2) / word,
        "symbols/entropy_bits": float(perplexity(shares).log2().mean()) / word,
    }


def code_metrics(codes: Tensor, usage: Tensor) -> dict[str, float]:
    """How the codebooks are used, from the counts of chosen codes (g, v) and the mean soft use (g, v)."""
    shares = codes / codes.sum(dim=1, keepdim=True).clamp(min=1)
    hard, soft = perplexity(shares), perplexity(usage)
    metrics = {"perplexity/size": float(codes.shape[1])}
    for g in range(codes.shape[0]):
        metrics[f"perplexity/hard_{g}"] = float(hard[g])
        if not math.isclose(float(soft[g]), float(hard[g]), rel_tol=1e-5):  # else the choice is hard
            metrics[f"perplexity/soft_{g}"] = float(soft[g])
        metrics[f"codes/dead_{g}"] = float((codes[g] == 0).double().mean())
        metrics[f"codes/top1_{g}"] = float(shares[g].max())
    return metrics

"""What an evaluation shows beside numbers: embeddings on a plane, codes against labels."""

from collections import Counter
from typing import Any

import numpy as np
import torch

from seqssl.data.batching import BatchLoader
from seqssl.evaluation.embedding import pooled_stages
from seqssl.finetuning.per_frame import Tag
from seqssl.finetuning.supervised import Supervised
from seqssl.finetuning.whole_rows import Classify
from seqssl.model.alignment import NONE
from seqssl.model.types import Batch
from seqssl.ruler.cells import Bench
from seqssl.runs.folder import init_of, load

MAX_POINTS = 800
MAX_FRAME_ROWS = 300
MAX_LABELS = 60


def pictures(bench: Bench, task: Supervised) -> dict[str, Any]:
    """The plain values of both pictures; {} for a task without classes."""
    if not isinstance(task, Classify | Tag) or bench.config.init is None:
        return {}
    path, stream = init_of(bench.config.init)
    encoder = load(path, device="cpu", stream=stream)
    used = np.flatnonzero(bench.corpus.splits != "")
    some = np.sort(np.random.default_rng(0).permutation(used)[:MAX_POINTS])
    found: dict[str, Any] = {}
    if isinstance(task, Classify):
        x = pooled_stages(encoder, bench.corpus, bench.adapter, some)[encoder.tap]  # type: ignore[arg-type]
        found["projection"] = {
            "points": on_a_plane(x).round(3).tolist(),
            "label": [str(label) for label in bench.corpus.labels[some]],
            "group": [str(group) for group in bench.corpus.groups[some]],
        }
    if encoder.model.targets.codebook_sizes:
        found["codes"] = codes_of_labels(bench, task, encoder.model, some[:MAX_FRAME_ROWS])
    return found


def on_a_plane(x: np.ndarray) -> np.ndarray:
    """Rows as points (n, 2): t-SNE of the standardized values, begun from the principal components."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn brings it

    scaled = (x - x.mean(0)) / (x.std(0) + 1e-6)
    with threadpool_limits(1):
        if len(x) < 10:
            return np.asarray(PCA(2).fit_transform(scaled)) if min(x.shape) > 1 else np.zeros((len(x), 2))
        small = PCA(min(30, *scaled.shape), random_state=0).fit_transform(scaled)
        near = min(30.0, (len(x) - 1) / 3)
        return np.asarray(TSNE(perplexity=near, init="pca", random_state=0).fit_transform(small))


@torch.no_grad()
def codes_of_labels(bench: Bench, task: Classify | Tag, model: Any, rows: np.ndarray) -> dict[str, Any]:
    """How often each code of the first codebook stands at a frame of each label (labels, codes)."""
    splits = np.full(len(bench.corpus), "", dtype=object)
    splits[rows] = "chosen"
    corpus = bench.corpus.assigned(splits)
    length = max(2**18, int(corpus.lengths.max()))
    loader = BatchLoader(corpus, bench.adapter, split="chosen", batch_length=length, shuffle=False)  # type: ignore[arg-type]
    counts: Counter[tuple[int, int]] = Counter()
    for batch in loader.batches():
        codes = model.codes(batch)[..., 0].numpy()
        wanted = labels_of(task, batch, codes.shape)
        known = (codes >= 0) & (wanted != NONE)
        counts.update(zip(wanted[known].tolist(), codes[known].tolist(), strict=True))
    size = int(model.targets.codebook_sizes[0])
    table = np.zeros((len(task.names), size), int)
    for (label, code), number in counts.items():
        table[label, code] = number
    order = np.argsort(-table.sum(1), kind="stable")[:MAX_LABELS]
    return {"labels": [task.names[n] for n in order], "table": table[order].tolist()}


def labels_of(task: Classify | Tag, batch: Batch, shape: tuple[int, ...]) -> np.ndarray:
    """The label of each frame (b, s): its own, or that of its row."""
    if isinstance(task, Tag):
        return task.wanted(batch, shape[1])
    return np.repeat(np.array(task.wanted(batch))[:, None], shape[1], axis=1)

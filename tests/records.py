"""Training records of a made-up run that goes well, or is ill for a while."""

from typing import Any

NUM_UPDATES = 1_000


def healthy(step: int, **changes: Any) -> dict[str, Any]:
    """A training record of a run that goes well."""
    done = step / NUM_UPDATES
    record = {
        "kind": "train",
        "step": step,
        "epoch": 0,
        "time_s": step * 0.1,
        "loss": 9.0 - 4 * done,
        "loss/contrastive": 4.6 - 2.5 * done,
        "loss/masked_prediction": 4.3 - 1.5 * done,
        "loss/diversity": 0.6 - 0.2 * done,
        "contrastive/accuracy": 0.02 + 0.5 * done,
        "contrastive/chance": 0.02,
        "contrastive/num_negatives": 60.0,
        "masked_prediction/accuracy": 0.05 + 0.4 * done,
        "masked_prediction/trivial": 0.06,
        "perplexity/size": 320.0,
        "features/std": 0.8,
        "context/std": 1.1,
        "grad_norm": 2.0 - done,
        "skipped_updates": 0.0,
    }
    for book in range(2):
        record |= {
            f"perplexity/hard_{book}": 60.0 + 100 * done,
            f"perplexity/soft_{book}": 200.0,
            f"codes/dead_{book}": 0.3,
            f"codes/top1_{book}": 0.06,
        }
    return record | changes


def run_with(start: int = 0, end: int = NUM_UPDATES, **changes: Any) -> list[dict[str, Any]]:
    """A whole run that is ill between two updates."""
    return [
        healthy(step, **(changes if start < step <= end else {})) for step in range(20, NUM_UPDATES + 1, 20)
    ]

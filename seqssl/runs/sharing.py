"""How many micro-batches of an update each rank has, where a run goes on with another number of ranks."""

from dataclasses import replace
from pathlib import Path

from seqssl.config.schema import RunConfig
from seqssl.runs.folder import read_provenance
from seqssl.training import checkpoint
from seqssl.training.parallel import Parallel


def shared_out(config: RunConfig, out: Path, parallel: Parallel) -> tuple[RunConfig, int, str]:
    """The configuration of this rank; the micro-batches of an update on all ranks together; a sentence or "".

    An update keeps the number it had when the run in `out` began: what is learned does not depend on how many
    ranks there are now. Where they cannot share it out evenly, `train.accumulate` holds for each.
    """
    ranks = parallel.size // parallel.share
    own = began = config.train.accumulate * ranks
    if checkpoint.numbered(out / "checkpoints"):
        kept = read_provenance(out).get("micro_batches")  # runs of older versions do not tell it
        began = kept if isinstance(kept, int) and kept > 0 else own
    if began == own:
        return config, own, ""
    if began % ranks:
        text = (
            f"an update has {own} micro-batches now, and {began} before, which {ranks} ranks cannot share out"
        )
        return config, began, text
    each = began // ranks
    text = f"an update has {began} micro-batches, as before: {each} on each rank"
    return replace(config, train=replace(config.train, accumulate=each)), began, text

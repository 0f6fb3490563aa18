"""How long a run waits for its checkpoints: written beside the training, or before it goes on.

    OMP_NUM_THREADS=1 python benchmarks/saving.py [--millions 20] [--disk 100] [--updates 60] [--every 20]

A linear model of so many million parameters with Adam's moments is trained on one batch. The disk is a mock:
a file takes its size divided by `--disk` (MB/s), and nothing is kept.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from seqssl.training import checkpoint
from seqssl.training.parallel import Alone
from seqssl.training.saving import Saver


def seconds(model: nn.Module, updates: int, every: int, *, beside: bool) -> tuple[float, float]:
    """Of all updates until all is written, and of the waits for saving alone; `every` 0: nothing is saved."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    x = torch.randn(64, model[0].in_features)  # type: ignore[index]
    waited = 0.0
    began = time.monotonic()
    with TemporaryDirectory() as folder, Saver(Path(folder), 2, Alone(), torch.device("cpu")) as saver:
        for update in range(1, updates + 1):
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if every and update % every == 0 and update < updates:
                before = time.monotonic()
                state = checkpoint.State(update=update, cursor=update, best=None, tally={})
                saver.save(f"step-{update:08d}", model, optimizer, state)
                if not beside:
                    saver.finish()
                waited += time.monotonic() - before
    return time.monotonic() - began, waited


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--millions", type=float, default=20)
    parser.add_argument("--disk", type=float, default=100)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--every", type=int, default=20)
    options = parser.parse_args()
    width = round((options.millions * 1e6 / 5) ** 0.5)
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(5)))

    def slow(tensors: dict[str, Tensor], path: Path) -> None:
        time.sleep(sum(x.nbytes for x in tensors.values()) / (options.disk * 1e6))
        path.write_bytes(b"")

    checkpoint.save_file = slow
    seconds(model, 5, 0, beside=True)
    saves = (options.updates - 1) // options.every
    size = sum(p.nbytes for p in model.parameters()) * 3
    print(f"{size / 1e6:.0f} MB a checkpoint, {size / options.disk / 1e6:.1f} s on the disk, {saves} of them")
    for name, every, beside in (
        ("none", 0, True),
        ("before it goes on", options.every, False),
        ("beside", options.every, True),
    ):
        spent, waited = seconds(model, options.updates, every, beside=beside)
        each = f"{waited / max(1, saves):.2f} s waited for each checkpoint"
        print(f"written {name:18} {spent:6.1f} s for {options.updates} updates, {each}")


if __name__ == "__main__":
    main()

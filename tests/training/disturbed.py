"""Run by torchrun: a training whose ranks are disturbed as the first argument says; see test_restarts.py.

`kill:1@5,0@8`: rank 1 ends itself in the middle of update 5, and, when all have been started again, rank 0 in
the middle of update 8. `late:1@3`: rank 1 comes late to update 3. `none`: nothing happens.
"""

import os
import signal
import sys
import time
from typing import Any

import pytest
import torch
from light import lighten

from seqssl import cli
from seqssl.runs import train
from seqssl.training import watch
from seqssl.training.loop import Trainer

LATE_S = 0.6  # before a rank is named, in the place of a minute


def disturb(how: str) -> None:
    """Let this process do what it is told."""
    kind, _, events = how.partition(":")
    all_of_them = [event.split("@") for event in events.split(",") if event]
    life = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if life and os.environ["RANK"] == "1":
        time.sleep(1.0)  # the first rank asks for it meanwhile, and the store remembers its earlier life
    now = all_of_them[life : life + 1] if kind == "kill" else all_of_them
    updates = [int(update) for rank, update in now if rank == os.environ["RANK"]]
    step = Trainer.step

    def disturbed_step(self: Trainer, batches: list[Any]) -> None:
        if self.update + 1 in updates and kind == "late":
            time.sleep(4 * LATE_S)
        if self.update + 1 in updates and kind == "kill":
            torch.Tensor.backward = die  # type: ignore[assignment]
        step(self, batches)

    def die(*_: Any) -> None:
        """After its forward pass, when the others wait for its gradients."""
        os.kill(os.getpid(), signal.SIGKILL)

    Trainer.step = disturbed_step  # type: ignore[method-assign]


if __name__ == "__main__":
    watch.LATE_S = LATE_S
    # What a rank computes besides, which takes longer than all updates.
    lighten(pytest.MonkeyPatch())
    train.illustrations = lambda *_: []  # type: ignore[assignment]
    train.write_report = lambda *_: None  # type: ignore[assignment]
    torch.set_num_threads(1)
    disturb(sys.argv[1])
    sys.exit(cli.main(["train", *sys.argv[2:]]))

"""`python -m seqssl.runs.helper`: a process that shares a run and is not the first; see `processes`."""

import pickle
import sys
import time

import torch

from seqssl.data.files import silent
from seqssl.data.workers import end_with
from seqssl.errors import FirstRankFailed, HealthHalt, Interrupted, RankLost, UserError
from seqssl.runs.processes import FOLLOWED, REFUSED, Part
from seqssl.runs.train import train_part
from seqssl.training.ranks import Meeting


def main() -> int:
    """Take part in the run that the first process describes; returns an exit code."""
    part: Part = pickle.load(sys.stdin.buffer)  # our own parent's
    end_with(part.parent)
    sys.path[:] = part.path
    torch.set_num_threads(part.threads)
    meeting = Meeting(part.rank, part.size, part.port)
    meeting.arrive()
    try:
        train_part(part.config, meeting.join(), None, silent, time.monotonic())
    except (FirstRankFailed, HealthHalt, Interrupted, RankLost):
        return FOLLOWED  # the first process says why
    except UserError as error:
        print(error)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())

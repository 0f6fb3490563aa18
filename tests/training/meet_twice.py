"""Run on two ranks: two groups one after the other, to the second of which one is late; see test_ranks.py."""

import os
import time
from datetime import timedelta

import torch

from seqssl.training import ranks

LATE_S = 0.5

if __name__ == "__main__":
    ranks.PATIENCE = timedelta(seconds=20)
    for number in range(2):
        if number and os.environ["RANK"] == "1":
            time.sleep(LATE_S)
        parallel = ranks.start(torch.device("cpu"))
        assert parallel.sum(torch.ones(1)) == 2
        ranks.stop(parallel)

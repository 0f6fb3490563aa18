"""Runs of several ranks on this machine, as torchrun starts them."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from test_runs import environment

MOST_S = 600.0


def launch(
    folder: Path,
    *arguments: str,
    ranks: int = 2,
    options: Sequence[str] = (),
    more: Mapping[str, str] | None = None,
    fails: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Start what `arguments` name (a script or `-m` and a module) on all ranks, and wait for its end.

    `folder` has the cache. `options` are the launcher's own, `more` variables of the environment. Unless it
    `fails`, it has to succeed.
    """
    launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *options)
    done = subprocess.run(
        [sys.executable, *launcher, *arguments],
        env=environment(folder) | {"OMP_NUM_THREADS": "1"} | (more or {}),
        capture_output=True,
        text=True,
        timeout=MOST_S,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stderr[-5000:]
    return done

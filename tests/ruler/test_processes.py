"""Processes side by side: results as they are done, and no orphans."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from seqssl.errors import UserError
from seqssl.ruler.processes import side_by_side


def double(number: int) -> int:
    if number < 0:
        raise UserError("a negative number")
    return 2 * number


def sleep_for(folder: str, seconds: float) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(seconds)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_results_come_with_their_items() -> None:
    assert dict(side_by_side(double, [1, 2, 3], lambda n: (n,), 2)) == {1: 2, 2: 4, 3: 6}
    with pytest.raises(UserError, match="a negative number"):
        list(side_by_side(double, [-1, 2], lambda n: (n,), 1))


def test_one_job_is_done_here_and_leaves_no_trace() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert dict(side_by_side(change_torch, [5], lambda n: (n,), 1)) == {5: os.getpid()}
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)


def change_torch(threads: int) -> int:
    torch.set_num_threads(threads)
    torch.manual_seed(threads)
    return os.getpid()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "from test_processes import sleep_for\n"
        "from seqssl.ruler.processes import side_by_side\n"
        "if __name__ == '__main__':\n"
        f"    list(side_by_side(sleep_for, [60.0, 60.0], lambda s: ({str(tmp_path)!r}, s), 2))\n"
    )
    path = tmp_path / "script.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    parent = subprocess.Popen([sys.executable, str(path)], env=environment)
    try:
        deadline = time.monotonic() + 60
        while len(found := [int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()]) < 2:
            assert time.monotonic() < deadline and parent.poll() is None
            time.sleep(0.1)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in found) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in found if alive(pid)]

"""What this machine and the usual GPUs can do."""

import math
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from seqssl.config.values import did_you_mean
from seqssl.data.workers import num_cpus
from seqssl.errors import UserError


@dataclass(frozen=True)
class Gpu:
    """What the vendor says of a GPU, of the SXM board where there are several."""

    flops: float  # dense bfloat16, per second
    memory: float  # bytes
    link: float  # bytes per second to others of the same machine, in each direction


PCIE = 32e9  # 16 lanes of the fourth generation
GPUS = {
    "rtx-3090": Gpu(71e12, 24e9, PCIE),
    "rtx-4090": Gpu(165e12, 24e9, PCIE),
    "a10": Gpu(125e12, 24e9, PCIE),
    "l4": Gpu(121e12, 24e9, PCIE),
    "l40s": Gpu(362e12, 48e9, PCIE),
    "a100-40gb": Gpu(312e12, 40e9, 300e9),
    "a100-80gb": Gpu(312e12, 80e9, 300e9),
    "h100": Gpu(989e12, 80e9, 450e9),
    "h200": Gpu(989e12, 141e9, 450e9),
    "b200": Gpu(2250e12, 180e9, 900e9),
}
DEFAULT_GPU = "a100-80gb"
# Of this machine's own matrix-product speed, what a training step is taken to reach. Small models on a CPU
# reach the less, the faster its matrix products are: what lies between them takes as long as before.
LOCAL_UTILIZATION = {
    "cpu": {"float32": 0.3, "bfloat16": 0.1},
    "cuda": {"float32": 0.5, "bfloat16": 0.5},
}


@dataclass(frozen=True)
class Speed:
    """What a training step is expected to reach on a device of this machine."""

    name: str
    flops: float  # per second
    share: float | None = None  # of what the vendor says, where that was measured


def gpu_of(name: str) -> Gpu:
    """A GPU of the table; UserError for a name that is not in it."""
    if name.lower() not in GPUS:
        raise UserError(f"device = {name}: not in the table of GPUs{did_you_mean(name.lower(), GPUS)}")
    return GPUS[name.lower()]


def peak_flops(name: str) -> float | None:
    """The vendor's figure for a GPU by the name that its driver gives; None if it is not in the table."""
    words = set(re.split(r"[\s-]+", name.lower()))
    found = [gpu.flops for key, gpu in GPUS.items() if words.issuperset(key.split("-"))]
    return max(found, default=None)


def local_speeds() -> list[Speed]:
    """This machine in float32 and bfloat16, by a short matrix product."""
    device = "cuda" if has_gpu() else "cpu"
    shares = LOCAL_UTILIZATION[device]
    return [
        Speed(f"here, {dtype}", share * matmul_speed(dtype, device=device)) for dtype, share in shares.items()
    ]


def has_gpu() -> bool:
    """Whether there is a GPU; on Linux, a look at the device files may spare the import of torch."""
    if sys.platform == "linux":
        devices = Path("/dev")
        if not any([*devices.glob("nvidia[0-9]*"), *devices.glob("kfd"), *devices.glob("dxg")]):
            return False
    import torch

    return torch.cuda.is_available()


CONTROL_GROUP = Path("/sys/fs/cgroup")  # what a container may use, on Linux


def num_cores() -> int:
    """CPU cores that this process may use; a share of one counts as one."""
    cores = num_cpus()
    quota, _, period = _limit("cpu.max").partition(" ")
    return (
        cores if not (quota.isdigit() and period.isdigit()) else max(1, min(cores, int(quota) // int(period)))
    )


def _limit(name: str) -> str:
    """A limit of the container; "" where there is none that can be read."""
    try:
        return (CONTROL_GROUP / name).read_text().strip()
    except OSError:
        return ""


def main_memory() -> int:
    """Bytes of main memory that this process may use; those of a small machine where nothing says."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = 8 * 2**30
    limit = _limit("memory.max")
    return min(memory, int(limit)) if limit.isdigit() else memory


def matmul_speed(dtype: str = "float32", threads: int | None = None, device: str = "cpu") -> float:
    """FLOP/s of a square matrix product, the best of what fits into about 0.2 s.

    It is the yardstick to quote beside any time: shared machines vary by large factors.
    """
    import torch

    size = 512 if device == "cpu" else 4096
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        x = torch.ones(size, size, dtype=getattr(torch, dtype), device=device)
        x @ x  # the first product pays for the set-up
        best, end = math.inf, time.perf_counter() + 0.2
        while best == math.inf or time.perf_counter() < end:
            _finish(device)
            start = time.perf_counter()
            x @ x
            _finish(device)
            best = min(best, time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return 2.0 * size**3 / best


def _finish(device: str) -> None:
    """Wait until a GPU has done all that it was given; on a CPU there is nothing to wait for."""
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AVX512-BF16 or AMX)."""
    import torch

    # Older releases of torch do not say: there, none are assumed.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "amx_tile", "bf16"))

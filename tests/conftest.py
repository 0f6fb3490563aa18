"""What holds for every test: one thread, shapes checked, seeded examples."""

import os

# Before torch is imported: threads that wait for each other are slower than one on small tensors.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Shapes and types of every signature are checked, here and nowhere else. The hook acts on imports to come.
install_import_hook(["seqssl.model", "modalities"], "beartype.beartype")

settings.register_profile(
    "default", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available() and os.environ.get("SEQSSL_TEST_DEVICE") != "cpu":
            pytest.skip("needs CUDA")

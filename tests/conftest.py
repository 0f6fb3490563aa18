"""What holds for every test: one thread, shapes checked, seeded examples."""

import gc
import os
from collections.abc import Iterator

# Before torch is imported: threads that wait for each other are slower than one on small tensors.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook
from light import lighten

# Shapes and types of every signature are checked, here and nowhere else. The hook acts on imports to come.
install_import_hook(["seqssl.model", "modalities"], "beartype.beartype")

settings.register_profile(
    "default", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


# Folders and files whose tests look at whole reports, or at the work of a step that metrics count.
WHOLE_RUNS = {"field", "report"} | {
    f"test_{name}.py" for name in ("catalogue", "compare", "every_recipe", "frame_probes", "plan", "runs")
}


def pytest_collection_finish() -> None:
    """What imports have left is looked through no more for what can be freed."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Before fixtures of any scope, which train runs, too."""
    with pytest.MonkeyPatch.context() as patch:
        if not {item.path.parent.name, item.path.name} & WHOLE_RUNS:
            lighten(patch)
        # Another core is that of another worker, and a process that has one spends seconds on imports.
        for user in ("ruler.executor", "studies.running"):
            patch.setattr(f"seqssl.{user}.num_cores", lambda: 1)
        return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available() and os.environ.get("SEQSSL_TEST_DEVICE") != "cpu":
            pytest.skip("needs CUDA")

"""Pictures with names as data have them, and pages on narrow screens."""

import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from seqssl.finetuning.scoring import AUROC, CLASSES, ERRORS, TEXTS
from seqssl.finetuning.supervised import Supervised
from seqssl.report import curves, evaluated
from seqssl.report.drawing import FONTS, MAX_NAME, fonts, label, new_axes, styled
from seqssl.report.page import STYLE
from seqssl.training.catalogue import by_stream

NAMES = ["_unknown_", "日本語", "x" * 60]


def test_names_that_begin_with_a_line_are_in_the_legend() -> None:
    with styled():
        _, axes = new_axes(4, 3)
        for name in NAMES:
            axes.plot([0, 1], label=label(name))
        shown = [text.get_text() for text in axes.legend().get_texts()]
    assert [text.strip("\u200b") for text in shown] == ["_unknown_", "日本語", "x" * (MAX_NAME - 1) + "…"]


def test_letters_without_a_font_make_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    """pytest makes an error of every warning."""
    assert fonts()[0] == "sans-serif" and {*fonts()[1:]} <= {*FONTS}
    table = {"labels": NAMES, "table": np.eye(3, dtype=int).tolist()}
    points = {"points": [[0, 1], [1, 0], [2, 2]], "label": NAMES, "group": NAMES[::-1]}
    with caplog.at_level(logging.WARNING, "matplotlib"):
        for picture in (evaluated.confusion(table), evaluated.codes(table), evaluated.projection(points)):
            assert picture.startswith("data:image/png")
    assert not caplog.records


@pytest.mark.parametrize("values", [(-0.5, 0.25, 0.75), (-3.0, -2.0, -1.0), (1.0, 2.0, 3.0)])
def test_curves_show_what_is_below_zero(values: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(curves, "svg", lambda figure: drawn.append(figure) or "")
    records = [{"kind": "train", "step": step, "loss": value} for step, value in enumerate(values)]
    curves.curves([part for record in records for part in by_stream(record, {})])
    low, high = drawn[0].axes[0].get_ylim()
    assert low <= min(0, *values) and high > max(values), "and there is room for the legend"


def test_a_correlation_is_no_percentage() -> None:
    task = SimpleNamespace(metrics=(*CLASSES, AUROC, *ERRORS, *TEXTS), term="task")
    units = {stat.name: stat.unit for stat in Supervised.stats(task, "")["task"]}  # type: ignore[arg-type]
    shares = {name for name, unit in units.items() if unit == "share"}
    assert shares == {"accuracy", "macro_f1", "wer", "cer"}


def test_pages_fit_a_narrow_screen() -> None:
    style = STYLE.read_text()
    assert all(int(width) <= 280 for width in re.findall(r"minmax\((\d+)px", style))
    card = re.search(r"\.card \{[^}]*\}", style)
    assert card and "overflow-x: auto" in card[0], "a table scrolls in its card, not the page"

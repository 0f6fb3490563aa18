"""report.html: whole in itself, and robust against what a run may lack."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from records import healthy, run_with

from seqssl.errors import UserError
from seqssl.report import figures
from seqssl.report.curves import MAX_POINTS, series
from seqssl.report.page import key_figures, training_time, write_report
from seqssl.report.types import Illustration
from seqssl.training.catalogue import by_stream

VOID = {"meta", "img", "br", "path", "use", "rect", "image", "circle", "line"}


class Balanced(HTMLParser):
    """Collects tags that are closed out of order, and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name.split(":")[-1] in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


def illustration(num_frames: int = 50, num_books: int = 2, **changes: Any) -> Illustration:
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {
        "title": "a/1 <row> & more",
        "image": rng.normal(size=(20, 4 * num_frames)),
        "codes": rng.integers(0, 8, size=(num_frames, num_books)),
        "mask": rng.random(num_frames) < 0.5,
        "usage": rng.integers(0, 9, size=(num_books, 8)),
        "seconds_per_frame": 0.04,
    }
    return Illustration(**values | changes)


def write_run(folder: Path, records: list[dict[str, Any]], config: dict[str, Any] | None = None) -> Path:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "config.yaml").write_text(
        yaml.safe_dump(config or {"recipe": "made_up", "train": {"num_updates": 1000}})
    )
    return folder


def parse(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    parser.close()
    return parser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    valid = [{**record, "kind": "valid"} for record in run_with()[::5]]
    config = {
        "recipe": "made_up",
        "size": "<tiny>",
        "encoder": {"block": "conformer", "taps": {"output": 2}},
        "objectives": {"contrastive": {"target": "contrastive", "weight": 1.0}},
        "train": {"num_updates": 1000},
    }
    run = write_run(tmp_path_factory.mktemp("run"), [*run_with(), *valid], config)
    return write_report(run, [illustration()]).read_text()


def test_page_needs_nothing_else(page: str) -> None:
    assert "http" not in page
    assert "<script" not in page and "@import" not in page and "<link" not in page
    assert all(address.startswith(("#", "data:")) for address in parse(page).addresses)


def test_page_is_well_formed(page: str) -> None:
    parser = parse(page)
    assert parser.wrong == [] and parser.open == []


def test_user_text_is_escaped(page: str) -> None:
    assert "a/1 &lt;row&gt; &amp; more" in page
    assert "<tiny>" not in page


def test_page_shows_every_part(page: str) -> None:
    for text in ("healthy", "Loss", "Contrastive accuracy", "Codebook perplexity", "Gradient norm"):
        assert text in page
    for heading in ("Curves", "Codebook use", "One held-out row and its codes", "In order", "Configuration"):
        assert f"<h2>{heading}</h2>" in page
    assert "held-out contrastive accuracy (chance 2.0%)" in page
    assert "target contrastive, weight 1.0" in page


def test_references_inside_the_page_resolve(page: str) -> None:
    identifiers = set(re.findall(r'\bid="([^"]+)"', page))
    used = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert used <= identifiers


def test_findings_are_shown_with_their_remedy(tmp_path: Path) -> None:
    run = write_run(tmp_path, run_with(**{"perplexity/hard_0": 1.5}))
    page = write_report(run).read_text()
    assert "1 health finding" in page and "<h2>Health findings</h2>" in page
    assert "<code>objectives.diversity.weight</code>" in page


PREFIXES = ("contrastive", "masked_prediction", "perplexity", "codes", "grad_norm", "loss", "features")


@pytest.mark.parametrize("missing", PREFIXES)
def test_any_metric_may_be_missing(missing: str) -> None:
    records = [
        {key: value for key, value in record.items() if not key.startswith(missing)}
        for record in run_with()[:5]
    ]
    cards = key_figures(records, {})
    assert parse(cards).wrong == []
    assert missing.replace("_", " ") not in cards


@pytest.mark.parametrize("kind", ["train", "valid"])
def test_all_metrics_may_be_missing(tmp_path: Path, kind: str) -> None:
    parser = parse(write_report(write_run(tmp_path, [{"kind": kind, "step": 20}])).read_text())
    assert parser.wrong == []


def test_one_record_without_configuration_will_do(tmp_path: Path) -> None:
    write_run(tmp_path, [healthy(20)])
    (tmp_path / "config.yaml").unlink()
    page = write_report(tmp_path).read_text()
    assert tmp_path.name in page and "<h2>Configuration</h2>" not in page


def test_numbers_that_are_none_leave_gaps(tmp_path: Path) -> None:
    records = [*run_with()[:5], healthy(120, loss="nan", grad_norm="inf")]
    assert "not-finite" in write_report(write_run(tmp_path, records)).read_text()


def test_no_metrics_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no metrics"):
        write_report(tmp_path)


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = write_run(tmp_path, run_with()[:3])
    first = write_report(run, [illustration()]).read_bytes()
    assert write_report(run, [illustration()]).read_bytes() == first


@pytest.mark.parametrize(
    "changes",
    [
        {"num_frames": 1, "num_books": 1},
        {"num_frames": 1_000},
        {"seconds_per_frame": None},
        {"image": np.zeros((3, 50))},
        {"image": np.where(np.eye(3, 50), np.nan, 1.0)},
        {"usage": np.zeros((2, 8), int)},
        {"usage": np.ones((1, 1), int)},
        {"image": np.where(np.eye(3, 50), np.nan, 1.0), "names": ("x", "y", "z")},
        {"image": np.full((2, 50), np.nan), "names": ("x", "y")},
        {"image": np.eye(4)[:, np.arange(200) % 4], "names": tuple("ACGT")},
        {"codes": np.full((50, 6), -1), "seconds_per_frame": 7200.0},
    ],
)
def test_odd_illustrations_are_drawn(changes: dict[str, Any]) -> None:
    row = illustration(**changes)
    assert figures.code_sequence(row).startswith("data:")
    assert figures.codebook_use(row.usage).startswith("<svg")


def test_long_runs_are_thinned_and_keep_their_last_value() -> None:
    records = [{"kind": "train", "step": step, "loss": float(step)} for step in range(1, 100_001)]
    parts = [part for record in records for part in by_stream(record, {})]
    steps, values = series(parts, "loss", "train")
    assert len(steps) <= MAX_POINTS
    assert (steps[-1], values[-1]) == (100_000, 100_000.0)


def test_training_time_adds_up_over_resumes() -> None:
    assert training_time({"time_s": time_s} for time_s in (10.0, 20.0, 5.0, 7.0)) == 27.0

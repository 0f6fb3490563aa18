"""The page of an evening: was it worth it? In a sentence, then the figures that a skeptic asks for."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from shlex import quote
from typing import Any

from seqssl.data.files import write_atomic
from seqssl.finetuning.scoring import too_few
from seqssl.report.evaluated import caveats, curve, table
from seqssl.report.page import document

WORDS = {True: "ok", False: "warning"}


def write_evening(path: Path, values: Mapping[str, Any]) -> None:
    """Write the page."""
    write_atomic(path, document("seqssl evening", "\n".join(parts_of(values))))


def verdict(values: Mapping[str, Any]) -> tuple[str, bool]:
    """The sentence on top, and whether it is good news."""
    if values["halted"]:
        return f"Stopped: {values['halted']}", False
    evaluation = values.get("evaluation")
    if evaluation:
        return evaluation["worth"]["sentence"], evaluation["worth"]["shown"]
    halves = values.get("halves", {})
    if "trained" not in halves:
        return f"Trained, but not judged: {halves.get('problem', 'no labels')}", False
    ours, theirs = halves["trained"]["found"], halves["random"]["found"]
    said = (
        f"Of {halves['rows']} {rows_of(halves)}, {ours:.0%} are found again by their other half; an encoder "
        f"that has learned nothing finds {theirs:.0%} (difference {round(100 * (ours - theirs)):+} points, "
        f"interval {round(100 * halves['low']):+} to {round(100 * halves['high']):+})."
    )
    if not halves["held_out"]:
        return f"{said} Too few rows were held out to tell what this is worth for others.", False
    if few := too_few(halves["num_units"], halves["units"]):
        return f"{said} {few}", False
    return said, halves["low"] > 0 and not values.get("problem")  # labels that were given have the last word


def rows_of(halves: Mapping[str, Any]) -> str:
    """Which rows were told apart, in words."""
    return "rows that training did without" if halves["held_out"] else "rows, most of which training has seen"


def parts_of(values: Mapping[str, Any]) -> list[str]:
    """The page, from the answer down to the details."""
    sentence, is_good = verdict(values)
    spent = values["seconds"] / 60
    parts = [
        f'<h1>Was the evening worth it?<span class="badge {WORDS[is_good]}">'
        f"{'yes' if is_good else 'not shown'}</span></h1>",
        f'<p style="font-size:19px;color:#0f172a;max-width:52em">{escape(sentence)}</p>',
        '<div class="grid figures">',
        *(
            f'<div class="card"><b>{breakable(figure)}</b><span>{escape(words)}</span></div>'
            for figure, words in figures(values, spent)
        ),
        "</div>",
    ]
    if values["findings"]:
        parts.append("<h2>What was wrong at the end</h2>")
        parts += [f'<div class="card finding"><p>{escape(text)}</p></div>' for text in values["findings"]]
    if values.get("problem"):
        parts.append(f"<p>The labels could not be used: {escape(values['problem'])}</p>")
    evaluation = values.get("evaluation")
    if evaluation:
        parts += [
            "<h2>How well labels are told apart, by how many were given</h2>"
            if values["classes"]
            else "<h2>How far forecasts are off, by how many windows they were learned from</h2>",
            "<p>The blue line starts from what the evening learned without labels, the orange one from "
            "nothing; dotted is what a simple method does without any encoder. Bands show how far results "
            "scatter; the sentence on top compares lines on the same rows, and says where that is sure.</p>",
            f'<div class="card picture">{curve(evaluation)}</div>',
            f'<div class="card">{table(evaluation)}</div>',
            *(f"<p>{escape(note)}</p>" for note in caveats(evaluation)),
        ]
    parts += ["<h2>What was found in the data</h2>", *(f"<p>{escape(text)}</p>" for text in values["scan"])]
    return parts + without_labels(values.get("halves", {})) + what_to_do(values)


def breakable(name: str) -> str:
    """A name in HTML, which may go on in the next line behind each of its words."""
    return escape(name).replace("_", "_<wbr>")


def figures(values: Mapping[str, Any], spent: float) -> list[tuple[str, str]]:
    """The numbers at the head of the page."""
    found = [
        (f"{spent:.0f} min", f"of {60 * values['hours']:.0f} that were given"),
        (f"{values['made']:,}", "updates of the encoder" + chosen(values)),
        (values["recipe"], "the recipe"),
    ]
    if values["num_labels"]:
        words = (
            f"labelled rows, {values['classes']} labels" if values["classes"] else "windows to be forecast"
        )
        found.append((f"{values['num_labels']:,}", words))
    return found


def chosen(values: Mapping[str, Any]) -> str:
    """Which weights were judged, where these are not the last; or that it was halted."""
    if values["halted"]:
        return ", when it was halted"
    judged = values.get("judged_update", values["made"])
    return "" if judged == values["made"] else f"; those after {judged:,} were best on held-out data"


def without_labels(halves: Mapping[str, Any]) -> list[str]:
    """What the encoder knows of rows without a label."""
    if "trained" not in halves:
        return []
    rows = [
        f"<tr><td>{words}</td><td>{halves[key]['found']:.1%}</td><td>{halves[key]['rank']:.0f}</td></tr>"
        for key, words in (("trained", "this encoder"), ("random", "the same encoder, nothing learned"))
    ]
    return [
        "<h2>Without labels</h2>",
        f"<p>{halves['rows']} {rows_of(halves)}, are cut in two. How often is the second half that is most "
        f"like a first one that of the same row (by chance {1 / halves['rows']:.1%})? Directions say how "
        "varied is what the encoder tells (effective rank).</p>",
        '<div class="card"><table><tr><td></td><td>found again</td><td>directions</td></tr>'
        + "".join(rows)
        + "</table></div>",
    ]


def what_to_do(values: Mapping[str, Any]) -> list[str]:
    """Commands for the weights, as a shell wants them, and where the curves are; no more than there is."""
    if not values["weights"]:
        return []
    weights = quote(str(Path(str(values["out"])) / values["weights"]))
    task, files = "classify", "YOUR_LABELLED_FILES"
    if values["judged_by"] and not values["classes"]:
        task, files = values["judged_by"][0], "YOUR_FILES"
    commands = [
        f"seqssl embed run={weights} source=YOUR_FILES out=features.parquet",
        f"seqssl finetune run={weights} task={task} data={files}",
    ]
    lines = "\n".join([f"seqssl doctor {weights}"] if values["halted"] else commands)
    parts = ["<h2>What to do with it</h2>", f"<pre>{escape(lines)}</pre>"]
    if values["report"]:
        page = escape(values["report"])
        parts.append(
            f'<p>The curves of the training, its codes and its settings: <a href="{page}">{page}</a>.</p>'
        )
    return parts

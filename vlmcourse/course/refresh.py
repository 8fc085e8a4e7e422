"""Renew what is stored in the notebooks and the README's map of the course: `make notebooks-refresh`.

A refreshed notebook holds the outputs of one run from top to bottom with its default parameters, and no trace of who
ran it and when: metadata of papermill, widgets and editors is dropped, text streams are joined (their pieces depend on
timing), and widget views, which are dead without a kernel, are removed.
"""

import re
import tempfile
from pathlib import Path

from vlmcourse import files
from vlmcourse.course import pages
from vlmcourse.course.hygiene import CELL_METADATA, source
from vlmcourse.course.notebooks import find
from vlmcourse.course.run import Job, run

WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
MARKS = ("<!-- map of the course: written by make notebooks-refresh -->", "<!-- end of the map -->")


def refresh(notebooks, *, workers=2, timeout=None, echo=print):
    """Execute `notebooks` and write the new outputs into those that ran without an error. Returns the jobs."""
    with tempfile.TemporaryDirectory(prefix="vlmcourse-refresh-") as out:
        jobs = run(
            [Job(n, {}) for n in notebooks], out, workers=workers, timeout=timeout, html=False, fresh=True, echo=echo
        )
        for job in jobs:
            if job.status == "passed":
                save(tidy(_load(Path(out) / f"{job.notebook.name}.ipynb")), job.notebook.path)
    return jobs


def tidy(notebook):
    """A notebook (nbformat node) in the form in which it is committed; changed in place and returned."""
    from nbstripout import strip_output
    from nbval.plugin import coalesce_streams

    extra = ["metadata.papermill", "metadata.widgets", "cell.metadata.papermill", "cell.metadata.execution"]
    notebook = strip_output(notebook, keep_output=True, keep_count=True, keep_id=True, extra_keys=extra)
    notebook.metadata = type(notebook.metadata)(kernelspec=KERNEL, language_info={"name": "python"})
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        for key in set(cell.metadata) - CELL_METADATA:
            del cell.metadata[key]
        if cell.cell_type == "code":
            ignored = "nbval-ignore-output" in cell.metadata.get("tags", [])
            cell.outputs = _without_widgets(coalesce_streams(cell.outputs), ignored)
    return notebook


def _without_widgets(outputs, ignored):
    """Widget views removed: the whole output where nbval ignores it, else all but the text that nbval compares."""
    kept = []
    for output in outputs:
        if WIDGET in output.get("data", {}):
            if ignored:
                continue
            del output.data[WIDGET]
        if "metadata" in output:
            output.metadata.pop(WIDGET, None)
        kept.append(output)
    return kept


def save(notebook, path):
    """Write a notebook atomically, one line per line of text, so that changes are readable in a diff."""
    import nbformat

    files.atomic_write(path, (nbformat.writes(notebook, version=4) + "\n").encode())


def _load(path):
    import nbformat

    return nbformat.read(path, as_version=4)


def course_map(root, base):
    """The README's Markdown tables: each part with its notebooks, titles and minutes; links relative to `base`."""
    lines, part = [], None
    for notebook in find(root):
        content = notebook.read()
        if notebook.part != part:
            part = notebook.part
            lines += [
                "",
                f"**{pages.part_title(part)}**",
                "",
                "| notebook | what it is about | minutes |",
                "| --- | --- | --- |",
            ]
        link = notebook.path.relative_to(Path(base).resolve()).as_posix()
        lines.append(f"| [{notebook.stem}]({link}) | {pages.card_title(content)} | {card_minutes(content)} |")
    return "\n".join(lines).strip()


def card_minutes(content):
    """The minutes that the card of a notebook (as JSON) names, as text; "" if it names none."""
    text = source(content["cells"][0]) if content["cells"] else ""
    found = re.search(r"(?i)\b(\d+)\s*min(?:utes?)?\b|\bminutes?\W+(\d+)", text)
    return (found.group(1) or found.group(2)) if found else ""


def with_map(text, table):
    """The README's `text` with `table` between its two marks. ValueError if the marks are not there once each."""
    if any(text.count(mark) != 1 for mark in MARKS) or text.index(MARKS[0]) > text.index(MARKS[1]):
        raise ValueError(f"the README must have the lines {MARKS[0]} and {MARKS[1]}, once each")
    before, rest = text.split(MARKS[0])
    return f"{before}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}"

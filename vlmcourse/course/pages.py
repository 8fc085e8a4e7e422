"""The overview of a run: summary.json for programs, index.html for people."""

import html
import json
from pathlib import Path

import vlmcourse
from vlmcourse import files
from vlmcourse.course.notebooks import Notebook, course_order

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top; }
td:nth-child(2), td:nth-child(3) { white-space: nowrap; }
.failed { font-weight: bold; color: #8a1f00; }
code { font-size: .9em; }
"""


def write_summary(out, jobs, seconds):
    """summary.json of one run: counts, seconds of wall-clock time, and one entry per notebook. Returns the dict."""
    count = {status: sum(job.status == status for job in jobs) for status in ("passed", "kept", "failed", "not run")}
    summary = {
        "version": vlmcourse.__version__,
        "passed": count["passed"] + count["kept"],
        "kept": count["kept"],
        "failed": count["failed"],
        "not_run": count["not run"],
        "seconds": round(seconds, 1),
        "notebooks": [job.record() for job in jobs],
    }
    files.atomic_write(Path(out) / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def write_index(out):
    """index.html: every notebook that has a record in `out`, by part, with its state, seconds and parameters."""
    out = Path(out)
    parts = {}
    for record in _records(out):
        parts.setdefault(record["name"].rpartition("/")[0], []).append(_row(out, record))
    tables = [
        f"<h2>{html.escape(part_title(part))}</h2>\n<table>\n<tr><th>notebook</th><th>state</th><th>seconds</th></tr>\n"
        + "\n".join(rows)
        + "\n</table>"
        for part, rows in parts.items()
    ]
    title = f"vlmcourse {vlmcourse.__version__}, as executed"
    head = f'<head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>'
    body = "\n".join([f"<h1>{title}</h1>", *tables])
    text = f'<!DOCTYPE html>\n<html lang="en">\n{head}\n<body>\n{body}\n</body>\n</html>\n'
    return files.atomic_write(out / "index.html", text.encode())


def _records(out):
    """The readable records below `out`, in course order."""
    records = []
    for file in (out / ".records").rglob("*.json"):
        try:
            records.append(json.loads(file.read_text(encoding="utf-8")))
        except ValueError:
            continue
    return sorted(records, key=lambda record: course_order(Notebook(record["name"], out)))


def _row(out, record):
    name, error = record["name"], record["error"]
    executed = out / f"{name}.ipynb"
    title = card_title(json.loads(executed.read_text(encoding="utf-8"))) if executed.is_file() else ""
    label = html.escape(title or name.rpartition("/")[2])
    link = f'<a href="{html.escape(name)}.html">{label}</a>' if (out / f"{name}.html").is_file() else label
    extra = "".join(f"<br><code>{html.escape(f'{k} = {v!r}')}</code>" for k, v in record["parameters"].items())
    if error:
        extra += f'<br><span class="failed">{html.escape(error["name"])}: {html.escape(error["message"][:300])}</span>'
    state = f'<td class="{record["status"]}">{record["status"]}</td>'
    return f"<tr><td>{link}{extra}</td>{state}<td>{record['seconds']:.1f}</td></tr>"


def card_title(notebook):
    """The first heading of a notebook (as JSON), "" if it has none."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            for line in "".join(cell["source"]).splitlines():
                if line.startswith("# "):
                    return line[2:].strip()
    return ""


def part_title(part):
    """ "3_text_prompts" as "3 Text prompts"."""
    number, _, words = part.rpartition("/")[2].partition("_")
    if not number.isdigit():
        number, words = "", part
    return f"{number} {words.replace('_', ' ').capitalize()}".strip() or "Notebooks"

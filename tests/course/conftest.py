"""Small notebooks made on the spot, and a stand-in for the worker process where no kernel is needed."""

import json
import sys
import textwrap

import pytest

CARD = "# A small notebook\n\n**Objectives:** none. **Minutes:** 5. **Prerequisites:** none."
PARAMETERS = (
    'shots: int = 1  # labelled images per class\nname: str = "a"  # a word\nprofile: str = "quick"  # quick or full'
)


@pytest.fixture
def make():
    """make(path, *code cells, parameters=…, kernel=…) writes a clean, executed notebook and returns its path."""

    def write(path, *code, parameters=PARAMETERS, kernel="python3", card=CARD):
        cells = [{"cell_type": "markdown", "id": "card", "metadata": {}, "source": card}]
        sources = [(parameters, ["parameters"])] if parameters else []
        for number, (source, tags) in enumerate([*sources, *((text, []) for text in code)], start=1):
            metadata = {"tags": tags} if tags else {}
            cell = {"cell_type": "code", "id": f"c{number}", "metadata": metadata, "source": source}
            cells.append(cell | {"execution_count": number, "outputs": []})
        metadata = {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
        notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(notebook))
        return path

    return write


@pytest.fixture
def stand_in(tmp_path):
    """A command in the place of the worker: the first code cell says what it does (pass, fail, crash, sleep)."""
    script = tmp_path / "stand_in.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, pathlib, sys, time
            folder = pathlib.Path(sys.argv[1])
            job = json.loads((folder / "job.json").read_text())
            cells = json.loads(pathlib.Path(job["source"]).read_text())["cells"]
            todo = next(c["source"] for c in cells if c["cell_type"] == "code" and "tags" not in c["metadata"])
            with open(pathlib.Path(job["source"]).parents[1] / "started.log", "a") as log:
                log.write(pathlib.Path(job["source"]).stem + chr(10))
            if todo == "sleep":
                time.sleep(60)
            if todo == "crash":
                sys.exit("out of memory")
            error = {"cell": 1, "name": "KeyError", "message": "k", "traceback": "tb"} if todo == "fail" else None
            (folder / "notebook.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}}))
            (folder / "page.html").write_text("page")
            result = {"status": "failed" if error else "passed", "seconds": 0.1, "error": error}
            (folder / "result.json").write_text(json.dumps(result))
            """
        )
    )
    return [sys.executable, "-S", str(script)]

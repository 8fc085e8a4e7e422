"""Run one notebook with papermill and make its HTML page: the subprocess that `run.py` starts for each notebook.

    python -m vlmcourse.course.execute FOLDER

FOLDER holds job.json {"source", "parameters", "html"} and receives notebook.ipynb, page.html and, last, result.json
{"status": "passed" | "failed", "seconds", "error": null | {"cell", "name", "message", "traceback"}}.
The notebook's own folder is the working directory, as in JupyterLab.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path


def end_with_parent():
    """End this process when its parent has gone (the kernel ends with it): a killed run leaves nothing behind."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def execute(folder):
    """Run the job in `folder` and write its results there; an error in the notebook is a result, not an exception."""
    import nbformat
    import papermill

    folder = Path(folder)
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    source, executed = Path(job["source"]), folder / "notebook.ipynb"
    start, error = time.perf_counter(), None
    try:
        kernel = nbformat.read(source, as_version=4).metadata.get("kernelspec", {}).get("name") or "python3"
        papermill.execute_notebook(
            str(source),
            str(executed),
            parameters=job["parameters"],
            kernel_name=kernel,
            language="python",
            cwd=str(source.parent),
            progress_bar=False,
        )
    except papermill.PapermillExecutionError as failure:
        text = str(failure).strip().lstrip("-").strip()
        error = {"cell": failure.exec_count, "name": failure.ename, "message": failure.evalue, "traceback": text}
    except Exception as failure:  # the kernel died, could not start, ...
        error = {"cell": None, "name": type(failure).__name__, "message": str(failure), "traceback": ""}
    seconds = round(time.perf_counter() - start, 1)
    if job["html"] and executed.is_file():
        write_page(executed, source, folder / "page.html")
    result = {"status": "failed" if error else "passed", "seconds": seconds, "error": error}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def write_page(executed, source, page):
    """The executed notebook as one HTML file; pictures that the text shows from the source's folder are put inside."""
    from nbconvert import HTMLExporter

    resources = {"metadata": {"name": source.stem, "path": str(source.parent)}}
    body, _ = HTMLExporter(embed_images=True).from_filename(str(executed), resources=resources)
    page.write_text(body, encoding="utf-8")


if __name__ == "__main__":
    end_with_parent()
    execute(sys.argv[1])

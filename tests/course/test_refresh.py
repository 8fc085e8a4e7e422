"""Stored outputs are renewed in place, without traces of the run, and equal from run to run."""

import json

import nbformat
import pytest

from vlmcourse.course import refresh
from vlmcourse.course.hygiene import problems
from vlmcourse.course.notebooks import find

WIDGET = "import ipywidgets\nipywidgets.IntSlider(3)"
STREAM = (
    "import sys\nfor i in range(3):\n    print(i, flush=True)\n    print('e', file=sys.stderr, flush=True)\nshots + 1"
)


def quietly(_):
    pass


@pytest.fixture
def refreshed(tmp_path, make):
    good = make(tmp_path / "1_part" / "01_good.ipynb", STREAM, WIDGET)
    bad = make(tmp_path / "1_part" / "02_bad.ipynb", "1 / 0")
    before = bad.read_bytes()
    content = json.loads(good.read_text())
    content["metadata"]["widgets"] = {"state": {}}
    content["cells"][3]["metadata"] = {"collapsed": True, "tags": []}
    content["cells"][2]["execution_count"] = None
    good.write_text(json.dumps(content))
    jobs = refresh.refresh(find(tmp_path), echo=quietly)
    assert [job.status for job in jobs] == ["passed", "failed"]
    assert bad.read_bytes() == before
    return find(tmp_path)[0]


def test_refresh(refreshed):
    assert problems(refreshed) == []
    nbformat.validate(nbformat.read(refreshed.path, as_version=4))
    cells = refreshed.read()["cells"]
    assert [cell.get("execution_count") for cell in cells] == [None, 1, 2, 3]
    stream, errors, value = cells[2]["outputs"]
    assert (stream["text"], errors["text"]) == (["0\n", "1\n", "2\n"], ["e\n", "e\n", "e\n"])
    assert value["data"] == {"text/plain": ["2"]}
    assert [list(output["data"]) for output in cells[3]["outputs"]] == [["text/plain"]]
    first = refreshed.path.read_bytes()
    refresh.refresh([refreshed], echo=quietly)
    assert refreshed.path.read_bytes() == first


def test_widget_outputs_go_where_they_are_not_compared():
    view = {refresh.WIDGET: {"model_id": "x"}, "text/plain": "IntSlider(value=3)"}
    cells = [
        nbformat.v4.new_code_cell(
            "slider", metadata={"tags": tags}, outputs=[nbformat.v4.new_output("display_data", view)]
        )
        for tags in ([], ["nbval-ignore-output"], ["injected-parameters"])
    ]
    kept, ignored = refresh.tidy(nbformat.v4.new_notebook(cells=cells)).cells
    assert kept.outputs[0].data == {"text/plain": "IntSlider(value=3)"} and ignored.outputs == []


def test_map_of_the_course(tmp_path, make):
    make(
        tmp_path / "notebooks" / "3_text_prompts" / "03_coop.ipynb",
        card="# CoOp\n\nMinutes: 45, prerequisites, objectives",
    )
    make(tmp_path / "notebooks" / "1_start" / "01_world.ipynb", card="# The world\n\nabout 5 minutes")
    table = refresh.course_map(tmp_path / "notebooks", tmp_path)
    assert table.index("**1 Start**") < table.index("**3 Text prompts**")
    assert "| [03_coop](notebooks/3_text_prompts/03_coop.ipynb) | CoOp | 45 |" in table and "| The world | 5 |" in table
    text = f"before\n{refresh.MARKS[0]}\nold\n{refresh.MARKS[1]}\nafter\n"
    once = refresh.with_map(text, table)
    assert "old" not in once and once.startswith("before\n") and once.endswith("\nafter\n")
    assert refresh.with_map(once, table) == once
    with pytest.raises(ValueError, match="must have the lines"):
        refresh.with_map("no marks", table)

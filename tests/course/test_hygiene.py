"""Every hygiene rule fires on a notebook that breaks it, and a clean notebook breaks none."""

import json

import pytest

from vlmcourse.course.hygiene import duplicates, local_links, problems
from vlmcourse.course.notebooks import Notebook, find


@pytest.fixture
def check(tmp_path, make):
    """check(change) applies `change(content)` to a clean notebook and returns its problems."""

    def run(change=None, name="01_clean", **options):
        path = make(tmp_path / f"{name}.ipynb", "print(1)", **options)
        if change:
            content = json.loads(path.read_text())
            change(content)
            path.write_text(json.dumps(content))
        return problems(Notebook(name, path))

    return run


def test_a_clean_notebook_has_no_problems(check):
    assert check() == []


def error(content):
    content["cells"][2]["outputs"] = [{"output_type": "error", "ename": "KeyError", "evalue": "k", "traceback": []}]


def output(text, mime="text/plain"):
    def change(content):
        content["cells"][2]["outputs"] = [{"output_type": "display_data", "data": {mime: text}, "metadata": {}}]

    return change


def exercise_that_shows_its_result(content):
    result = {"output_type": "execute_result", "data": {"text/plain": "True"}, "metadata": {}, "execution_count": 2}
    content["cells"][2].update(outputs=[result], metadata={"tags": ["solution"]})


def set_cell(number, **fields):
    return lambda content: content["cells"][number].update(fields)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (set_cell(0, cell_type="raw"), "the first cell is not the card"),
        (set_cell(0, source="# T\nobjectives, prerequisites"), "lacks the minutes it takes"),
        (set_cell(0, source="Objectives, 5 min, prerequisites"), "lacks a title"),
        (set_cell(2, metadata={"tags": ["parameters"]}), "2 code cells are tagged 'parameters'"),
        (set_cell(1, source="shots = 1"), "lines that are not 'name: type = value"),
        (set_cell(1, source="shots: int = 1"), "the parameter shots has no comment"),
        (set_cell(1, source="shots: int = 1  # K=shots"), "papermill cannot read the parameter shots"),
        (set_cell(1, source="shots: int | None = 1  # K"), "papermill cannot read the parameter shots"),
        (set_cell(2, execution_count=None), "1 code cells were never executed"),
        (set_cell(2, execution_count=1), "not run top to bottom"),
        (set_cell(2, metadata={"tags": ["raises-exception"]}), "papermill stops"),
        (set_cell(2, metadata={"execution": {}}), "stores metadata execution"),
        (set_cell(2, source="open('/home/ada/x')"), "names a path of one machine: /home/a"),
        (set_cell(2, source="from tqdm.notebook import tqdm"), "tqdm.notebook"),
        (set_cell(2, source="plt.plot([1]);"), "ends with ';'"),
        (error, "stores an error: KeyError: k"),
        (exercise_that_shows_its_result, "shows what its check returns"),
        (set_cell(2, source="def claim(text, holds):\n    print(text)"), "a claim that cannot fail"),
        (output("✗ does not hold here: more shots help"), "stores a claim that does not hold"),
        (output("saved to /tmp/x"), "prints a path of one machine: /tmp/x"),
        (output("{}", "application/vnd.jupyter.widget-view+json"), "widget without its state"),
        (output("x" * 3_000_000), "more than 3"),
        (lambda content: content["metadata"].update(widgets={}), "metadata widgets is stored"),
        (lambda content: content["metadata"]["kernelspec"].update(name="conda-env"), "the kernel is 'conda-env'"),
        (
            set_cell(0, source="# T\nobjectives 5 min prerequisites [x](gone.png)"),
            "links to gone.png, which is not there",
        ),
    ],
)
def test_each_rule(check, change, problem):
    found = check(change)
    assert any(problem in line for line in found), found


def test_a_claim_that_asserts_is_clean(check):
    assert check(set_cell(2, source="def claim(text, holds):\n    assert holds or not default\n    print(text)")) == []


def test_exercise_cells_need_not_be_executed_and_images_may_hold_anything(check):
    assert check(set_cell(2, execution_count=None, metadata={"tags": ["exercise"]})) == []
    assert check(output("/home/x", "image/png")) == []


def test_names(check, tmp_path, make):
    assert any("two digits" in line for line in check(name="Clean"))
    for part in ("1_a", "2_b"):
        make(tmp_path / "course" / part / "01_same.ipynb", "1")
    assert duplicates(find(tmp_path / "course")) == ["the file name 01_same occurs 2 times"]


def test_local_links():
    text = (
        "[a](b.md#part) ![](<c.png>) [w](https://x.org) `[no](code)` $f[x](y)$ <img src='d.png'> [e](#x) [f](g%20h.md)"
    )
    assert local_links(text) == ["b.md", "c.png", "d.png", "g h.md"]

"""The notebooks of the course are fit to be committed. `vlmcourse notebooks check` shows the same."""

import pytest

from vlmcourse import paths
from vlmcourse.course import hygiene
from vlmcourse.course.notebooks import find

NOTEBOOKS = find(paths.notebooks_dir())


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.name)
def test_hygiene(notebook):
    assert hygiene.problems(notebook) == []


def test_names_are_unique():
    assert hygiene.duplicates(NOTEBOOKS) == []

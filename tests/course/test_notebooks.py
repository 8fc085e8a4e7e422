"""Names, selection and parameters of notebooks."""

import pytest

from vlmcourse.course.notebooks import Notebook, convert, find, parameters, select, values_for


@pytest.fixture
def course(tmp_path, make):
    for name in ("1_start/01_quick_start", "3_text_prompts/03_coop", "3_text_prompts/10_plot", "10_beyond/01_scaling"):
        make(tmp_path / "notebooks" / f"{name}.ipynb", "1 + 1")
    make(tmp_path / "notebooks" / "1_start" / ".ipynb_checkpoints" / "01_quick_start-checkpoint.ipynb")
    return tmp_path / "notebooks"


def names(notebooks):
    return [notebook.stem for notebook in notebooks]


def test_find_counts_numbers_as_numbers_and_skips_checkpoints(course):
    assert [n.name for n in find(course)] == [
        "1_start/01_quick_start",
        "3_text_prompts/03_coop",
        "3_text_prompts/10_plot",
        "10_beyond/01_scaling",
    ]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([], ["01_quick_start", "03_coop", "10_plot", "01_scaling"]),
        (["coop"], ["03_coop"]),
        (["03_coop", "coop", "3_text_prompts/03_coop"], ["03_coop"]),
        (["scaling", "3"], ["03_coop", "10_plot", "01_scaling"]),
        (["text_prompts"], ["03_coop", "10_plot"]),
        (["notebooks/3_text_prompts/"], ["03_coop", "10_plot"]),
    ],
)
def test_select(course, wanted, expected):
    assert names(select(wanted, course)) == expected


def test_select_by_path_works_from_any_folder(course, tmp_path, monkeypatch, make):
    monkeypatch.chdir(course / "3_text_prompts")
    assert [n.name for n in select(["03_coop.ipynb"], course)] == ["3_text_prompts/03_coop"]
    outside = make(tmp_path / "elsewhere" / "mine.ipynb", "1")
    assert select([str(outside)], course) == [Notebook("mine", outside)]
    assert names(select([str(outside.parent)], course)) == ["mine"]


def test_unknown_name_offers_close_ones(course):
    with pytest.raises(ValueError, match=r"'cop'; did you mean .*coop"):
        select(["cop"], course)
    with pytest.raises(ValueError, match="there are no notebooks in"):
        select([], course / "empty")


def test_a_file_that_is_no_notebook(tmp_path):
    (tmp_path / "01_x.ipynb").write_text("{")
    with pytest.raises(ValueError, match=r"01_x.ipynb cannot be read as a notebook"):
        find(tmp_path)[0].read()


def test_parameters_and_values(course):
    coop = select(["coop"], course)[0]
    assert {name: p["inferred_type_name"] for name, p in parameters(coop).items()} == {
        "shots": "int",
        "name": "str",
        "profile": "str",
    }
    assert values_for(coop, {"shots": "4", "name": "7"}) == {"shots": 4, "name": "7"}
    with pytest.raises(
        ValueError, match=r"03_coop has no parameter 'shot'; did you mean shots\? It has: shots, name, profile"
    ):
        values_for(coop, {"shot": "4"})
    with pytest.raises(ValueError, match="parameter shots of .*03_coop: 'four' is not of type int"):
        values_for(coop, {"shots": "four"})


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", "int", 3),
        ("1e-3", "float", 1e-3),
        ("false", "bool", False),
        ("3", "str", "3"),
        ("[1, 2]", "list[int]", [1, 2]),
        ("(1, 2)", "tuple", [1, 2]),
        ("None", "None", None),
        ("cuda", "None", "cuda"),
    ],
)
def test_convert(text, kind, value):
    assert convert(text, kind) == value


@pytest.mark.parametrize(
    ("text", "kind"), [("1.5", "int"), ("maybe", "bool"), ("1", "list"), ("[1", "list[int]"), ("[]", "dict")]
)
def test_convert_refuses(text, kind):
    with pytest.raises(ValueError, match="is not"):
        convert(text, kind)

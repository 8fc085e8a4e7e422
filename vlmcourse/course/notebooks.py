"""Find, name and select the course's notebooks, and read the parameters that each one declares.

A notebook is called by its path below notebooks/ without the ending ("3_text_prompts/03_coop"), by its file, with or
without the number ("03_coop", "coop"), or by a path on disk; a part by its folder ("3_text_prompts", "3").
"""

import ast
import dataclasses
import difflib
import json
import re
from pathlib import Path


@dataclasses.dataclass(frozen=True, order=True)
class Notebook:
    """One notebook file; `name` is unique within a run and becomes the path of the results."""

    name: str
    path: Path

    @property
    def part(self):
        """Folder below notebooks/, "" for a notebook outside."""
        return self.name.rpartition("/")[0]

    @property
    def stem(self):
        """File name without ending."""
        return self.name.rpartition("/")[2]

    def read(self):
        """The notebook as plain JSON (dict). ValueError when the file is not a notebook of format 4."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.path} cannot be read as a notebook: {error}") from error
        if not isinstance(content, dict) or content.get("nbformat") != 4 or "cells" not in content:
            raise ValueError(f"{self.path} is not a notebook of format 4")
        return content


def find(root):
    """All notebooks below the folder `root`, in course order; hidden folders (checkpoints) are left out."""
    root = Path(root)
    paths = (p for p in root.rglob("*.ipynb") if not any(part.startswith(".") for part in p.relative_to(root).parts))
    return sorted(
        (Notebook(p.relative_to(root).with_suffix("").as_posix(), p.resolve()) for p in paths), key=course_order
    )


def course_order(notebook):
    """Sort key: numbers count as numbers, so that 10_x comes after 9_x."""
    return [(int(number or 0), text) for number, text in re.findall(r"(\d*)([^\d]*)", notebook.name)]


def select(wanted, root):
    """The notebooks that the names in `wanted` mean (all if it is empty), in course order, each once.

    ValueError for a name that fits nothing, with the closest ones, and for one that fits several notebooks but no part.
    """
    known = find(root)
    if not wanted:
        if not known:
            raise ValueError(f"there are no notebooks in {root}")
        return known
    chosen = {notebook for name in wanted for notebook in _matches(name, known)}
    return sorted(chosen, key=course_order)


def _matches(name, known):
    path = Path(name).expanduser()
    if path.suffix == ".ipynb" and path.is_file():
        inside = [n for n in known if n.path == path.resolve()]
        return inside or [Notebook(path.stem, path.resolve())]
    wanted = name.strip("/").removeprefix("notebooks/").removesuffix(".ipynb")
    for key in (
        lambda n: {n.name},
        lambda n: {n.part, _unnumbered(n.part), n.part.split("_")[0]} - {""},
        lambda n: {n.stem, _unnumbered(n.stem)},
    ):
        found = [n for n in known if wanted in key(n)]
        if found:
            break
    else:
        if path.is_dir() and (below := find(path)):
            return below
        labels = {
            label
            for n in known
            for label in (n.name, n.stem, _unnumbered(n.stem), n.part, _unnumbered(n.part))
            if label
        }
        close = difflib.get_close_matches(wanted, sorted(labels), n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(close)}?"
            if close
            else f"there are: {', '.join(n.name for n in known) or 'none'}"
        )
        raise ValueError(f"no notebook or part is called {name!r}; {hint}")
    if len(found) > 1 and len({n.part for n in found}) > 1:
        raise ValueError(f"{name!r} is not clear: it can mean {' or '.join(n.name for n in found)}")
    return found


def _unnumbered(name):
    return re.sub(r"^\d+_", "", name)


def parameters(notebook):
    """{name: {"name", "inferred_type_name", "default", "help"}} of the cell tagged "parameters"; {} without one."""
    import papermill

    return papermill.inspect_notebook(str(notebook.path))


def values_for(notebook, given, declared=None):
    """`given` {name: text} as values of the types that the notebook declares.

    ValueError for a parameter that the notebook does not have and for text that is not of the declared type.
    """
    if not given:
        return {}
    declared = parameters(notebook) if declared is None else declared
    values = {}
    for name, text in given.items():
        if name not in declared:
            close = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean {close[0]}? It has" if close else "it has"
            raise ValueError(f"{notebook.name} has no parameter {name!r}; {hint}: {', '.join(declared) or 'none'}")
        try:
            values[name] = convert(text, declared[name]["inferred_type_name"])
        except ValueError as error:
            raise ValueError(f"parameter {name} of {notebook.name}: {error}") from error
    return values


_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def convert(text, type_name):
    """`text` from the command line as a value of the annotated type: int, float, bool, str, list, dict or tuple.

    Tuples come back as lists, which is what papermill can write into a notebook. For another type the text is read as a
    Python literal if it is one, else kept. ValueError when the text does not fit.
    """
    kind = re.split(r"[\[\s|]", type_name.strip(), maxsplit=1)[0]
    if kind == "str":
        return text
    if kind == "bool":
        if text.lower() not in _TRUTH:
            raise ValueError(f"{text!r} is not a bool (true or false)")
        return _TRUTH[text.lower()]
    if kind in ("int", "float"):
        try:
            return {"int": int, "float": float}[kind](text)
        except ValueError:
            raise ValueError(f"{text!r} is not of type {kind}") from None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if kind in ("list", "tuple", "dict"):
            raise ValueError(f"{text!r} is not a {kind} as Python writes it") from None
        return text
    value = list(value) if isinstance(value, tuple) else value
    if kind in ("list", "tuple", "dict") and not isinstance(value, dict if kind == "dict" else list):
        raise ValueError(f"{text!r} is not a {kind}")
    return value

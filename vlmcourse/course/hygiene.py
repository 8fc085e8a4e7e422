"""What a notebook must be like before it is committed: `problems(notebook)` lists what is wrong, in words.

Why each rule: nbval compares only cells with an execution count; papermill shows and checks only parameters that it can
read; GitHub does not render notebooks with widget metadata; a learner's machine has other paths than the author's.
"""

import ast
import collections
import re
from urllib.parse import unquote

from vlmcourse.course.notebooks import parameters

MAX_BYTES = 3_000_000
NAME = re.compile(r"\d\d_[a-z0-9_]+")
CARD = {
    "a title (a line '# ...')": r"^# \S",
    "objectives": r"(?i)\bobjectives?\b",
    "the minutes it takes": r"(?i)\b\d+\s*min(utes?)?\b|\bminutes?\W+\d+",
    "prerequisites": r"(?i)\bprerequisites?\b",
}
MACHINE_PATH = re.compile(
    r"(?<![\w./:])/(?:home|Users|root|work|tmp|private|opt|mnt|srv)/[\w.]|\b[A-Z]:\\Users\\|site-packages"
)
CELL_METADATA = {"tags", "slideshow", "jupyter"}


def problems(notebook):
    """Everything wrong with a `Notebook`, a list of sentences, [] for a clean one. ValueError if it is unreadable."""
    content = notebook.read()
    cells = content["cells"]
    return [
        *_file(notebook, content),
        *_card(cells),
        *_parameters(notebook, cells),
        *_counts(cells),
        *_cells(cells),
        *_links(notebook, cells),
    ]


def duplicates(notebooks):
    """File names that occur more than once in the course: a name must be enough to say which notebook is meant."""
    count = collections.Counter(notebook.stem for notebook in notebooks)
    return [f"the file name {stem} occurs {n} times" for stem, n in count.items() if n > 1]


def source(cell):
    """The text of a cell as one string."""
    return "".join(cell["source"])


def tags(cell):
    """The tags of a cell."""
    return cell.get("metadata", {}).get("tags", [])


def _file(notebook, content):
    if not NAME.fullmatch(notebook.stem):
        yield f"the file name {notebook.stem!r} is not two digits and lower-case words (03_coop)"
    if (size := notebook.path.stat().st_size) > MAX_BYTES:
        yield f"the file has {size / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.0f}: save smaller or fewer figures"
    metadata = content["metadata"]
    if (kernel := metadata.get("kernelspec", {}).get("name")) != "python3":
        yield f"the kernel is {kernel!r}, not 'python3'"
    extra = sorted(set(metadata) - {"kernelspec", "language_info"})
    if extra:
        yield f"metadata {', '.join(extra)} is stored: refresh removes it"


def _card(cells):
    first = cells[0] if cells else {"cell_type": "no", "source": ""}
    if first["cell_type"] != "markdown":
        yield "the first cell is not the card (markdown)"
        return
    for what, pattern in CARD.items():
        if not re.search(pattern, source(first), re.MULTILINE):
            yield f"the card in the first cell lacks {what}"


def _parameters(notebook, cells):
    tagged = [cell for cell in cells if cell["cell_type"] == "code" and "parameters" in tags(cell)]
    if len(tagged) != 1:
        yield f"{len(tagged)} code cells are tagged 'parameters', one is needed"
        return
    try:
        statements = ast.parse(source(tagged[0])).body
    except SyntaxError as error:
        yield f"the parameters cell is not Python: {error}"
        return
    names = [s.target.id for s in statements if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
    if len(names) != len(statements):
        yield "the parameters cell has lines that are not 'name: type = value  # what it is'"
    seen = parameters(notebook)
    for name in names:
        if name not in seen:
            yield f"papermill cannot read the parameter {name} (a second '=' in the line, a type like 'int | None')"
        elif not seen[name]["help"]:
            yield f"the parameter {name} has no comment that says what it is"


def _counts(cells):
    code = [
        cell for cell in cells if cell["cell_type"] == "code" and source(cell).strip() and "exercise" not in tags(cell)
    ]
    counts = [cell.get("execution_count") for cell in code]
    if None in counts:
        yield f"{counts.count(None)} code cells were never executed, so nothing compares their outputs: refresh"
    numbers = [count for count in counts if count is not None]
    if numbers != sorted(set(numbers)):
        yield "the execution counts are not in order: the notebook was not run top to bottom"


def _cells(cells):
    for number, cell in enumerate(cells):
        where, text = f"cell {number}", source(cell)
        if extra := sorted(set(cell.get("metadata", {})) - CELL_METADATA):
            yield f"{where} stores metadata {', '.join(extra)}: refresh removes it"
        if "raises-exception" in tags(cell):
            yield f"{where} is tagged raises-exception, on which papermill stops: catch the exception and print it"
        if found := MACHINE_PATH.search(text):
            yield f"{where} names a path of one machine: {found.group()}..."
        if cell["cell_type"] == "code" and text.rstrip().endswith(";") and "nbval-ignore-output" not in tags(cell):
            yield f"{where} ends with ';', which nbval does not know: end with plt.show() or assign to _"
        if cell["cell_type"] == "code" and "tqdm.notebook" in text:
            yield f"{where} uses tqdm.notebook, whose bar is lost outside a browser: use tqdm.tqdm"
        if cell["cell_type"] == "code" and re.search(r"^def claim\(", text, re.MULTILINE) and "assert " not in text:
            yield f"{where} defines a claim that cannot fail: it has no assert"
        for output in cell.get("outputs", []):
            if output["output_type"] == "execute_result" and {"exercise", "solution"} & set(tags(cell)):
                yield f"{where} shows what its check returns: write _ = check..., the verdict is printed"
            if output["output_type"] == "error":
                yield f"{where} stores an error: {output.get('ename')}: {output.get('evalue')}"
            data = output.get("data", {"text/plain": output.get("text", "")})
            shown = "".join("".join(value) for kind, value in data.items() if kind.startswith("text/"))
            if "✗ does not hold" in shown:
                yield f"{where} stores a claim that does not hold"
            if found := MACHINE_PATH.search(shown):
                yield f"{where} prints a path of one machine: {found.group()}..."
            if "application/vnd.jupyter.widget-view+json" in data:
                yield f"{where} stores a widget without its state: refresh removes it"


def _links(notebook, cells):
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "markdown":
            for target in local_links(source(cell)):
                if target.startswith("/") or not (notebook.path.parent / target).exists():
                    yield f"cell {number} links to {target}, which is not there"


def local_links(markdown):
    """Paths that a Markdown text links to or shows, without anchors; web addresses, code and formulas are left out."""
    text = re.sub(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", "", markdown, flags=re.DOTALL)
    found = re.findall(r"\]\(\s*<?([^)\s>]+)|(?:src|href)=[\"']([^\"']+)", text)
    targets = (unquote(a or b).partition("#")[0] for a, b in found)
    return [target for target in targets if target and not re.match(r"[a-z][a-z0-9+.-]*:|//", target)]

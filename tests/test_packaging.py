"""What installs the course: pyproject.toml, environment.yml, requirements, Makefile, README and the wheel agree."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vlmcourse import paths
from vlmcourse.course import refresh
from vlmcourse.course.hygiene import local_links
from vlmcourse.course.notebooks import find

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA_NAMES = {"pytorch": "torch"}
IMPORT_NAMES = {
    "PIL": "pillow",
    "open_clip": "open-clip-torch",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "IPython": "ipykernel",
}
# resvg_py, transformers … are in the extra `pretrain`, which only these parts of the package may use
BUILDERS = ("world/build", "backbone/pretrain")


def specs(requirements):
    return {canonicalize_name(r.name): str(r.specifier) for r in map(Requirement, requirements)}


def needed():
    return specs([*PROJECT["dependencies"], *EXTRAS["notebooks"], *EXTRAS["test"]])


def test_environment_equals_pyproject():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = specs(entry for entry in entries if isinstance(entry, str))
    assert conda.pop("python") == PROJECT["requires-python"] and conda.pop("pip") == ""
    assert {CONDA_NAMES.get(name, name): spec for name, spec in conda.items()} == needed()
    assert entries[-1] == {"pip": ["-e ."]}


def test_every_line_of_the_environment_has_its_reason():
    text = (ROOT / "environment.yml").read_text().split("dependencies:")[1]
    for line in text.splitlines():
        if line.strip().startswith("- ") and not line.strip().endswith("pip:"):
            assert re.search(r"\S  +# \S+ \S+", line), f"no reason: {line}"


def test_constraints_pin_every_requirement_within_its_range():
    pins = specs(
        line for line in (ROOT / "requirements" / "constraints.txt").read_text().splitlines() if line[:1] != "#"
    )
    for name, spec in needed().items():
        assert name in pins, f"{name} is not pinned: make lock"
        assert Requirement(f"{name}{spec}").specifier.contains(pins[name].removeprefix("=="), prereleases=True), name


def third_party_imports(source):
    for node in ast.walk(ast.parse(source)):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module]
        for module in {m.split(".")[0] for m in modules} - set(sys.stdlib_module_names) - {"vlmcourse"}:
            yield canonicalize_name(IMPORT_NAMES.get(module, module))


def test_every_import_is_declared():
    """The library runs on the plain dependencies alone; explorers, the command line and the builders may use more."""
    extras_of = {"show/": ["notebooks"], "course/": ["notebooks", "test"], **dict.fromkeys(BUILDERS, ["pretrain"])}
    for file in sorted((ROOT / "vlmcourse").rglob("*.py")):
        inside = file.relative_to(ROOT / "vlmcourse").as_posix()
        extras = [extra for start, names in extras_of.items() if inside.startswith(start) for extra in names]
        allowed = specs(PROJECT["dependencies"] + [r for extra in extras for r in EXTRAS[extra]])
        missing = set(third_party_imports(file.read_text(encoding="utf-8"))) - set(allowed)
        assert not missing, f"{file.relative_to(ROOT)} imports {missing}, which pyproject.toml does not name for it"


def test_every_import_of_the_notebooks_is_declared():
    allowed = specs([*PROJECT["dependencies"], *EXTRAS["notebooks"]])
    for notebook in find(paths.notebooks_dir()):
        for cell in notebook.read()["cells"]:
            lines = "".join(cell["source"]).splitlines() if cell["cell_type"] == "code" else []
            code = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
            missing = set(third_party_imports(code)) - set(allowed)
            assert not missing, f"{notebook.name} imports {missing}, which pyproject.toml does not name"


def test_readme_commands_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    commands = set(re.findall(r"(?:^|`)make ([a-z-]+)", readme, re.MULTILINE))
    assert {"course", "test"} <= commands <= targets
    for words in re.findall(r"^\s*vlmcourse ([a-z]+(?: [a-z]+)?)", readme, re.MULTILINE):
        done = subprocess.run(
            [sys.executable, "-m", "vlmcourse.course", words.split()[0], "--help"], capture_output=True, cwd=ROOT
        )
        assert done.returncode == 0, f"vlmcourse {words}"


def test_readme_links_and_map():
    text = (ROOT / "README.md").read_text()
    for target in local_links(text):
        assert (ROOT / target).exists(), f"README.md links to {target}, which is not there"
    table = refresh.course_map(paths.notebooks_dir(), ROOT)
    assert refresh.with_map(text, table) == text, "the README's map is not up to date: vlmcourse notebooks map"


def test_ci_runs_the_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script and script.rstrip().endswith("\nmake test")
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_wheel_carries_data_and_notebooks(tmp_path):
    """Built by the backend directly, without a network: what `pip install .` would install."""
    code = f"import hatchling.build; print(hatchling.build.build_wheel({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    for folder, inside in (("data", "_data"), ("notebooks", "_notebooks")):
        tracked = [p.relative_to(ROOT / folder) for p in (ROOT / folder).rglob("*") if p.is_file()]
        visible = [p for p in tracked if not any(part.startswith(".") for part in p.parts)]
        missing = [p for p in visible if f"vlmcourse/{inside}/{p.as_posix()}" not in names]
        assert not missing, missing
    assert "vlmcourse/course/cli.py" in names and not any(name.startswith(("data/", "tests/")) for name in names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)

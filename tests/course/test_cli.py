"""The command line: help at once, delegation, tables."""

import json
import subprocess
import sys
import time
import types

import pytest

from vlmcourse.course import cli


def test_help_is_quick_and_imports_nothing_heavy():
    code = "import sys; from vlmcourse.course.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'numpy', 'papermill', 'nbformat', 'open_clip'} & set(sys.modules)"
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
    assert min(seconds) < 1  # about 0.1 s on an idle machine
    for command in ("run", "notebooks", "methods", "tasks", "doctor", "data", "backbone", "pretrain"):
        assert command in done.stdout


@pytest.mark.parametrize(
    "words", [["run"], ["notebooks", "refresh"], ["notebooks", "check"], ["methods"], ["doctor"], ["data"]]
)
def test_every_command_has_help(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--help"])
    assert stop.value.code == 0 and "usage: vlmcourse" in capsys.readouterr().out


def test_version_and_unknown_command(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    with pytest.raises(SystemExit) as stop:
        cli.main(["runn"])
    assert stop.value.code == 2 and "invalid choice: 'runn'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "module", "rest"),
    [
        (["pretrain", "--minutes", "5"], "vlmcourse.backbone.pretrain", ["--minutes", "5"]),
        (["backbone", "evaluate", "--json"], "vlmcourse.backbone.evaluate", ["--json"]),
        (["data", "build", "--help"], "vlmcourse.world.build", ["--help"]),
    ],
)
def test_delegation_passes_everything_on(argv, module, rest, monkeypatch):
    seen = []
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(main=lambda argv: seen.append(argv) or 3))
    assert cli.main(argv) == 3 and seen == [rest]


def test_expected_errors_are_one_line_and_others_keep_their_traceback(monkeypatch, capsys):
    def raising(error):
        def main(argv):
            raise error

        monkeypatch.setitem(sys.modules, "vlmcourse.backbone.pretrain", types.SimpleNamespace(main=main))
        return cli.main(["pretrain"])

    assert raising(ValueError("minutes=-1 must be above 0")) == 2
    assert capsys.readouterr().err == "vlmcourse: error: minutes=-1 must be above 0\n"
    assert raising(ModuleNotFoundError("No module named 'resvg_py'", name="resvg_py")) == 2
    assert "needs the package resvg_py" in capsys.readouterr().err
    assert raising(KeyboardInterrupt()) == 130
    with pytest.raises(KeyError):
        raising(KeyError("a bug"))


def test_methods_and_tasks_as_tables_and_json(capsys):
    assert cli.main(["methods", "--json"]) == 0
    methods = json.loads(capsys.readouterr().out)
    assert methods["coop"]["module"] == "vlmcourse/methods/text_prompts/coop.py" and methods["coop"]["year"] == 2022
    assert cli.main(["tasks", "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)
    assert tasks["digits"]["classes"] == 10 and tasks["digits"]["kind"] == "single-label"
    assert cli.main(["methods"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["name", "family", "venue", "year", "title"]

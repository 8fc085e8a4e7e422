"""Running notebooks: the scheduler with a stand-in for the kernel, and once for real."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from vlmcourse.course import notebooks, pages, run
from vlmcourse.course.run import Job


@pytest.fixture
def jobs(tmp_path, make, monkeypatch):
    """jobs("pass", "fail", …) makes one notebook per word in course/1_part/ and their jobs."""

    # a source file that changes while the tests run would rightly make all results out of date
    monkeypatch.setattr(run, "environment_fingerprint", lambda: "fixed")

    def build(*todo, **parameters):
        for number, word in enumerate(todo):
            make(tmp_path / "course" / "1_part" / f"{number:02d}_{word}.ipynb", word)
        return [Job(n, dict(parameters)) for n in notebooks.find(tmp_path / "course")]

    return build


def quietly(_):
    pass


def test_results_summary_and_index(jobs, tmp_path, stand_in):
    lines = []
    done = run.run(jobs("pass", "fail", "crash"), tmp_path / "out", command=stand_in, echo=lines.append)
    assert [job.status for job in done] == ["passed", "failed", "failed"]
    assert done[2].error["message"] == "the worker ended with code 1 before the notebook was finished"
    assert done[2].error["traceback"] == "out of memory"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["passed"], summary["failed"], summary["kept"], summary["not_run"]) == (1, 2, 0, 0)
    assert [n["name"] for n in summary["notebooks"]] == ["1_part/00_pass", "1_part/01_fail", "1_part/02_crash"]
    assert (tmp_path / "out" / "1_part" / "00_pass.html").read_text() == "page"
    index = (tmp_path / "out" / "index.html").read_text()
    assert "<h2>1 Part</h2>" in index and 'href="1_part/00_pass.html"' in index and "KeyError: k" in index
    assert not (tmp_path / "out" / ".running").exists()
    assert sum("started" in line for line in lines) == 3 and any("[3/3]" in line for line in lines)


def test_only_what_changed_or_failed_runs_again(jobs, tmp_path, stand_in, make):
    def again(**options):
        (tmp_path / "course" / "started.log").unlink(missing_ok=True)
        done = run.run(jobs("pass", "fail", "pass"), tmp_path / "out", command=stand_in, echo=quietly, **options)
        log = tmp_path / "course" / "started.log"
        return [job.status for job in done], sorted(log.read_text().split()) if log.exists() else []

    assert again() == (["passed", "failed", "passed"], ["00_pass", "01_fail", "02_pass"])
    assert again() == (["kept", "failed", "kept"], ["01_fail"])
    (tmp_path / "out" / "1_part" / "02_pass.html").unlink()
    assert again() == (["kept", "failed", "passed"], ["01_fail", "02_pass"])
    assert again(fresh=True)[1] == ["00_pass", "01_fail", "02_pass"]
    (tmp_path / "out" / ".records" / "1_part" / "00_pass.json").write_text("{")
    assert again()[1] == ["00_pass", "01_fail"]


def test_fingerprint_sees_source_parameters_and_package_but_not_outputs(jobs, tmp_path, make):
    (job,) = jobs("pass")
    first = run.fingerprint(job, "package")
    assert run.fingerprint(job, "another package") != first
    job.parameters = {"shots": 2}
    assert run.fingerprint(job, "package") != first
    job.parameters = {}
    content = json.loads(job.notebook.path.read_text())
    content["cells"][-1]["execution_count"] = 99
    job.notebook.path.write_text(json.dumps(content))
    assert run.fingerprint(job, "package") == first
    make(job.notebook.path, "other")
    assert run.fingerprint(job, "package") != first


def test_environment_fingerprint_sees_code_and_data(tmp_path, monkeypatch):
    monkeypatch.setattr(run.vlmcourse, "__file__", str(tmp_path / "package" / "__init__.py"))
    monkeypatch.setenv("VLMCOURSE_DATA", str(tmp_path / "data"))
    (tmp_path / "package").mkdir()
    (tmp_path / "data").mkdir()
    seen = [run.environment_fingerprint()]
    for name in ("package/a.py", "data/checksums.json"):
        (tmp_path / name).write_text("1")
        seen.append(run.environment_fingerprint())
    assert seen[-1] == run.environment_fingerprint() and len(set(seen)) == 3


def test_timeout_ends_the_notebook_and_the_others_go_on(jobs, tmp_path, stand_in):
    done = run.run(jobs("sleep", "pass"), tmp_path / "out", command=stand_in, timeout=2, echo=quietly)
    assert [job.status for job in done] == ["failed", "passed"]
    assert done[0].error["name"] == "TimeoutError" and "2 s" in done[0].error["message"]


def test_interruption_keeps_what_is_finished_and_ends_the_children(jobs, tmp_path, stand_in):
    todo = jobs("pass", "sleep", "pass")
    before = psutil.Process().children()  # helpers that earlier tests of this process have left, not ours

    def echo(line):
        if "started" in line and "01_sleep" in line:
            assert set(psutil.Process().children()) - set(before)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run.run(todo, tmp_path / "out", workers=1, command=stand_in, echo=echo)
    assert [job.status for job in todo] == ["passed", "not run", "not run"]
    left = set(psutil.Process().children()) - set(before)
    assert not [child for child in left if child.status() != psutil.STATUS_ZOMBIE]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["not_run"] == 2
    again = run.run(
        [job for job in todo if "sleep" not in job.notebook.name], tmp_path / "out", command=stand_in, echo=quietly
    )
    assert [job.status for job in again] == ["kept", "passed"]


def test_two_runs_cannot_share_a_folder(jobs, tmp_path, stand_in):
    with run._locked(tmp_path), pytest.raises(BlockingIOError, match="another run is writing to"):
        run.run(jobs("pass"), tmp_path, command=stand_in, echo=quietly)
    with pytest.raises(ValueError, match="workers=0"):
        run.run(jobs("pass"), tmp_path, workers=0)


def test_the_index_survives_a_damaged_record(tmp_path):
    (tmp_path / ".records").mkdir()
    (tmp_path / ".records" / "x.json").write_text("{")
    assert "<h1>" in pages.write_index(tmp_path).read_text()


@pytest.fixture(scope="module")
def vlmcourse():
    """Run the command line in a process of its own, from a folder that is not the checkout's."""

    def call(*arguments, cwd, **options):
        command = [sys.executable, "-m", "vlmcourse.course", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, **options)

    return call


def test_command_line_for_real(vlmcourse, tmp_path, make):
    good = make(tmp_path / "n" / "01_good.ipynb", "import os, vlmcourse\nprint(shots * 10, name, profile, os.getcwd())")
    bad = make(tmp_path / "n" / "02_bad.ipynb", "print('before')", "[][shots]")
    arguments = ("run", good, bad, "-p", "shots", "4", "--profile", "full", "--out", tmp_path / "out")
    first = vlmcourse(*arguments, cwd=tmp_path)
    assert first.returncode == 1, first.stdout + first.stderr
    assert "first error, in 02_bad, cell In [4]: IndexError: list index out of range" in first.stdout
    assert "1 passed, 1 failed" in first.stdout
    executed = json.loads((tmp_path / "out" / "01_good.ipynb").read_text())
    assert "".join(executed["cells"][-1]["outputs"][0]["text"]) == f"40 a full {tmp_path / 'n'}\n"
    assert "40 a full" in (tmp_path / "out" / "01_good.html").read_text()
    assert "IndexError" in (tmp_path / "out" / "02_bad.html").read_text()


def test_ctrl_c_ends_the_kernel_too(tmp_path, make):
    slow = make(
        tmp_path / "01_slow.ipynb",
        "import os, pathlib, time",
        f"pathlib.Path({str(tmp_path)!r}, 'pid').write_text(str(os.getpid()))",
        "time.sleep(100)",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "vlmcourse.course", "run", slow, "--out", tmp_path / "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    pid, deadline = tmp_path / "pid", time.time() + 60
    while not (pid.is_file() and pid.read_text()) and time.time() < deadline:
        time.sleep(0.1)
    kernel = int(pid.read_text())
    assert psutil.pid_exists(kernel)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted; 0 of 1 notebooks are finished" in text
    assert not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_notebook"], "no notebook or part is called 'no_such_notebook'"),
        (["{good}", "-p", "shotz", "4"], "01_good has no parameter 'shotz'; did you mean shots?"),
        (["{good}", "-p", "shots", "x"], "parameter shots of 01_good: 'x' is not of type int"),
        (["{alien}"], "02_alien needs the Jupyter kernel 'cobol', which is not installed"),
        (["{good}", "--timeout", "0"], "0 is not above 0"),
    ],
)
def test_wrong_arguments_are_named_before_anything_runs(arguments, message, tmp_path, make, capsys):
    from vlmcourse.course.cli import main

    good = make(tmp_path / "01_good.ipynb", "1")
    alien = make(tmp_path / "02_alien.ipynb", "1", kernel="cobol")
    arguments = [a.format(good=good, alien=alien) for a in arguments]
    try:
        code = main(["run", *arguments, "--out", str(tmp_path / "out")])
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

"""The doctor finds what is missing or damaged, says what to do, and never breaks itself."""

import json

import pytest

from vlmcourse.course import checksums, cli, doctor
from vlmcourse.errors import DataError


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A small data folder with its record, in place of the real one."""
    folder = tmp_path / "data"
    (folder / "emojiclip").mkdir(parents=True)
    for name in ("concepts.json", "emojiclip/weights.safetensors", "README.md", ".hidden", "emojiclip/x.lock"):
        (folder / name).write_text(name)
    checksums.write(folder)
    monkeypatch.setenv("VLMCOURSE_DATA", str(folder))
    return folder


def test_data_is_fine(data):
    assert doctor.data().status == "ok"
    assert list(checksums.read()) == ["concepts.json", "emojiclip/weights.safetensors"]


def test_missing_damaged_and_unrecorded_data(data, capsys):
    (data / "concepts.json").unlink()
    (data / "emojiclip" / "weights.safetensors").write_text("?")
    line = doctor.data()
    assert line.status == "fail" and "git checkout -- data" in line.advice
    assert "concepts.json is missing" in line.detail and "emojiclip/weights.safetensors is damaged" in line.detail
    assert cli.main(["data", "checksums"]) == 1
    assert "missing: concepts.json" in capsys.readouterr().out
    assert cli.main(["data", "checksums", "--write"]) == 0
    (data / "new.json").write_text("{}")
    assert doctor.data().status == "warn" and "new.json" in doctor.data().detail


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}'])
def test_a_damaged_record(data, content, capsys):
    (data / checksums.NAME).write_text(content)
    with pytest.raises(DataError, match="Restore it"):
        checksums.read()
    assert doctor.data().status == "fail"
    assert cli.main(["data", "checksums"]) == 2 and "Restore it" in capsys.readouterr().err


def test_weights_that_do_not_load(data):
    line = doctor.weights()
    assert line.status == "fail" and line.detail and line.advice


def test_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path / "new"))
    assert doctor.cache().status == "ok"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path / "file" / "below"))
    assert doctor.cache().status == "warn" and "VLMCOURSE_CACHE" in doctor.cache().advice


def test_environment_lines():
    assert doctor.python().status == "ok"
    assert doctor.kernel().status in ("ok", "warn")
    assert "CPU threads" in doctor.torch_device().detail


def test_packages_that_are_missing_or_too_old(monkeypatch):
    wanted = [
        "numpy>=1.26",
        "no-such-package>=1",
        "pytest>=999",
        'papermill>=999; extra == "notebooks"',
        'x; extra == "test"',
    ]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: wanted)
    fine, *wrong = doctor.packages()
    assert fine.status == "ok" and fine.detail.startswith("numpy ")
    assert [(line.name, line.status) for line in wrong] == [
        ("package no-such-package", "fail"),
        ("package pytest", "fail"),
        ("package papermill", "warn"),
    ]
    assert wrong[1].advice == "pip install 'pytest>=999'"


def test_no_kernel(monkeypatch, tmp_path):
    monkeypatch.setattr("jupyter_client.kernelspec.KernelSpecManager.find_kernel_specs", lambda self: {})
    monkeypatch.setattr("jupyter_client.kernelspec.KernelSpecManager._find_spec_directory", lambda self, name: None)
    monkeypatch.setattr("jupyter_client.kernelspec.KernelSpecManager.ensure_native_kernel", False)
    assert doctor.kernel().status == "fail" and "ipykernel install" in doctor.kernel().advice


def test_report_and_exit_code(data, monkeypatch, capsys):
    def broken():
        raise KeyError("surprise")

    monkeypatch.setattr(doctor, "weights", broken)
    assert cli.main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["healthy"]
    lines = {line["name"]: line for line in report["checks"]}
    assert lines["broken"]["status"] == "fail" and "surprise" in lines["broken"]["detail"]
    monkeypatch.setattr(
        doctor, "examine", lambda: [doctor.Check("python", "ok", "fine"), doctor.Check("cache", "warn", "full", "x")]
    )
    assert cli.main(["doctor"]) == 0
    assert "-> x" in capsys.readouterr().out

"""Atomic files, checksums, locks, folders, and an `import vlmcourse` that costs nothing."""

import errno
import os
import signal
import subprocess
import sys
import textwrap

import pytest

import vlmcourse
from vlmcourse import files, paths
from vlmcourse.errors import DataError


def python(code: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def test_atomic_write_of_bytes_and_by_function(tmp_path):
    path = tmp_path / "deep" / "er" / "file.bin"
    assert files.atomic_write(path, b"one") == path
    files.atomic_write(path, lambda part: part.write_bytes(b"two" if part.suffix == ".bin" else b"wrong suffix"))
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file.bin"]


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    path = files.atomic_write(tmp_path / "file", b"old")

    def full(part):
        part.write_bytes(b"ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        files.atomic_write(path, full)
    monkeypatch.setattr(files.os, "fsync", lambda number: full(tmp_path / "file.other"))
    with pytest.raises(OSError, match="No space left"):
        files.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["file", "file.other"]


def test_a_killed_writer_leaves_nothing_half_written(tmp_path):
    path = files.atomic_write(tmp_path / "file.txt", b"old")
    code = """
        import os, signal, sys
        from vlmcourse.files import atomic_write
        def half(part):
            part.write_bytes(b"hal")
            os.kill(os.getpid(), signal.SIGKILL)
        atomic_write(sys.argv[1], half)
    """
    assert python(code, path).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2  # and a hidden file, which the next writer clears away
    files.atomic_write(tmp_path / "file2.txt", b"another")
    files.remove_leftovers(path)
    assert sorted(os.listdir(tmp_path)) == ["file.txt", "file2.txt"]


def test_checksums(tmp_path):
    path = files.atomic_write(tmp_path / "file", b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(path) == digest
    assert files.verify(path, digest) == path
    path.write_bytes(b"abd")
    with pytest.raises(DataError, match="damaged: its SHA-256 checksum is a52d159f262b…, expected ba7816bf8f01…"):
        files.verify(path, digest)
    with pytest.raises(DataError, match="is missing. It ships with the course"):
        files.verify(tmp_path / "nowhere", digest)


def test_the_lock_serves_one_process_at_a_time(tmp_path):
    """Four processes add one to a number in a file, slowly; without a lock some additions would be lost."""
    path = files.atomic_write(tmp_path / "count", b"0")
    code = """
        import pathlib, sys, time
        from vlmcourse.files import lock
        path = pathlib.Path(sys.argv[1])
        for _ in range(5):
            with lock(path):
                count = int(path.read_text())
                time.sleep(0.01)
                path.write_text(str(count + 1))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    assert path.read_text() == "20"


def test_the_lock_of_a_dead_process_is_free_and_waiting_ends(tmp_path):
    path = tmp_path / "file"
    code = """
        import os, signal, sys
        from vlmcourse.files import lock
        with lock(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert python(code, path).returncode == -signal.SIGKILL
    with files.lock(path, timeout=5):
        code = "import sys; from vlmcourse.files import lock\nwith lock(sys.argv[1], timeout=0.1): pass"
        held = python(code, path)
        assert held.returncode == 1 and "Timeout" in held.stderr


def test_folders(tmp_path, monkeypatch):
    for variable in ("VLMCOURSE_DATA", "VLMCOURSE_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    assert paths.cache_dir() == paths.Path.home() / ".cache" / "vlmcourse"
    monkeypatch.setenv("VLMCOURSE_DATA", str(tmp_path / "d"))
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path / "c"))
    assert (paths.data_dir(), paths.cache_dir()) == (tmp_path / "d", tmp_path / "c")
    monkeypatch.delenv("VLMCOURSE_DATA")

    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "repo" / "vlmcourse")  # a wheel: no pyproject.toml beside it
    assert paths.root() is None
    assert paths.data_dir() == tmp_path / "repo" / "vlmcourse" / "_data"
    assert paths.notebooks_dir() == tmp_path / "repo" / "vlmcourse" / "_notebooks"
    files.atomic_write(tmp_path / "repo" / "pyproject.toml", b"")  # a checkout
    assert paths.root() == tmp_path / "repo"
    assert paths.data_dir() == tmp_path / "repo" / "data"
    assert paths.notebooks_dir() == tmp_path / "repo" / "notebooks"


def test_import_is_instant_and_names_are_lazy():
    code = """
        import sys, vlmcourse, vlmcourse.backbone, vlmcourse.files
        heavy = {"torch", "open_clip", "numpy", "matplotlib", "PIL"} & set(sys.modules)
        assert not heavy, heavy
        assert {"load_backbone", "get_task", "list_tasks", "list_methods"} <= set(dir(vlmcourse))
    """
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert vlmcourse.load_backbone.__module__ == "vlmcourse.backbone.load"
    assert vlmcourse.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'load'; it exports __version__, load_backbone"):
        vlmcourse.load  # noqa: B018

"""Large buffers are kept where glibc lets us, and the environment has the last word."""

import platform
import subprocess
import sys

import pytest

from vlmcourse.backbone import memory

CALL = "from vlmcourse.backbone.memory import keep_large_buffers as f; print(f(), f())"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize("variable", [None, *memory.VARIABLES])
def test_it_is_set_once_unless_the_environment_has_set_it(variable, monkeypatch):
    for name in memory.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "1000000")
    out = subprocess.run([sys.executable, "-c", CALL], capture_output=True, text=True, check=True).stdout
    assert out.split() == [str(variable is None)] * 2


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert memory.keep_large_buffers.__wrapped__() is False

"""`vlmcourse doctor`: is everything here that the course needs, and what to do where it is not.

Each check is a function that returns a Check or several. "fail" means that the course cannot run (exit code 1), "warn"
that something is slower or missing that only a part of the course needs.
"""

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile

from vlmcourse import paths
from vlmcourse.course import checksums
from vlmcourse.errors import DataError


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the report. status: "ok", "warn" or "fail"; advice: what to do, empty when ok."""

    name: str
    status: str
    detail: str
    advice: str = ""


def examine():
    """All checks, a list of Check. A check that breaks is itself a failure in the list, never an exception."""
    report = []
    for check in (python, packages, torch_device, data, weights, cache, kernel, notebooks):
        try:
            found = check()
        except Exception as error:
            found = Check(
                check.__name__, "fail", f"{type(error).__name__}: {error}", "see the error; reinstall the package"
            )
        report += found if isinstance(found, list) else [found]
    return report


def python():
    """The interpreter (one that is too old cannot have installed the package)."""
    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}")


def packages():
    """Every package that pyproject.toml names: one line for all that are fine, one for each that is not."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires("vlmcourse") or []]
    except importlib.metadata.PackageNotFoundError:
        return Check(
            "packages", "fail", "vlmcourse is not installed", "pip install -e '.[notebooks,test]' in the checkout"
        )
    fine, wrong = [], []
    for requirement in requirements:
        extra = next(
            (e for e in ("notebooks", "test", "pretrain") if requirement.marker and e in str(requirement.marker)), ""
        )
        if extra in ("test", "pretrain"):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        if version is not None and requirement.specifier.contains(version, prereleases=True):
            fine.append(f"{requirement.name} {version}")
            continue
        name = f"package {requirement.name}"
        detail = f"{version or 'missing'}, needed: {requirement.specifier}"
        advice = f"pip install '{requirement.name}{requirement.specifier}'"
        wrong.append(
            Check(name, "warn" if extra else "fail", detail, advice + (" (to run the notebooks)" if extra else ""))
        )
    return [Check("packages", "ok", ", ".join(fine)), *wrong]


def torch_device():
    """What torch computes on."""
    import torch

    threads = f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads of {os.cpu_count()} cores"
    if torch.cuda.is_available():
        return Check("device", "ok", f"{threads}; GPU: {torch.cuda.get_device_name()} (use device='cuda')")
    return Check("device", "ok", f"{threads}; no GPU, which is all that profile quick needs")


def data():
    """The shipped data against its checksums."""
    folder = paths.data_dir()
    restore = (
        "restore the files: git checkout -- data, or reinstall the package; or set VLMCOURSE_DATA to a complete folder"
    )
    try:
        difference = checksums.compare(folder)
    except DataError as error:
        return Check("data", "fail", str(error), "set VLMCOURSE_DATA to a complete folder, if you have one")
    wrong = [f"{name} is {kind}" for kind in ("missing", "damaged") for name in difference[kind]]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        return Check("data", "fail", f"{folder}: {', '.join(wrong[:5])}{more}", restore)
    if difference["unrecorded"]:
        detail = f"{folder}: not in {checksums.NAME}: {', '.join(difference['unrecorded'][:5])}"
        return Check("data", "warn", detail, "vlmcourse data checksums --write, if these files belong to the course")
    return Check("data", "ok", f"{folder}: {len(checksums.read(folder))} files, checksums equal")


def weights():
    """The embedded model loads and encodes a sentence."""
    from vlmcourse import load_backbone

    try:
        backbone = load_backbone()
        features = backbone.encode_text(["a photo of a cat"])
    except (DataError, OSError, ValueError, RuntimeError) as error:
        return Check("weights", "fail", str(error), "git checkout -- data/emojiclip, or reinstall the package")
    if not features.isfinite().all():
        return Check("weights", "fail", "the model gives features that are not finite", "reinstall torch")
    return Check(
        "weights", "ok", f"{backbone.name}, {backbone.embed_dim} dimensions, fingerprint {backbone.fingerprint}"
    )


def cache():
    """The cache can be written and has room."""
    folder = paths.cache_dir()
    advice = "set VLMCOURSE_CACHE to a folder with room; without it everything works, but is computed anew each time"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return Check("cache", "warn", f"{folder} cannot be written: {error}", advice)
    free = shutil.disk_usage(folder).free / 1e9
    detail = f"{folder}, {free:.1f} GB free"
    return Check("cache", "warn", detail, advice) if free < 1 else Check("cache", "ok", detail)


def kernel():
    """The kernel that the notebooks name is there and belongs to this environment."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    advice = f"{sys.executable} -m pip install ipykernel && {sys.executable} -m ipykernel install --sys-prefix"
    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        return Check("kernel", "fail", "there is no Jupyter kernel called python3", advice)
    program = spec.argv[0]
    if os.path.isabs(program) and os.path.realpath(program) != os.path.realpath(sys.executable):
        return Check("kernel", "warn", f"python3 starts {program}, another Python than this one", advice)
    return Check("kernel", "ok", f"python3 at {spec.resource_dir}")


def notebooks():
    """The course's notebooks are found."""
    from vlmcourse.course.notebooks import find

    found = find(paths.notebooks_dir())
    if not found:
        return Check(
            "notebooks", "warn", f"none in {paths.notebooks_dir()}", "clone the repository to get the notebooks"
        )
    return Check("notebooks", "ok", f"{len(found)} in {paths.notebooks_dir()}")

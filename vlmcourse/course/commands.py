"""What each command does. A function takes the parsed arguments, prints, and returns the exit code (None: 0)."""

import json
import sys
from pathlib import Path

from vlmcourse import paths


def run(arguments):
    """`vlmcourse run`: all checks of the arguments come before the first notebook starts."""
    from vlmcourse.course import run as runner
    from vlmcourse.course.notebooks import parameters, select, values_for

    chosen = select(arguments.wanted, paths.notebooks_dir())
    if arguments.list:
        for notebook in chosen:
            print(notebook.name)
            for name, p in parameters(notebook).items():
                print(f"    {name}: {p['inferred_type_name']} = {p['default']}  # {p['help']}")
        return None
    given, jobs = dict(arguments.given), []
    for notebook in chosen:
        declared = parameters(notebook)
        values = values_for(notebook, given, declared)
        if "profile" in declared and "profile" not in values and arguments.profile != "quick":
            values["profile"] = arguments.profile
        jobs.append(runner.Job(notebook, values))
    _require_kernels(chosen)
    out = Path(arguments.out) if arguments.out else (paths.root() or Path.cwd()) / "build" / "course"
    timeout = arguments.timeout or (1800 if arguments.profile == "quick" else None)
    try:
        runner.run(jobs, out, workers=arguments.jobs, fresh=arguments.fresh, timeout=timeout, echo=_say)
    except KeyboardInterrupt:
        finished = sum(job.status in ("passed", "kept") for job in jobs)
        _say(f"\ninterrupted; {finished} of {len(jobs)} notebooks are finished; the same command goes on from there")
        return 130
    return _conclude(jobs, out)


def _conclude(jobs, out):
    failed = [job for job in jobs if job.status == "failed"]
    if failed:
        _show_error(failed[0])
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    kept = f" ({summary['kept']} unchanged)" if summary["kept"] else ""
    _say(f"{summary['passed']} passed{kept}, {summary['failed']} failed in {summary['seconds']:.0f} s")
    _say(f"see {out / 'index.html'}")
    return 1 if failed else 0


def _show_error(job):
    where = f", cell In [{job.error['cell']}]" if job.error["cell"] else ""
    _say(f"\nfirst error, in {job.notebook.name}{where}: {job.error['name']}: {job.error['message']}")
    if job.error["traceback"]:
        _say("\n".join("    " + line for line in job.error["traceback"].splitlines()[-25:]))
    _say("")


def _say(text):
    print(text, flush=True)


def _require_kernels(notebooks):
    """ValueError unless every kernel that the notebooks name is installed."""
    from jupyter_client.kernelspec import KernelSpecManager

    there = set(KernelSpecManager().find_kernel_specs())
    for notebook in notebooks:
        name = notebook.read()["metadata"].get("kernelspec", {}).get("name") or "python3"
        if name not in there:
            advice = f"{sys.executable} -m ipykernel install --sys-prefix --name {name}"
            raise ValueError(
                f"{notebook.name} needs the Jupyter kernel {name!r}, which is not installed; try: {advice}"
            )


def refresh(arguments):
    """`vlmcourse notebooks refresh`."""
    from vlmcourse.course import refresh as refresher
    from vlmcourse.course.notebooks import select

    chosen = select(arguments.wanted, paths.notebooks_dir())
    _require_kernels(chosen)
    jobs = refresher.refresh(chosen, workers=arguments.jobs, echo=_say)
    failed = [job for job in jobs if job.status == "failed"]
    if failed:
        _show_error(failed[0])
    write_map(arguments)
    return int(bool(check(arguments)) or bool(failed))


def check(arguments):
    """`vlmcourse notebooks check`: exit code 1 if there is a problem."""
    from vlmcourse.course import hygiene
    from vlmcourse.course.notebooks import find, select

    chosen = select(arguments.wanted, paths.notebooks_dir())
    found = [f"{n.name}: {problem}" for n in chosen for problem in hygiene.problems(n)]
    found += hygiene.duplicates(find(paths.notebooks_dir()))
    _say("\n".join([*found, f"{len(found)} problems in {len(chosen)} notebooks"]))
    return 1 if found else 0


def write_map(arguments):
    """`vlmcourse notebooks map`."""
    from vlmcourse import files
    from vlmcourse.course import refresh as refresher

    if paths.root() is None:
        raise ValueError("the README is part of the repository, and this is an installed package")
    readme = paths.root() / "README.md"
    text = refresher.with_map(
        readme.read_text(encoding="utf-8"), refresher.course_map(paths.notebooks_dir(), paths.root())
    )
    files.atomic_write(readme, text.encode())


def methods(arguments):
    """`vlmcourse methods`."""
    import dataclasses

    from vlmcourse import list_methods

    cards = {name: dataclasses.asdict(cls.card) for name, cls in list_methods().items()}
    _show(arguments.json, cards, ("name", "family", "venue", "year", "title"))


def tasks(arguments):
    """`vlmcourse tasks`."""
    from vlmcourse import get_task, list_tasks

    found = {}
    for name in list_tasks():
        task = get_task(name)
        splits = {part: len(split) for part, split in task.splits.items()}
        found[name] = {
            "name": name,
            "title": task.title,
            "kind": task.kind,
            "classes": len(task.class_names),
            "images": " / ".join(f"{part} {n}" for part, n in splits.items()),
            "domains": sorted(task.domains),
            "licence": task.licence,
        }
    _show(arguments.json, found, ("name", "title", "kind", "classes", "images", "licence"))


def _show(as_json, entries, columns):
    """Print {name: {column: value}} as JSON or as a table of some columns."""
    if as_json:
        print(json.dumps(entries, indent=1, ensure_ascii=False))
        return
    rows = [columns, *(tuple(str(entry[column]) for column in columns) for entry in entries.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def doctor(arguments):
    """`vlmcourse doctor`: exit code 1 if something essential is wrong."""
    import dataclasses

    from vlmcourse.course.doctor import examine

    report = examine()
    healthy = all(line.status != "fail" for line in report)
    if arguments.json:
        print(json.dumps({"healthy": healthy, "checks": [dataclasses.asdict(line) for line in report]}, indent=1))
    else:
        for line in report:
            print(f"{line.status:5} {line.name:10} {line.detail}")
            if line.advice:
                print(f"{'':16} -> {line.advice}")
        print(
            "\neverything the course needs is here"
            if healthy
            else "\nthe course cannot run before the lines 'fail' are mended"
        )
    return 0 if healthy else 1


def checksums(arguments):
    """`vlmcourse data checksums`: exit code 1 if the data differs from its record."""
    from vlmcourse.course import checksums as sums

    if arguments.write:
        print(f"{len(sums.write())} files recorded in {paths.data_dir() / sums.NAME}")
        return 0
    difference = sums.compare()
    for kind, names in difference.items():
        for name in names:
            print(f"{kind}: {name}")
    if not any(difference.values()):
        print(f"{len(sums.read())} files as recorded")
    return 1 if any(difference.values()) else 0

"""The command `vlmcourse`. Only argparse is imported up front, so that help and errors come at once.

Exit codes: 0 all is well, 1 something failed (a notebook, a check), 2 wrong arguments, 130 interrupted.
"""

import argparse
import importlib
import sys

# Commands whose arguments belong to another module's main(argv): everything behind the command's words is passed on.
DELEGATES = {
    ("backbone", "evaluate"): "vlmcourse.backbone.evaluate",
    ("data", "build"): "vlmcourse.world.build",
    ("pretrain",): "vlmcourse.backbone.pretrain",
}


def main(argv=None):
    """Run one command line (default: the process's arguments) and return the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    for words, module in DELEGATES.items():
        if tuple(argv[: len(words)]) == words:
            rest = argv[len(words) :]
            return _guarded(lambda name=module, rest=rest: importlib.import_module(name).main(rest))
    arguments = parser().parse_args(argv)
    return _guarded(lambda: arguments.action(arguments))


def _guarded(action):
    """The exit code of `action()`; expected errors become one line, others keep their traceback."""
    from vlmcourse.errors import DataError

    try:
        return action() or 0
    except KeyboardInterrupt:
        print("vlmcourse: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        sys.stdout = None
        return 0
    except (ValueError, DataError, OSError) as error:
        print(f"vlmcourse: error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("vlmcourse"):
            raise
        advice = "pip install 'vlmcourse[notebooks,test]', or [pretrain] to rebuild the data and the weights"
        print(f"vlmcourse: error: this command needs the package {error.name}: {advice}", file=sys.stderr)
        return 2


def parser():
    """The argument parser of all commands."""
    from vlmcourse.course import commands

    top = argparse.ArgumentParser(
        prog="vlmcourse", description="Vision-language models and their transfer: the course."
    )
    top.add_argument(
        "--version", action="version", version=f"%(prog)s {importlib.import_module('vlmcourse').__version__}"
    )
    sub = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = _command(sub, "run", commands.run, "execute notebooks in parallel and build HTML pages of them")
    run.add_argument(
        "wanted", nargs="*", metavar="PART|NOTEBOOK", help="e.g. 3_text_prompts, 03_coop, coop, a path; all if none"
    )
    run.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="given", help="set a parameter"
    )
    run.add_argument("--list", action="store_true", help="only list the notebooks and their parameters")
    run.add_argument(
        "--profile", choices=("quick", "full"), default="quick", help="quick: CPU, seconds (default); full: the paper's"
    )
    run.add_argument("--out", metavar="FOLDER", help="where the results go (default: build/course in the checkout)")
    run.add_argument("--fresh", action="store_true", help="run again what has not changed since it passed, too")
    run.add_argument(
        "--timeout", type=_positive(float), metavar="S", help="seconds allowed for one notebook (default: quick 1800)"
    )
    _jobs(run)

    books = sub.add_parser("notebooks", help="keep the notebooks tidy: check, refresh, map")
    books = books.add_subparsers(title="commands", metavar="COMMAND", required=True)
    refresh = _command(
        books, "refresh", commands.refresh, "execute in place, renew outputs and the README's map, then check"
    )
    check = _command(books, "check", commands.check, "report what keeps notebooks from being committed")
    for command in (refresh, check):
        command.add_argument("wanted", nargs="*", metavar="PART|NOTEBOOK", help="all if none")
    _jobs(refresh)
    _command(books, "map", commands.write_map, "renew the README's map of the course")

    for name, action, text in (
        ("methods", commands.methods, "list the methods with their papers"),
        ("tasks", commands.tasks, "list the tasks (data sets with class names and splits)"),
        ("doctor", commands.doctor, "check this machine: packages, data, weights, cache, kernel"),
    ):
        _command(sub, name, action, text).add_argument("--json", action="store_true", help="for programs")

    data = sub.add_parser("data", help="the shipped data: checksums, build").add_subparsers(
        metavar="COMMAND", required=True
    )
    sums = _command(data, "checksums", commands.checksums, "compare the data with its checksums")
    sums.add_argument("--write", action="store_true", help="record the files as they are now")
    data.add_parser(
        "build", help="rebuild the artwork, captions and small data sets from their sources", add_help=False
    )
    backbone = sub.add_parser("backbone", help="the embedded model: evaluate").add_subparsers(
        metavar="COMMAND", required=True
    )
    backbone.add_parser("evaluate", help="measure the embedded model", add_help=False)
    sub.add_parser("pretrain", help="pretrain the embedded model", add_help=False)
    return top


def _command(sub, name, action, text):
    command = sub.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(action=action)
    return command


def _jobs(command):
    command.add_argument(
        "--jobs", type=_positive(int), default=2, metavar="N", help="notebooks at the same time (default: 2)"
    )


def _positive(kind):
    def number(text):
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    number.__name__ = kind.__name__
    return number

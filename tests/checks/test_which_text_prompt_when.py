"""The checks of the chapter on text prompts accept solutions and answer wrong attempts with a hint, without raising."""

import pytest

from vlmcourse.checks.which_text_prompt_when import check_frontier, check_paired


def on_frontier(points):
    def beaten(p):
        return any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points.values())

    return {name for name, p in points.items() if not beaten(p)}


def paired(a, b):
    return sum(x - y for x, y in zip(a, b)) / len(a), sum(x > y for x, y in zip(a, b)) / len(a)


def one_of_equals(points):
    return {point: name for name, point in points.items() if name in on_frontier(points)}.values()


@pytest.mark.parametrize(("check", "solution"), [(check_frontier, on_frontier), (check_paired, paired)])
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize(
    ("check", "wrong", "hint"),
    [
        (check_frontier, 3, "pass the function itself"),
        (check_frontier, lambda points: None, "returns None"),
        (check_frontier, lambda points: 4, "collection of names"),
        (check_frontier, lambda points: ["zebra"], "are none"),
        (check_frontier, lambda points: [max(points, key=lambda n: points[n][1])], "a cheap method"),
        (check_frontier, one_of_equals,
         "equal points do not beat"),
        (check_paired, lambda a, b: 1 / 0, "raised ZeroDivisionError"),
        (check_paired, lambda a, b: 0.1, "two numbers"),
        (check_paired, lambda a, b: (-paired(a, b)[0], paired(a, b)[1]), "sign is turned"),
        (check_paired, lambda a, b: (paired(a, b)[0], sum(x >= y for x, y in zip(a, b)) / len(a)), "a tie is no win"),
    ],
)  # fmt: skip
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    out = capsys.readouterr().out
    assert out.startswith("✗ not yet: ") and hint in out

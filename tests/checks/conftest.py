"""What every check of an exercise must do: pass its reference, and answer non-answers and mistakes with a hint."""

import pytest


@pytest.fixture
def passes_reference_only(capsys):
    """passes_reference_only(check, reference): ✓ for the reference, a hint for nothing, no function, an error, text."""

    def judge(check, reference):
        assert check(reference)
        assert capsys.readouterr().out.startswith("✓")
        non_answers = ((lambda *a: None, "returns None"), (3, "pass the function itself"), (lambda *a: 1 / 0, "Zero"))
        for wrong, hint in non_answers:
            assert not check(wrong)
            assert hint in capsys.readouterr().out
        assert not check(lambda *a: "text")
        assert capsys.readouterr().out.startswith("✗ not yet: ")

    return judge


@pytest.fixture
def hints_at(capsys):
    """hints_at(check, mistake, hint): the mistake fails, and the hint says why."""

    def judge(check, mistake, hint):
        assert not check(mistake)
        assert hint in capsys.readouterr().out

    return judge

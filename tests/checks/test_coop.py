"""The checks of 03_coop accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch

from vlmcourse.checks.coop import check_insert, check_layout, check_snap, layout


def insert(embeddings, ctx):
    C, M = len(embeddings), ctx.shape[-2]
    return torch.cat([embeddings[:, :1], ctx.expand(C, -1, -1), embeddings[:, 1 + M :]], dim=1)


def snap(ctx, table):
    return table[torch.cdist(ctx, table).argmin(dim=1)]


@pytest.mark.parametrize(("check", "solution"), [(check_layout, layout), (check_insert, insert), (check_snap, snap)])
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def overwrite(embeddings, ctx):
    embeddings[:, 1 : 1 + ctx.shape[-2]] = ctx
    return embeddings


def inside_out(position, n_ctx, n_name):
    return layout({"end": "front", "middle": "middle", "front": "end"}[position], n_ctx, n_name)


def by_cosine(ctx, table):
    return table[torch.cosine_similarity(ctx[:, None], table, -1).argmax(1)]


def first_half_larger(position, n_ctx, n_name):
    context, name = [f"v{m + 1}" for m in range(n_ctx)], [f"n{i + 1}" for i in range(n_name)]
    before = {"end": n_ctx, "middle": (n_ctx + 1) // 2, "front": 0}[position]
    return ["SOS", *context[:before], *name, *context[before:], ".", "EOT"]


WRONG = [
    (check_layout, lambda p, m, n: None, "returns None"),
    (check_layout, lambda p, m, n: 3, "return a list"),
    (check_layout, inside_out, "where the class name stands"),
    (check_layout, first_half_larger, "M is odd"),
    (check_layout, lambda p, m, n: layout(p, m, n)[1:], "must occur once"),
    (check_layout, lambda p, m, n: layout("end", m, n), "expected SOS v1 n1 v2 . EOT"),
    (check_layout, "layout", "pass the function itself"),
    (check_insert, lambda e, ctx: None, "returns None"),
    (check_insert, overwrite, "wrote into embeddings"),
    (check_insert, lambda e, ctx: insert(e, ctx.detach()), "no gradient"),
    (check_insert, lambda e, ctx: insert(e, ctx[0] if ctx.ndim == 3 else ctx), "context of class 0"),
    (check_insert, lambda e, ctx: torch.cat([ctx.expand(len(e), -1, -1), e[:, ctx.shape[-2] :]], 1), "start token"),
    (check_insert, lambda e, ctx: torch.cat([e[:, :1], ctx.expand(len(e), -1, -1), e[:, 1:]], 1), "(C, l, D)"),
    (check_insert, lambda e, ctx: torch.cat([e[:, :1], ctx, e[:, 3:]], 1), "raised"),
    (check_insert, lambda e, ctx: insert(e, ctx).roll(1, 2) * 0 + e, "should get"),
    (check_insert, lambda e, ctx: insert(e, ctx) * torch.tensor([1.0, 1, 1, 1, 1, 1, 0])[:, None], "must stay"),
    (check_insert, 7, "pass the function itself"),
    (check_snap, lambda ctx, table: None, "returns None"),
    (check_snap, lambda ctx, table: torch.cdist(ctx, table).argmin(1), "return the rows themselves"),
    (check_snap, lambda ctx, table: table[(ctx @ table.T).argmax(1)], "inner product"),
    (check_snap, by_cosine, "largest cosine"),
    (check_snap, lambda ctx, table: table[torch.cdist(ctx, table).argmax(1)], "farthest"),
    (check_snap, lambda ctx, table: table[0], "one row for each"),
    (check_snap, lambda ctx, table: ctx, "not the nearest"),
    (check_snap, lambda ctx, table: "words", "not the nearest"),
    (check_snap, 3.0, "pass the function itself"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said


def test_the_layout_is_that_of_the_package(vit_backbone):
    """The strings stand where the package puts slots and end token."""
    from vlmcourse.methods.context import ClassPrompts

    for position in ("end", "middle", "front"):
        prompts = ClassPrompts(vit_backbone, ["hot air balloon"], 5, position)
        tokens = layout(position, 5, len(vit_backbone.tokenizer.encode("hot air balloon")))
        assert [tokens[i] for i in prompts.slots[0].tolist()] == ["v1", "v2", "v3", "v4", "v5"]
        assert tokens.index("EOT") == int(prompts.eot[0])

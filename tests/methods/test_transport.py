"""Sinkhorn: against exact transport, a plain loop in float64, closed forms and limits; margins, gradient, errors."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog

from vlmcourse.methods.transport import entropy, sinkhorn


def random_costs(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain_sinkhorn(cost, eps, iterations, u=None, v=None, tolerance=None):
    """One problem (P, N) as in the textbook, with kernels instead of logarithms; returns plan and iterations."""
    P, N = cost.shape
    u = np.full(P, 1 / P) if u is None else u
    v = np.full(N, 1 / N) if v is None else v
    kernel, r, c, rounds = np.exp(-cost / eps), np.ones(P), np.ones(N), 0
    while rounds < iterations:
        before, rounds = r, rounds + 1
        r = u / (kernel @ c)
        c = v / (kernel.T @ r)
        if tolerance is not None and np.abs(r - before).mean() < tolerance:
            break
    return r[:, None] * kernel * c[None], rounds


def exact_cost(cost, u, v):
    """min <T, C> by linear programming."""
    P, N = cost.shape
    rows, columns = np.kron(np.eye(P), np.ones(N)), np.kron(np.ones(P), np.eye(N))
    return linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([u, v])).fun


@pytest.mark.parametrize("eps", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(49, 4), (4, 4), (1, 3), (3, 1), (1, 1)])
def test_equals_the_plain_loop(eps, shape):
    cost = random_costs(*shape)
    expected, _ = plain_sinkhorn(cost.numpy(), eps, 30)
    plan = sinkhorn(cost, eps, max_iter=30, tolerance=None)
    np.testing.assert_allclose(plan.numpy(), expected, atol=1e-12)


def test_each_problem_stops_by_itself_as_the_plain_loop_does():
    costs = torch.stack([random_costs(49, 4, seed=s) * scale for s, scale in enumerate((0.05, 1.0, 2.0))])
    expected = [plain_sinkhorn(c.numpy(), 0.1, 100, tolerance=1e-2) for c in costs]
    assert len({count for _, count in expected}) == 3, "the three problems stop at different times"
    plans = sinkhorn(costs, 0.1)
    for plan, (want, _) in zip(plans, expected, strict=True):
        np.testing.assert_allclose(plan.numpy(), want, atol=1e-12)
    assert torch.equal(plans[1:2], sinkhorn(costs[1:2], 0.1)), "a plan does not depend on its neighbours"


def test_the_batch_stop_ends_all_problems_together():
    costs = torch.stack([random_costs(49, 4, seed=s) * scale for s, scale in enumerate((0.05, 2.0))])
    kernel, r, c, count = torch.exp(-costs / 0.1), torch.ones(2, 49).double(), torch.ones(2, 4).double(), 0
    while True:
        before, count = r, count + 1
        r = 1 / 49 / torch.einsum("bpn,bn->bp", kernel, c)
        c = 1 / 4 / torch.einsum("bpn,bp->bn", kernel, r)
        if (r - before).abs().mean() < 1e-2:
            break
    together = sinkhorn(costs, 0.1, stop="batch")
    torch.testing.assert_close(together, r[:, :, None] * kernel * c[:, None], atol=1e-12, rtol=0)
    torch.testing.assert_close(together, sinkhorn(costs, 0.1, max_iter=count, tolerance=None), atol=1e-12, rtol=0)
    assert not torch.equal(together[:1], sinkhorn(costs[:1], 0.1, stop="batch")), "here neighbours matter"


@pytest.mark.parametrize("seed", range(3))
def test_small_eps_gives_the_best_assignment(seed):
    cost = random_costs(6, 6, seed=seed)
    rows, columns = linear_sum_assignment(cost.numpy())
    expected = torch.zeros(6, 6).double()
    expected[rows, columns] = 1 / 6
    plan = sinkhorn(cost, 1e-3, max_iter=3000, tolerance=None)
    torch.testing.assert_close(plan, expected, atol=2e-4, rtol=0)


def test_small_eps_gives_the_exact_cost_for_other_shapes_and_margins():
    cost = random_costs(7, 3, seed=5)
    u, v = np.array([1, 2, 3, 1, 2, 3, 4]) / 16, np.array([0.2, 0.5, 0.3])
    plan = sinkhorn(cost, 2e-3, rows=torch.tensor(u), columns=torch.tensor(v), max_iter=3000, tolerance=None)
    assert (plan * cost).sum().item() == pytest.approx(exact_cost(cost.numpy(), u, v), abs=1e-4)
    np.testing.assert_allclose(plan.sum(1).numpy(), u, atol=1e-6)
    np.testing.assert_allclose(plan.sum(0).numpy(), v, atol=1e-12)


def test_infinite_eps_equal_costs_and_one_column_give_the_independent_plan():
    uniform = torch.full((5, 3), 1 / 15).double()
    torch.testing.assert_close(sinkhorn(random_costs(5, 3), math.inf), uniform)
    torch.testing.assert_close(sinkhorn(random_costs(5, 3), 1e6), uniform, atol=1e-7, rtol=0)
    torch.testing.assert_close(sinkhorn(torch.full((5, 3), 0.7).double()), uniform)
    torch.testing.assert_close(sinkhorn(random_costs(5, 1).expand(5, 3)), uniform, msg="equal prompts share equally")
    torch.testing.assert_close(sinkhorn(random_costs(5, 1)), torch.full((5, 1), 0.2).double())


def test_constants_on_rows_and_columns_do_not_change_the_plan():
    cost = random_costs(8, 3)
    shifted = cost + random_costs(8, 1, seed=1) + random_costs(1, 3, seed=2)
    options = {"max_iter": 300, "tolerance": None}
    torch.testing.assert_close(sinkhorn(shifted, **options), sinkhorn(cost, **options), atol=1e-12, rtol=0)


def test_two_by_two_in_closed_form():
    cost, eps = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double(), 0.5
    stay = 0.5 / (1 + math.exp(-1 / eps))  # by symmetry r = c, so the plan is exp(-C / eps) up to one constant
    expected = torch.tensor([[stay, 0.5 - stay], [0.5 - stay, stay]], dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(cost, eps, max_iter=200, tolerance=None), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("eps", [1e-4, 1e-2, 0.1, 10])
def test_margins_and_range_in_every_precision(dtype, eps):
    plan = sinkhorn((2 * random_costs(2, 3, 49, 4)).to(dtype), eps)
    assert plan.shape == (2, 3, 49, 4) and plan.dtype == torch.float32
    assert torch.isfinite(plan).all() and (plan >= 0).all()
    torch.testing.assert_close(plan.sum(-2), torch.full((2, 3, 4), 0.25), atol=2e-3 if eps < 1e-2 else 1e-5, rtol=0)
    if eps >= 0.1:
        torch.testing.assert_close(plan.sum(-1), torch.full((2, 3, 49), 1 / 49), rtol=5e-3, atol=0)


def test_entropic_plan_is_the_minimum():
    """Any exchange of mass between two rows and two columns raises <T, C> - eps H(T)."""
    cost, eps = random_costs(5, 4), 0.1
    plan = sinkhorn(cost, eps, max_iter=500, tolerance=None)
    best = (plan * cost).sum() - eps * entropy(plan)
    for amount in (-1e-3, 1e-3):
        for (a, b), (i, j) in (((0, 1), (0, 1)), ((2, 4), (1, 3)), ((0, 3), (2, 3))):
            other = plan.clone()
            other[a, i] += amount
            other[b, j] += amount
            other[a, j] -= amount
            other[b, i] -= amount
            assert (other * cost).sum() - eps * entropy(other) > best


def test_the_plan_is_the_gradient_of_the_optimal_value():
    cost, eps, step = random_costs(4, 3), 0.2, 1e-5

    def value(c):
        plan = sinkhorn(c, eps, max_iter=500, tolerance=None)
        return ((plan * c).sum() - eps * entropy(plan)).item()

    for p, n in ((0, 0), (2, 1), (3, 2)):
        moved = cost.clone()
        moved[p, n] += step
        slope = (value(moved) - value(cost)) / step
        assert slope == pytest.approx(sinkhorn(cost, eps, max_iter=500, tolerance=None)[p, n].item(), abs=1e-5)


def test_no_gradient_passes():
    cost = random_costs(3, 4, 2).requires_grad_()
    assert not sinkhorn(cost).requires_grad


def test_order_of_rows_and_columns_does_not_matter():
    cost = random_costs(9, 4)
    rows, columns = torch.randperm(9), torch.randperm(4)
    torch.testing.assert_close(sinkhorn(cost[rows][:, columns]), sinkhorn(cost)[rows][:, columns], atol=1e-12, rtol=0)


def test_empty_row_of_the_margin_gets_no_mass():
    plan = sinkhorn(random_costs(3, 2), rows=torch.tensor([0.5, 0.0, 0.5]), max_iter=200, tolerance=None)
    assert plan[1].tolist() == [0, 0] and torch.isfinite(plan).all()
    torch.testing.assert_close(plan.sum(0), torch.tensor([0.5, 0.5]).double())


def test_entropy_of_uniform_and_of_an_assignment():
    assert entropy(torch.full((2, 5, 3), 1 / 15)).tolist() == pytest.approx([math.log(15)] * 2)
    assert entropy(torch.eye(4) / 4).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cost": torch.ones(3)}, r"cost=\(3,\)"),
        ({"cost": torch.ones(3, 2, dtype=torch.long)}, "cost=.*int64"),
        ({"eps": 0}, "eps=0 must be positive"),
        ({"eps": math.nan}, "eps=nan"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"tolerance": 0}, "tolerance=0"),
        ({"stop": "never"}, "stop='never'"),
        ({"rows": torch.ones(3)}, r"rows=\(3,\) must be \(..., 3\), non-negative, with sum 1"),
        ({"rows": torch.tensor([1.5, -0.5, 0.0])}, "rows="),
        ({"columns": torch.ones(3) / 3}, r"columns=\(3,\) must be \(..., 2\)"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sinkhorn(**{"cost": torch.ones(3, 2)} | arguments)

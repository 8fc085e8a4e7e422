"""The training loop: learning rates against the closed form and published logs, batches, optimisers, errors."""

import math

import pytest
import torch

from vlmcourse.training import coop_lr, fit


def quadratic(weight, data):
    return lambda indices, step: ((weight - data[indices]) ** 2).mean()


def run(n=8, **arguments):
    """Fit one vector to random data; returns it and the history."""
    data = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    weight = torch.zeros(3, requires_grad=True)
    settings = {"epochs": 5, "batch_size": 4, "lr": 0.1} | arguments
    return weight, fit([weight], quadratic(weight, data), n, **settings)


def test_coop_lr_equals_the_published_example():
    lrs = [coop_lr(e, 5, 0.0035) for e in range(5)]
    assert lrs == pytest.approx([1e-5, 0.0035, 0.003166, 0.002291, 0.001209], abs=5e-7)


def test_coop_lr_equals_the_last_epoch_of_official_logs():
    assert coop_lr(49, 50, 2e-3) == pytest.approx(7.885e-06, abs=5e-10)


def test_coop_lr_never_reaches_zero_and_warms_up():
    lrs = [coop_lr(e, 50, 2e-3, warmup_epochs=3) for e in range(50)]
    assert lrs[:3] == [1e-5] * 3 and lrs[3] == 2e-3
    assert all(a > b > 0 for a, b in zip(lrs[3:], lrs[4:], strict=False))


def test_lr_history_is_the_closed_form():
    assert run(epochs=6)[1]["lr"] == [coop_lr(e, 6, 0.1) for e in range(6)]
    assert run(epochs=3, schedule="constant")[1]["lr"] == [0.1] * 3
    steps = 3 * 2
    last_of_each_epoch = [0.05 * (1 + math.cos(math.pi * t / steps)) for t in (1, 3, 5)]
    assert run(epochs=3, schedule="cosine_per_step")[1]["lr"] == pytest.approx(last_of_each_epoch)


def test_a_schedule_may_be_a_function_of_the_step():
    history = run(epochs=3, schedule=lambda step, steps: 0.01 * (steps - step))[1]
    assert history["lr"] == pytest.approx([0.05, 0.03, 0.01])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_fit_equals_plain_torch(optimizer):
    data = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    weight, history = run(n=6, batch_size=6, epochs=4, optimizer=optimizer, weight_decay=0.1, eps=1e-4)
    mine = torch.zeros(3, requires_grad=True)
    if optimizer == "sgd":
        opt = torch.optim.SGD([mine], lr=1, momentum=0.9, weight_decay=0.1)
    else:
        opt = torch.optim.AdamW([mine], lr=1, eps=1e-4, weight_decay=0.1)
    for epoch in range(4):
        opt.param_groups[0]["lr"] = coop_lr(epoch, 4, 0.1)
        loss = ((mine - data) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        assert history["loss"][epoch] == pytest.approx(loss.item(), abs=1e-6)
    torch.testing.assert_close(weight, mine)


def seen_batches(n, batch_size, drop_last, epochs=2, seed=0):
    weight, batches = torch.zeros(1, requires_grad=True), []

    def loss(indices, step):
        batches.append((step, indices.tolist()))
        return weight.sum()

    fit([weight], loss, n, epochs=epochs, batch_size=batch_size, lr=0.1, drop_last=drop_last, seed=seed)
    return batches


def test_batches_cover_an_epoch_and_the_last_one_is_dropped_only_if_there_is_a_full_one():
    whole = seen_batches(7, 3, drop_last=False)
    assert [len(b) for _, b in whole] == [3, 3, 1] * 2 and [s for s, _ in whole] == list(range(6))
    assert sorted(sum((b for _, b in whole[:3]), [])) == list(range(7))
    assert [len(b) for _, b in seen_batches(7, 3, drop_last=True)] == [3, 3] * 2
    assert [len(b) for _, b in seen_batches(2, 3, drop_last=True)] == [2] * 2
    assert seen_batches(7, 3, True, seed=1) != seen_batches(7, 3, True, seed=2)
    assert seen_batches(7, 3, True, seed=1) == seen_batches(7, 3, True, seed=1)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    run()
    assert torch.equal(before, torch.get_rng_state())


def test_lr_scale_of_a_group_and_a_frozen_one():
    data = torch.ones(4, 1)
    fast, slow = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    groups = [fast, {"params": [slow], "lr_scale": 0.1}]
    fit(groups, lambda i, s: ((fast - data[i]) ** 2 + (slow - data[i]) ** 2).mean(), 4, epochs=1, batch_size=4, lr=0.1,
        warmup_epochs=0, weight_decay=0.0)  # fmt: skip
    assert fast.item() == pytest.approx(0.2) and slow.item() == pytest.approx(0.02)


def test_a_group_may_have_a_warm_up_of_its_own():
    early, late = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    groups = [{"params": [early], "warmup_epochs": 0}, late]
    history = fit(groups, lambda i, s: early.sum() + late.sum(), 4, epochs=2, batch_size=4, lr=0.1, warmup_epochs=2,
                  momentum=0.0, weight_decay=0.0)  # fmt: skip
    assert early.item() == pytest.approx(-sum(coop_lr(e, 2, 0.1, warmup_epochs=0) for e in range(2)))
    assert late.item() == pytest.approx(-2e-5) and history["lr"] == [1e-5] * 2, "the rate of the last group"


def test_clip_norm_bounds_the_step():
    weight = torch.zeros(2, requires_grad=True)
    far = torch.tensor([300.0, 400.0])
    fit(
        [weight],
        lambda i, s: ((weight - far) ** 2).sum(),
        1,
        epochs=1,
        batch_size=1,
        lr=1.0,
        warmup_epochs=0,
        clip_norm=1.0,
    )
    torch.testing.assert_close(weight.detach(), torch.tensor([0.6, 0.8]))


def test_extra_numbers_are_logged_and_on_epoch_is_called():
    weight, calls = torch.zeros(1, requires_grad=True), []
    history = fit([weight], lambda i, s: (weight.sum(), {"step": s}), 4, epochs=2, batch_size=2, lr=0.1,
                  on_epoch=lambda e, h: calls.append((e, len(h["loss"]))))  # fmt: skip
    assert history["step"] == [0.5, 2.5] and calls == [(0, 1), (1, 2)]
    assert set(history) == {"loss", "lr", "step"}


def test_a_true_on_epoch_ends_training_within_the_schedule_of_all_epochs():
    weight, history = run(epochs=5, on_epoch=lambda e, h: e == 2)
    assert history["lr"] == [coop_lr(e, 5, 0.1) for e in range(3)]


def test_zero_epochs_change_nothing():
    weight, history = run(epochs=0)
    assert history == {} and not weight.any()


def test_fit_works_under_no_grad():
    with torch.no_grad():
        weight, _ = run()
    assert weight.any()


@pytest.mark.parametrize(
    ("argument", "value"),
    [("epochs", -1), ("epochs", 2.5), ("batch_size", 0), ("n", 0), ("lr", 0.0), ("lr", math.nan), ("lr", math.inf),
     ("schedule", "linear"), ("optimizer", "lbfgs")],
)  # fmt: skip
def test_bad_arguments_are_named(argument, value):
    settings = {"n": 4, "epochs": 1, "batch_size": 2, "lr": 0.1} | {argument: value}
    weight = torch.zeros(1, requires_grad=True)
    with pytest.raises(ValueError, match=argument):
        fit([weight], lambda i, s: weight.sum(), settings.pop("n"), **settings)


def test_a_diverging_loss_stops_with_advice():
    weight = torch.ones(1, requires_grad=True)
    with pytest.raises(FloatingPointError, match="smaller lr"):
        fit([weight], lambda i, s: (weight * math.inf).sum(), 2, epochs=1, batch_size=2, lr=0.1)


def test_repeats_use_each_gradient_several_times_and_hurry_the_schedule():
    data = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    weight, history = run(n=6, batch_size=6, epochs=4, repeats=3, weight_decay=0.1)
    mine = torch.zeros(3, requires_grad=True)
    opt = torch.optim.SGD([mine], lr=1, momentum=0.9, weight_decay=0.1)
    for epoch in range(4):
        opt.param_groups[0]["lr"] = coop_lr(3 * epoch, 4, 0.1)
        opt.zero_grad()
        ((mine - data) ** 2).mean().backward()
        for _ in range(3):
            opt.step()
    torch.testing.assert_close(weight, mine)
    assert history["lr"] == [coop_lr(3 * e, 4, 0.1) for e in range(4)]
    with pytest.raises(ValueError, match="repeats=0"):
        run(repeats=0)

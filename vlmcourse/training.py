"""The one training loop: every gradient method of the course hands its parameters and its loss to `fit`.

Learning rates, with e the epoch (from 0), T the epochs in all, W the warm-up epochs:
    coop             eta(e) = 1e-5 for e < W, else lr/2 (1 + cos(pi (e - W) / T))   (CoOp's family; never reaches 0)
    cosine_per_step  eta(t) = lr/2 (1 + cos(pi t / S)), t the step, S the steps in all   (Tip-Adapter-F)
    constant         eta = lr
"""

import math
from collections import defaultdict

import torch
from tqdm import tqdm

SCHEDULES, OPTIMIZERS = ("coop", "cosine_per_step", "constant"), ("sgd", "adamw")


def coop_lr(epoch, epochs, lr, warmup_epochs=1, warmup_lr=1e-5):
    """Rate of one epoch: constant warm-up, then a cosine that starts after it, but with the length of all `epochs`."""
    if epoch < warmup_epochs:
        return warmup_lr
    return 0.5 * lr * (1 + math.cos(math.pi * (epoch - warmup_epochs) / epochs))


def fit(parameters, loss_fn, n, *, epochs, batch_size, lr, optimizer="sgd", momentum=0.9, weight_decay=5e-4, eps=1e-8,
        warmup_epochs=1, warmup_lr=1e-5, schedule="coop", drop_last=True, clip_norm=None, repeats=1, seed=0,
        progress=False, on_epoch=None):  # fmt: skip
    """Minimise `loss_fn(indices, step)` over shuffled batches of 0..n-1, changing `parameters` in place.

    parameters: leaf tensors, or groups {"params": [...], "lr_scale": 0.1, "warmup_epochs": 1}: a multiple of the rate.
    loss_fn: gets indices (b,) long on the CPU and the global step; returns a scalar or (scalar, {name: number}).
    drop_last: leave out the last incomplete batch, but only where n is at least one batch (as CoOp's loader does).
    clip_norm: largest gradient norm. repeats: optimiser steps per gradient, coop schedule alike (SoftCPT's release).
    schedule: one of those above, or a function (step, steps) -> rate. on_epoch: called after epochs, True stops.
    Returns the history, per epoch: {"loss": mean over the steps, ...other logged means, "lr": rate of the last step}.
    ValueError for a bad argument, FloatingPointError where the loss is no longer finite.
    """
    if not (callable(schedule) or schedule in SCHEDULES) or optimizer not in OPTIMIZERS:
        raise ValueError(f"schedule={schedule!r} must be in {SCHEDULES} and optimizer={optimizer!r} in {OPTIMIZERS}")
    for name, value in {"n": n, "batch_size": batch_size, "repeats": repeats, "epochs": epochs}.items():
        if not isinstance(value, int) or value < int(name != "epochs"):
            raise ValueError(f"{name}={value!r} must be a whole number >= {int(name != 'epochs')}")
    if not 0 < lr < math.inf:
        raise ValueError(f"lr={lr!r} must be a positive number")
    groups = [dict(p) if isinstance(p, dict) else {"params": [p]} for p in parameters]
    sgd = optimizer == "sgd"
    kind, own = (torch.optim.SGD, {"momentum": momentum}) if sgd else (torch.optim.AdamW, {"eps": eps})
    opt = kind(groups, lr=lr, weight_decay=weight_decay, **own)

    shuffle = torch.Generator().manual_seed(seed)
    per_epoch = n // batch_size if drop_last and n >= batch_size else math.ceil(n / batch_size)
    steps, step, history = epochs * per_epoch, 0, defaultdict(list)
    for epoch in tqdm(range(epochs), desc="epochs", disable=not progress):
        batches, sums = torch.randperm(n, generator=shuffle).split(batch_size)[:per_epoch], defaultdict(float)
        for indices in batches:
            cosine = 0.5 * lr * (1 + math.cos(math.pi * step / steps))
            for group in opt.param_groups:
                coop = coop_lr(repeats * epoch, epochs, lr, group.get("warmup_epochs", warmup_epochs), warmup_lr)
                named = {"coop": coop, "cosine_per_step": cosine, "constant": lr}
                now = schedule(step, steps) if callable(schedule) else named[schedule]
                group["lr"] = now * group.get("lr_scale", 1.0)
            with torch.enable_grad():
                out = loss_fn(indices, step)
                loss, extra = out if isinstance(out, tuple) else (out, {})
                opt.zero_grad()
                loss.backward()
            if clip_norm is not None:
                torch.nn.utils.clip_grad_norm_([t for group in groups for t in group["params"]], clip_norm)
            for _ in range(repeats):
                opt.step()
            for name, value in {"loss": loss, **extra}.items():
                sums[name] += (value.item() if isinstance(value, torch.Tensor) else value) / len(batches)
            if not math.isfinite(sums["loss"]):
                raise FloatingPointError(f"the loss is {loss.item()} in epoch {epoch} (lr={now:g}): try a smaller lr")
            step += 1
        for name, value in {**sums, "lr": now}.items():
            history[name].append(value)
        if on_epoch is not None and on_epoch(epoch, history):
            break
    return dict(history)

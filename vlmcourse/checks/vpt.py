"""Checks of notebooks/3_text_prompts/07_vpt.ipynb: sampled shifts, the objective, the KL term."""

import math

import torch

from vlmcourse.checks.report import attempt, close, report


def check_shifts(function) -> bool:
    """function: (mean (1, D), log_var (1, D), noise (S, 1, D)) -> r (S, 1, D), differentiable in mean and log_var."""
    generator = torch.Generator().manual_seed(0)
    mean, log_var = (torch.randn(1, 5, generator=generator).requires_grad_() for _ in range(2))
    noise = torch.randn(3, 1, 5, generator=generator)
    value, problem = attempt(function, mean, log_var, noise)
    if problem:
        return report(False, "", problem)
    expected = mean + (0.5 * log_var).exp() * noise
    if not isinstance(value, torch.Tensor) or value.shape != expected.shape:
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        return report(False, "", f"expected one shift per sample, (S, 1, D) = {tuple(expected.shape)}, got {got}")
    if not close(value, expected):
        hint = "expected mean + sigma * noise, with sigma the square root of exp(log_var)"
        if close(value, mean + log_var.exp() * noise):
            hint = "exp(log_var) is the variance; the noise is multiplied by its square root, exp(log_var / 2)"
        elif close(value, mean + log_var * noise):
            hint = "log_var is a logarithm: sigma = exp(log_var / 2)"
        elif close(value, (0.5 * log_var).exp() * noise):
            hint = "the mean is missing"
        return report(False, "", hint)
    if not value.requires_grad or any(g is None or not g.abs().sum() for g in _gradients(value, mean, log_var)):
        return report(False, "", "no gradient reaches mean and log_var: do not detach, and do not draw with .sample()")
    return report(True, "the noise stands outside, so the gradient reaches mu and sigma (reparameterisation)", "")


def _gradients(value, *inputs):
    return torch.autograd.grad(value.square().sum(), inputs, allow_unused=True)


def check_objective(function) -> bool:
    """function: (log_p (S, B, C), labels (B,)) -> scalar: mean over images of -log of the mean likelihood."""
    log_p = (2 * torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(1))).log_softmax(dim=-1)
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    cases = [(log_p, labels), (log_p - 200, labels)]  # the second: exp() of these is 0 in float32
    for case, (given, y) in enumerate(cases):
        value, problem = attempt(function, given.clone(), y.clone())
        if problem:
            return report(False, "", problem)
        own = given[:, torch.arange(len(y)), y]  # (S, B)
        expected = -(own.logsumexp(dim=0) - math.log(len(given))).mean()
        if close(value, expected):
            continue
        hint = "pick log p_l(y_b), take logsumexp over the samples minus log S, then minus the mean over the images"
        if close(value, -own.mean()):
            hint = "this is the mean of the logarithms (the textbook ELBO); VPT takes the logarithm of the mean"
        elif close(value, -own.logsumexp(dim=0).mean()):
            hint = "minus log S is missing: logsumexp sums the S likelihoods, but you want their mean"
        elif close(value, -expected):
            hint = "the sign is wrong: this is a loss, so smaller must mean more likely labels"
        elif case == 1:
            hint = "with very unlikely labels exp() becomes 0: stay with logarithms and use torch.logsumexp"
        return report(False, "", hint)
    return report(True, "the logarithm of the mean likelihood, without underflow", "")


def check_kl(function) -> bool:
    """function: (mean (1, D), log_var (1, D)) -> scalar: KL(N(mean, exp(log_var)) || N(0, 1)), the mean over D."""
    generator = torch.Generator().manual_seed(2)
    for mean, log_var in ((torch.zeros(1, 4), torch.zeros(1, 4)), torch.randn(2, 1, 4, generator=generator).unbind()):
        value, problem = attempt(function, mean.clone(), log_var.clone())
        if problem:
            return report(False, "", problem)
        per_dimension = 0.5 * (mean**2 + log_var.exp() - 1 - log_var)
        expected = per_dimension.mean()
        value = value.reshape(()) if isinstance(value, torch.Tensor) and value.numel() == 1 else value
        if close(value, expected):
            continue
        hint = "per dimension: half of mean² + variance - 1 - log variance; check each of the four terms"
        if close(value, per_dimension.sum()):
            hint = "this is the sum over the D dimensions; the official code takes the mean"
        elif close(value, 2 * expected):
            hint = "the factor 1/2 is missing"
        elif not abs(float(expected)) and not close(value, 0.0):
            hint = "at mean 0 and log-variance 0 the posterior is the prior, so the KL must be 0"
        return report(False, "", hint)
    return report(True, "zero at the prior, positive elsewhere", "")

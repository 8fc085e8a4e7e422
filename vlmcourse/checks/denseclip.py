"""Checks of notebooks/3_text_prompts/13_denseclip.ipynb: the loss on the score maps, texts that look at the image."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def check_score_loss(function) -> bool:
    """function: (scores (B, C, h, w), labels (B, H, W), tau) -> cross-entropy of the enlarged maps, 255 ignored."""
    draw = torch.Generator().manual_seed(0)
    scores = torch.rand(2, 3, 4, 4, generator=draw) * 2 - 1
    labels = torch.randint(0, 3, (2, 8, 8), generator=draw)
    labels[:, :, :2] = 255
    value, problem = attempt(function, scores.clone().requires_grad_(), labels.clone(), 0.07)
    if problem:
        return report(False, "", problem)
    big = F.interpolate(scores, size=(8, 8), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(big / 0.07, labels, ignore_index=255)
    hint = "enlarge the maps to the labels' size (bilinear), divide by tau, cross-entropy with ignore_index=255"
    if close(value, F.cross_entropy(big, labels, ignore_index=255)):
        hint = "divide by tau: cosines alone are too close to each other to make a sharp softmax"
    elif close(value, F.cross_entropy(big * 0.07, labels, ignore_index=255)):
        hint = "divide by tau, do not multiply"
    elif close(value, F.cross_entropy(F.interpolate(scores, size=(8, 8)) / 0.07, labels, ignore_index=255)):
        hint = "enlarge bilinearly: mode='bilinear'"
    passed = close(value, expected)
    if passed and not getattr(value, "requires_grad", False):
        passed, hint = False, "no gradient can reach the maps: return a tensor, without item() or detach()"
    return report(passed, "every pixel is asked which text fits it", hint)


def check_context_aware(function) -> bool:
    """function: (text (C, E), delta (B, C, E), gamma (E,)) -> unit texts per image (B, C, E)."""
    draw = torch.Generator().manual_seed(1)
    text, delta = torch.randn(3, 5, generator=draw), torch.randn(2, 3, 5, generator=draw)
    gamma = torch.rand(5, generator=draw)
    value, problem = attempt(function, text.clone(), delta.clone(), gamma.clone())
    if problem:
        return report(False, "", problem)
    expected = F.normalize(text + gamma * delta, dim=-1)
    hint = "expected normalise(text + gamma * delta), shape (B, C, E)"
    if close(value, text + gamma * delta):
        hint = "the texts must be unit vectors again before they are compared with pixels"
    elif close(value, F.normalize(gamma * delta, dim=-1)):
        hint = "delta is a correction: it is added to the text"
    elif close(value, F.normalize(text + delta, dim=-1)):
        hint = "gamma scales the correction, channel by channel"
    return report(close(value, expected), "the text stays, the image moves it a little", hint)

"""VPT: Bayesian Prompt Learning for Image-Language Model Generalization, Derakhshani et al., ICCV 2023, arXiv
2210.02390 (first called "Variational prompt learning"; not Visual Prompt Tuning). CoOp with a random shift.

    q(r) = N(mu, sigma^2)                   r (D,): one shift for all M tokens and all classes; prior p(r) = N(0, I)
           unconditional: mu, log sigma^2 (1, D) are learned; conditional: two networks of f, E -> E/2 -> E/2 -> D, ELU
    r_l  = mu + sigma * eps_l               eps_l ~ N(0, I), l = 1 ... S (the paper's L)
    p_l(y | x) = softmax(s f W(v + r_l)^T)  (S, B, C), one prompt per sample; v (M, D) is learned as in CoOp
    loss = -log (1/S sum_l p_l(y | x)) + beta KL(q || p)            beta = 0.001
    KL   = 1/2 mean_d (mu^2 + sigma^2 - 1 - log sigma^2)            the mean, not the sum, over the D dimensions
    prediction: log (1/S sum_l p_l(c | x)), the logarithm of the mean of S sampled classifiers' probabilities

The loss is the official code's: the logarithm of the mean likelihood. objective="elbo" takes the textbook's mean of the
log-likelihoods, which is never smaller (Jensen). In the official code the parameter called std_posterior is the log of
the variance, from U(0, 1) at the start, so sigma is 1 to 1.65 there: many times the size of a token embedding.
`prior_std` scales prior and start (p(r) = N(0, prior_std^2 I)); 1 is the paper's. Test samples are drawn once from the
seed and shared by all images (the official code draws anew for each batch), so predictions are reproducible.
"""

import copy
import math

import torch
from torch import nn

from vlmcourse.methods.base import MethodCard, register
from vlmcourse.methods.meta_net import MetaNet
from vlmcourse.methods.text_prompts.coop import CoOp

PROMPTS_AT_ONCE = 4096  # prompts S b C that the conditional form encodes together when it predicts
OBJECTIVES = ("marginal", "elbo")


class SharedPosterior(nn.Module):
    """Unconditional q(r): the same mean and log-variance (1, D) for all images."""

    def __init__(self, width, seed):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1, width))
        self.log_var = nn.Parameter(torch.rand(1, width, generator=torch.Generator().manual_seed(seed)))

    def forward(self, features):
        """(1, D), (1, D)."""
        return self.mean, self.log_var


class ImagePosterior(nn.Module):
    """Conditional q(r | x): mean and log-variance (b, D) by two networks of the normalised image feature (b, E)."""

    def __init__(self, embed_dim, width, seed, zero_start):
        super().__init__()
        hidden, options = (embed_dim // 2, embed_dim // 2), {"activation": nn.ELU, "zero_start": zero_start}
        self.mean = MetaNet(embed_dim, width, hidden, seed=2 * seed, **options)
        self.log_var = MetaNet(embed_dim, width, hidden, seed=2 * seed + 1, **options)

    def forward(self, features):
        """features (b, E) -> (b, D), (b, D)."""
        return self.mean(features), self.log_var(features)


def kl_divergence(mean, log_var, prior_std=1.0):
    """KL(N(mean, sigma^2) || N(0, prior_std^2)) averaged over the last axis; sigma^2 = prior_std^2 exp(log_var)."""
    return 0.5 * ((mean / prior_std) ** 2 + log_var.exp() - 1 - log_var).mean(dim=-1)


@register
class VPT(CoOp):
    """conditional: q(r | x) instead of q(r). samples: S in training; test_samples: S at prediction (None: the same).
    kl_weight: beta. objective: "marginal" or "elbo". prior_std: see above. zero_start: the networks of the conditional
    form begin at mu = 0, log sigma^2 = 0 instead of PyTorch's start. ctx_init: None begins at noise, with n_ctx tokens.
    batch_size and epochs are the paper's (10, 20, 40 or 60 epochs, by data set). The rest as in CoOp."""

    card = MethodCard(
        name="vpt",
        title="Bayesian Prompt Learning for Image-Language Model Generalization",
        venue="ICCV",
        year=2023,
        url="https://arxiv.org/abs/2210.02390",
        family="text prompt",
        setup="few-shot supervised",
        learned="context vectors (M, D); mean and variance of a shift (D,), or two networks for them",
        idea="Learn a distribution over prompts instead of one prompt, and average the predictions of samples from it.",
        acts_on="text input",
        needs="inputs",
    )

    def __init__(
        self,
        backbone,
        *,
        conditional=False,
        samples=10,
        test_samples=None,
        kl_weight=0.001,
        objective="marginal",
        prior_std=1.0,
        zero_start=False,
        ctx_init="a photo of a",
        batch_size=1,
        epochs=10,
        **coop,
    ):
        super().__init__(backbone, ctx_init=ctx_init, batch_size=batch_size, epochs=epochs, **coop)
        if self.csc:
            raise ValueError("csc=True is not possible: one shift serves the context of all classes")
        for name, count in (("samples", samples), ("test_samples", samples if test_samples is None else test_samples)):
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ValueError(f"{name}={count!r} must be a whole number >= 1")
        if objective not in OBJECTIVES:
            raise ValueError(f"objective={objective!r} must be one of {OBJECTIVES}")
        if not 0 <= kl_weight < math.inf or not 0 < prior_std < math.inf:
            raise ValueError(f"kl_weight={kl_weight!r} must be a number >= 0 and prior_std={prior_std!r} a number > 0")
        self.conditional, self.samples, self.test_samples = conditional, samples, test_samples or samples
        self.kl_weight, self.objective, self.prior_std, self.zero_start = kl_weight, objective, prior_std, zero_start

    def _fit(self, train, val):
        E, D = self.backbone.embed_dim, self.backbone.text_width
        if self.conditional:
            posterior = ImagePosterior(E, D, self.seed, self.zero_start)
        else:
            posterior = SharedPosterior(D, self.seed)
        self.posterior = posterior.to(self.backbone.device)
        self.draw = torch.Generator().manual_seed(self.seed + 2_000_003)  # of the training samples
        self.noise = self._noise(self.test_samples, self.seed)
        super()._fit(train, val)

    def _parameters(self):
        return [*super()._parameters(), *self.posterior.parameters()]

    def _noise(self, samples, seed):
        """(S, 1, D) standard normal draws for prediction, the same for all images."""
        generator = torch.Generator().manual_seed(seed + 3_000_017)
        return torch.randn(samples, 1, self.backbone.text_width, generator=generator).to(self.backbone.device)

    def _loss(self, features, labels):
        mean, log_var = self.posterior(features)  # (1 or b, D)
        noise = torch.randn(self.samples, *mean.shape, generator=self.draw).to(mean.device)
        log_p = self._log_p(features, self.sampled_text(mean, log_var, noise))  # (S, b, C)
        of_label = log_p[:, torch.arange(len(labels), device=labels.device), labels]  # (S, b)
        fit = log_mean_exp(of_label) if self.objective == "marginal" else of_label.mean(dim=0)  # (b,)
        nll, kl = -fit.mean(), kl_divergence(mean, log_var, self.prior_std).mean()
        return nll + self.kl_weight * kl, {"nll": nll, "kl": kl}

    def sampled_text(self, mean, log_var, noise):
        """(S, 1 or b, C, E) class features of prompts shifted by r = mean + sigma noise; noise (S, 1 or b, D)."""
        shift = mean + self.prior_std * (0.5 * log_var).exp() * noise  # (S, 1 or b, D)
        return self.prompts.encode(self.ctx + shift[:, :, None, None], share_prefix=self.share_prefix)

    def text_features(self):
        """(S, 1, C, E) class features of the test samples; None in the conditional form, where they depend on x."""
        return None if self.conditional else self.sampled_text(*self.posterior(None), self.noise)

    def _log_p(self, features, text):
        """(S, b, C) log-probabilities; features (b, E), text (S, 1 or b, C, E)."""
        text = text.to(features)
        if text.shape[1] == 1:  # the same prompts for all images
            cosines = features @ text.squeeze(1).mT
        else:
            cosines = torch.einsum("be,sbce->sbc", features, text)
        return (self.backbone.logit_scale * cosines).log_softmax(dim=-1)

    def _freeze(self):
        self.posterior.requires_grad_(False)
        super()._freeze()

    @torch.no_grad()
    def each_sample(self, x):
        """(S, B, C) log-probabilities, one classifier per sampled prompt; x as in logits."""
        self._require_fit()
        return self._each(self.inputs(x))

    def _each(self, features):
        if not self.conditional:
            return self._log_p(features, self.text)
        parts, rows = [], max(1, PROMPTS_AT_ONCE // (len(self.noise) * len(self.class_names)))
        for f in features.split(rows):  # every image has prompts of its own
            parts.append(self._log_p(f, self.sampled_text(*self.posterior(f), self.noise)))
        return torch.cat(parts, dim=1)

    def _logits(self, features):
        return log_mean_exp(self._each(features))

    def resampled(self, samples, seed):
        """The same fitted posterior with other test samples, drawn from another seed."""
        self._require_fit()
        twin = copy.copy(self)
        twin.noise = self._noise(samples, seed)
        twin._freeze()
        return twin

    def learned_parameters(self):
        if not self._fitted:
            return {}
        return super().learned_parameters() | {n: p.detach() for n, p in self.posterior.named_parameters()}


def log_mean_exp(log_p):
    """log of the mean over the first axis (S, ...) of exp(log_p): (...)."""
    return log_p.logsumexp(dim=0) - math.log(len(log_p))

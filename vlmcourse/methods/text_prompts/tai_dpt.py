"""TaI-DPT: Texts as Images in Prompt Tuning for Multi-Label Image Recognition, Guo et al., CVPR 2023, arXiv 2211.12739.

Image and text features share a space, so sentences stand in for training images: their labels are the classes they name
(nouns.py), prompts are fitted to text alone, and images come at the test. Two contexts: for the whole (global) and for
the parts (local).

    train   u_l (l, E)   features of all tokens of a caption, g = u_EOT
    test    u_i (N, E)   features of the regions of an image, g that of the whole image              (regions.py)
    G, L (C, E)          class texts under the global and the local context (M, D) each, shared by all classes
    z^g_c = 4 cos(g, G_c)          z^l_c = 4 sum_l a_cl cos(u_l, L_c),  a_c = softmax_l(beta cos(u_l, L_c))
    R(z)  = mean over captions of sum_{i named, j not} max(0, 1 - z_i + z_j)
    loss  = R(z^g) + R(z^l)        score = (z^g + z^l) / 2

The scale is 4 and not CLIP's 100: a margin of 1 is a gap of 0.25 between cosines. beta is 50 for captions, 40 for
images (4 for NUS-WIDE). SOS and EOT are among the tokens, padding is not. To the captions that name a class come, for
each class alone, 9 copies of "a photo of a {}." and 80 templates (here: the 34 of class_text.py). With image-trained
prompts the scores are merged: both matrices scaled to 0 ... 1 by their extremes, then (1 - r) TaI-DPT + r other
(`merge_scores`).

Recipe: RN50 at 224, 118,287 captions of COCO, batch 512, SGD 1e-4 (VOC, COCO) or 1e-3 (NUS-WIDE), 20 epochs. For the
whole image the ResNet's pool runs without its positions, as in the official code. Departures: the official code selects
the epoch on test images, here the last one counts; a ViT's regions are windows. Captions: those of this world
(world/corpus.py), unless others are given; too long ones are left out.
"""

import torch
from torch import Tensor

from vlmcourse import training
from vlmcourse.backbone.features import LARGEST
from vlmcourse.methods.base import MethodCard, full_precision, register
from vlmcourse.methods.class_text import GENERAL_TEMPLATES, check_templates, readable
from vlmcourse.methods.context import ClassPrompts, random_context, words_context
from vlmcourse.methods.multi_label import MultiLabelMethod, cosines
from vlmcourse.methods.nouns import read_labels
from vlmcourse.methods.regions import pool_regions
from vlmcourse.world.corpus import concept_corpus, scene_corpus

SCALE = 4.0
TEST_BATCH = 256
BRANCHES = ("both", "global", "local")


def ranking_loss(scores: Tensor, labels: Tensor, margin: float = 1.0) -> Tensor:
    """R above. scores (B, C), labels (B, C) of 1 and 0; rows without a positive or a negative give 0."""
    gaps = (margin - scores[:, :, None] + scores[:, None, :]).clamp(min=0)  # (B, C, C): named i, not named j
    pairs = (labels[:, :, None] == 1) & (labels[:, None, :] == 0)
    return (gaps * pairs).sum() / len(scores)


def merge_scores(tai: Tensor, other: Tensor, weight: float = 0.9) -> Tensor:
    """(1 - weight) tai + weight other, each (N, C) scaled to 0 ... 1 by its own extremes first.

    0.9 with partial labels, 0.6 with few shots. The extremes are those of all images given: a merged score depends on
    the other images, its order within a class on nothing but the ratio of the two ranges.
    """
    if tai.shape != other.shape:
        raise ValueError(f"scores must have one shape, got {tuple(tai.shape)} and {tuple(other.shape)}")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight={weight!r} must be between 0 and 1")
    scaled = [(s - s.min()) / (s.max() - s.min()).clamp(min=1e-12) for s in (tai, other)]
    return (1 - weight) * scaled[0] + weight * scaled[1]


@register
class TaIDPT(MultiLabelMethod):
    """n_ctx: M. ctx_init: words for both contexts in place of noise. captions: a list of sentences; None: the corpus of
    this world, n_captions of scenes and all of single concepts. synonyms: {class: words}, see nouns.py. templates,
    template_copies: sentences with one class alone, and the copies of the first. spatial_scale (captions),
    spatial_scale_images: beta. branch: "both", or one of the two at the test. Of the split given to fit only the class
    names are used; `captions_kept` counts the captions that name a class, templates not among them."""

    gives_probabilities = False
    card = MethodCard(
        name="tai_dpt",
        title="Texts as Images in Prompt Tuning for Multi-Label Image Recognition",
        venue="CVPR",
        year=2023,
        url="https://arxiv.org/abs/2211.12739",
        family="text prompt",
        setup="multi-label, from captions alone",
        learned="a global and a local context (M, D) each",
        idea="Learn prompts from sentences as if they were images: the classes a caption names are its labels.",
        acts_on="text input",
        needs="internals",
    )

    def __init__(
        self,
        backbone,
        *,
        n_ctx=16,
        ctx_init=None,
        captions=None,
        n_captions=12000,
        synonyms=None,
        templates=("a photo of a {}.", *GENERAL_TEMPLATES),
        template_copies=9,
        epochs=20,
        lr=1e-4,
        batch_size=512,
        momentum=0.9,
        weight_decay=5e-4,
        warmup_epochs=1,
        init_std=0.02,
        margin=1.0,
        spatial_scale=50.0,
        spatial_scale_images=40.0,
        branch="both",
        path=None,
        seed=0,
        progress=False,
    ):
        super().__init__(backbone, path=path, positions=False, seed=seed, progress=progress)
        if branch not in BRANCHES:
            raise ValueError(f"branch={branch!r} must be one of {BRANCHES}")
        for name, value, least in (
            ("n_ctx", n_ctx, 1),
            ("n_captions", n_captions, 0),
            ("template_copies", template_copies, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r} must be a whole number >= {least}")
        for name, value in (
            ("spatial_scale", spatial_scale),
            ("spatial_scale_images", spatial_scale_images),
            ("margin", margin),
        ):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value!r} must be a number >= 0")
        if isinstance(captions, str):
            raise ValueError(f"captions={captions!r} must be a list of sentences")
        self.start = None if ctx_init is None else words_context(backbone, ctx_init)
        self.n_ctx, self.init_std = n_ctx if self.start is None else len(self.start), init_std
        self.captions, self.n_captions, self.synonyms = captions, n_captions, synonyms
        self.own_templates = check_templates(templates) if templates else ()
        self.template_copies, self.margin, self.branch = template_copies, margin, branch
        self.spatial_scale, self.spatial_scale_images = spatial_scale, spatial_scale_images
        self.recipe = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "momentum": momentum,
                       "weight_decay": weight_decay, "warmup_epochs": warmup_epochs}  # fmt: skip

    def training_text(self, class_names):
        """(sentences, labels (n, C), how many of them are captions): captions that name a class, then templates."""
        captions = self.captions
        if captions is None:
            captions = concept_corpus() + (scene_corpus(self.n_captions, self.seed) if self.n_captions else [])
        captions, room = list(dict.fromkeys(captions)), self.backbone.context_length - 2
        labels = read_labels(captions, class_names, self.synonyms)
        kept = [
            i for i in labels.any(dim=1).nonzero().squeeze(1).tolist()
            if len(self.backbone.tokenizer.encode(captions[i])) <= room
        ]  # fmt: skip
        captions, labels = [captions[i] for i in kept], labels[kept]
        single = self.own_templates[:1] * (self.template_copies - 1) * bool(self.template_copies) + self.own_templates
        sentences = [t.replace("{}", readable(name)) for name in class_names for t in single]
        alone = torch.eye(len(class_names), dtype=torch.long).repeat_interleave(len(single), dim=0)
        if not captions and not sentences:
            raise ValueError("captions: none of them names a class, and there are no templates")
        return captions + sentences, torch.cat([labels, alone]), len(captions)

    def _fit(self, train, val):
        sentences, labels, self.captions_kept = self.training_text(self.class_names)
        self.prompts = ClassPrompts(self.backbone, self.class_names, self.n_ctx)
        self.ctx = []
        for i in range(2):
            noise = random_context(self.backbone, self.n_ctx, seed=2 * self.seed + i, std=self.init_std)
            self.ctx.append((noise if self.start is None else self.start).clone().requires_grad_())
        labels, tokens = labels.to(self.backbone.device), _Tokens(self.backbone, sentences)

        def loss(indices, step):
            features, ends = tokens(indices)
            whole, parts = self._branches(features, ends, self.text_features(), self.spatial_scale)
            losses = {"global": ranking_loss(whole, labels[indices], self.margin),
                      "local": ranking_loss(parts, labels[indices], self.margin)}  # fmt: skip
            return sum(losses.values()), losses

        self.history = training.fit(
            self.ctx, loss, len(sentences), seed=self.seed, progress=self.progress, **self.recipe
        )
        self._freeze()

    @torch.no_grad()
    def _freeze(self):
        self.ctx = [ctx.detach() for ctx in self.ctx]
        self.text = self.text_features()

    def text_features(self):
        """(2, C, E) L2-normalised class texts, global and local; differentiable with respect to the contexts."""
        return self.prompts.encode(torch.stack(self.ctx).unsqueeze(1))  # contexts (2, 1, M, D)

    def _branches(self, tokens, ends, text, scale):
        """z^g, z^l (B, C) of captions: token features (B, l, E), end tokens (B,), class texts (2, C, E)."""
        whole = tokens[torch.arange(len(tokens), device=tokens.device), ends]
        mask = torch.arange(tokens.shape[1], device=tokens.device) <= ends[:, None]
        parts, _ = pool_regions(cosines(tokens, text[1]), scale, mask=mask)
        return SCALE * whole @ text[0].to(whole).T, SCALE * parts

    def _image_branches(self, features):
        parts, weights = pool_regions(cosines(features[:, 1:], self.text[1]), self.spatial_scale_images)
        return SCALE * features[:, 0] @ self.text[0].to(features).T, SCALE * parts, weights

    def _logits(self, features):
        scores = []
        for part in features.split(TEST_BATCH):
            whole, parts, _ = self._image_branches(part)
            scores.append({"both": (whole + parts) / 2, "global": whole, "local": parts}[self.branch])
        return torch.cat(scores)

    @torch.no_grad()
    def caption_scores(self, sentences):
        """(B, C): what an image gets, for captions: the training's own view of them."""
        self._require_fit()
        tokens, ends = self.backbone.encode_text_tokens(list(sentences))
        whole, parts = self._branches(full_precision(tokens), ends, self.text, self.spatial_scale)
        return {"both": (whole + parts) / 2, "global": whole, "local": parts}[self.branch]

    @torch.no_grad()
    def attention(self, x):
        """(B, C, N): how much the local branch looks at each region; sums to 1."""
        self._require_fit()
        return self._image_branches(self.inputs(x))[2]

    def for_classes(self, class_names, templates=None):
        moved = self._moved(class_names, templates)
        moved.prompts = ClassPrompts(moved.backbone, moved.class_names, moved.n_ctx)
        moved._freeze()
        return moved

    def learned_parameters(self):
        return dict(zip(("ctx_global", "ctx_local"), self.ctx, strict=True)) if self._fitted else {}


class _Tokens:
    """tokens(indices) -> features (b, l, E) and ends (b,): encoded once if they fit into memory, else batch by
    batch."""

    def __init__(self, backbone, sentences):
        self.backbone, self.sentences, self.all = backbone, sentences, None
        length = max(len(backbone.tokenizer.encode(text)) for text in sentences) + 2
        if 4 * len(sentences) * length * backbone.embed_dim <= LARGEST:
            self.all = self._encode(sentences)

    @torch.no_grad()
    def _encode(self, sentences):
        tokens, ends = self.backbone.encode_text_tokens(sentences)
        return full_precision(tokens), ends

    def __call__(self, indices):
        if self.all is None:
            return self._encode([self.sentences[i] for i in indices])
        return tuple(part[indices] for part in self.all)

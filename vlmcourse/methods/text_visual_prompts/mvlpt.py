"""MVLPT: Multitask Vision-Language Prompt Tuning, Shen, Yang, Zhang, Zhai, Gonzalez, Keutzer, Darrell, WACV 2024,
arXiv 2211.11720. A way of training, for three kinds of prompts:

    coop   ctx (M, D)       text prompts [SOS | ctx[:M/2] | name_c | ctx[M/2:] . EOT], as CoOp's in the middle
    vpt    P_0 ... P_{J-1}  (J, M, Dv)  deep visual prompts behind ln_pre, as VPT; hand-written text
    upt    both, coupled:   E  = [ctx A_t + a_t ; P A_v + a_v]         (M + J M, 128)
                            E' = Block(E)        one pre-norm transformer block, one head, hidden width 512
                            ctx' = E'[:M] B_t + b_t,   P' = E'[M:] B_v + b_v       no residual around the coupling

    source stage   one prompt for many tasks: logits = s f W^T over the classes of all tasks together, CE; a batch
                   comes from the pool of their images, so a task counts by its number of images
    adaptation     `source=`: a target task (or a group of tasks) starts from that prompt instead of noise

`MVLPT(...).fit_tasks({"a": train_a, "b": train_b})` is the source stage or joint tuning of a group of tasks,
`for_task("a")` the classifier of one of them (its columns of the logits), `MVLPT(..., source=fitted).fit(train)` the
adaptation. A list of fitted sources is averaged, number by number, as the release averages its three seeds.

Release and this file: there the coupling's attention mixes nothing (see prompt_attention.py), `release_compat=True`.
label_per_task restricts the softmax to the image's own task; the release has it too, off, with logits of 0 in place of
-inf for the other classes. Its "mlp" coupling cannot run as written (a misspelt GELU); here it does. Its vision loop
skips blocks that have no prompts of their own; here `depth` < L runs all of them. One class name in two tasks makes two
competing columns, there and here. Recipe: M = 16 (coop, vpt) or 4 (upt), SGD 0.002 as in CoOp, 200 epochs, batch 32,
20 shots, ViT-B/16; the epoch that is best on the validation images is kept.
"""

from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.backbone.features import POOLED
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.base import MethodCard, register
from vlmcourse.methods.class_text import class_features
from vlmcourse.methods.context import ClassPrompts, random_context
from vlmcourse.methods.multitask import MultiTask, by_task
from vlmcourse.methods.prompt_attention import PromptCoupling, dropped, seeded
from vlmcourse.methods.vision_prompts import TOKENS, encode_prompted, uniform_prompts

PROMPTS, COUPLINGS, FINAL = ("upt", "coop", "vpt"), ("transformer", "mlp", "identity"), ("best_val", "last")
TEST_BATCH = 256  # images that pass the prompted tower at once outside of training


@register
class MVLPT(MultiTask):
    """prompts: "upt", "coop" or "vpt". n_ctx: M; None takes the paper's. depth: J layers with visual prompts; None:
    all. coupling (of "upt"): "transformer", "mlp" (a GELU in its place) or "identity" (none). source: a fitted MVLPT,
    or a list of them, to start from. final_model: "best_val" keeps the epoch with the best mean accuracy on the
    validation splits (the last one where there are none), "last" the last. dropout: of the visual prompts.
    release_compat, label_per_task: see above. views: see augment.TrainingFeatures."""

    card = MethodCard(
        name="mvlpt",
        title="Multitask Vision-Language Prompt Tuning",
        venue="WACV",
        year=2024,
        url="https://arxiv.org/abs/2211.11720",
        family="text-visual prompt",
        setup="few-shot supervised, several tasks together",
        learned="text context (M, D), visual prompts (J, M, Dv) and their coupling, shared by all tasks",
        idea="Learn one prompt on many tasks, then start every new task from it, or tune related tasks together.",
        acts_on="text and image input",
        needs="internals",
    )

    def __init__(
        self, backbone, *, prompts="upt", n_ctx=None, depth=None, coupling="transformer", coupling_dim=128,
        class_token_position="middle", source=None, final_model="best_val", label_per_task=False, release_compat=False,
        dropout=0.0, epochs=200, lr=2e-3, batch_size=32, momentum=0.9, weight_decay=5e-4, warmup_epochs=1,
        init_std=0.02, views=1, crop_scale=(0.08, 1.0), task_name=None, seed=0, progress=False,
    ):  # fmt: skip
        super().__init__(backbone, task_name=task_name, seed=seed, progress=progress)
        for name, value, allowed in (
            ("prompts", prompts, PROMPTS),
            ("coupling", coupling, COUPLINGS),
            ("final_model", final_model, FINAL),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r} must be one of {allowed}")
        n_ctx = {"upt": 4, "coop": 16, "vpt": 16}[prompts] if n_ctx is None else n_ctx
        for name, value in (("n_ctx", n_ctx), ("coupling_dim", coupling_dim)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number >= 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout!r} must be at least 0 and less than 1")
        self.encoder = POOLED if prompts == "coop" else TOKENS
        if prompts != "coop":
            backbone.require_vit(f"MVLPT with prompts={prompts!r}")
            layers = len(backbone.model.visual.transformer.resblocks)
            depth = layers if depth is None else depth
            if not isinstance(depth, int) or not 1 <= depth <= layers:
                raise ValueError(f"depth={depth!r} must be a whole number from 1 to the tower's {layers}, or None")
        sources = source if isinstance(source, list | tuple) else [] if source is None else [source]
        for one in sources:
            if not isinstance(one, MVLPT) or not one._fitted or one.prompts_kind != prompts:
                raise ValueError(f"source={one!r} must be an MVLPT fitted with prompts={prompts!r}, or a list of them")
        self.prompts_kind, self.n_ctx, self.depth, self.coupling_kind = prompts, n_ctx, depth, coupling
        self.coupling_dim, self.class_token_position, self.final_model = coupling_dim, class_token_position, final_model
        self.label_per_task, self.release_compat, self.dropout = label_per_task, release_compat, dropout
        self.sources = [one.learned_parameters() for one in sources]
        self.epochs, self.init_std, self.views, self.crop_scale = epochs, init_std, views, crop_scale
        self.recipe = {"lr": lr, "batch_size": batch_size, "momentum": momentum, "weight_decay": weight_decay}
        self.recipe["warmup_epochs"] = warmup_epochs
        self.training = False  # True inside fit: visual prompts are then dropped at random

    def _fit_tasks(self, train, val):
        self.task_templates = {name: split.templates for name, split in train.items()}
        self._start()
        options = {"views": self.views, "crop_scale": self.crop_scale, "encoder": self.encoder}
        starts = enumerate(train.values(), start=self.seed)
        parts = [TrainingFeatures(self.backbone, split, seed=seed, **options) for seed, split in starts]
        sizes = [len(split) for split in train.values()]
        self.draw = torch.Generator().manual_seed(self.seed + 2_000_003)  # of the dropout

        def loss(indices, step):
            groups = by_task(indices, sizes)
            return self._loss([(t, parts[t](own), parts[t].labels[own]) for t, _, own in groups])

        learned = [tensor.requires_grad_() for tensor in self._parameters().values()]
        best, watch = {"accuracy": -1.0}, self.final_model == "best_val" and val
        held_out = {name: (self.inputs(split), split.labels) for name, split in val.items()} if watch else {}

        def after_epoch(epoch, history):
            if held_out:
                accuracy = self._mean_accuracy(held_out)
                history["val_accuracy"].append(accuracy)
                if accuracy > best["accuracy"]:  # the first of equals
                    best.update(accuracy=accuracy, learned=[tensor.detach().clone() for tensor in learned])

        self.training = True
        try:
            self.history = training.fit(
                learned, loss, sum(sizes), epochs=self.epochs, seed=self.seed, progress=self.progress,
                on_epoch=after_epoch, **self.recipe,
            )  # fmt: skip
        finally:
            self.training = False
        for tensor in learned:
            tensor.requires_grad_(False).grad = None
        for tensor, kept in zip(learned, best.get("learned", learned), strict=True):
            tensor.copy_(kept)
        self._freeze()

    def _start(self):
        """Prompts of the present classes, and where what is learned starts: noise, or the mean of the sources."""
        backbone, kind = self.backbone, self.prompts_kind
        self._read_classes()
        self.ctx = self.ctx_vision = self.coupling = None
        if kind != "vpt":
            self.ctx = random_context(backbone, self.n_ctx, seed=self.seed, std=self.init_std)  # (M, D)
        if kind != "coop":
            self.ctx_vision = uniform_prompts(backbone, self.depth, self.n_ctx, seed=self.seed + 1)  # (J, M, Dv)
        if kind == "upt" and self.coupling_kind != "identity":
            sizes = (backbone.text_width, backbone.vision_width, self.coupling_kind, self.coupling_dim)
            self.coupling = seeded(lambda: PromptCoupling(*sizes, mix=not self.release_compat), self.seed, backbone)
        own = self._parameters()
        shapes, *theirs = ({n: tuple(t.shape) for n, t in one.items()} for one in (own, *self.sources))
        if any(other != shapes for other in theirs):
            raise ValueError(f"source has parameters {theirs}, here are {shapes}: n_ctx, depth, coupling must be equal")
        if self.sources:
            for name, tensor in own.items():
                tensor.data = torch.stack([source[name].to(tensor) for source in self.sources]).mean(dim=0)

    def _read_classes(self):
        """What is frozen of the text: token embeddings of the prompts, or the features of hand-written ones."""
        if self.prompts_kind != "vpt":
            self.prompts = ClassPrompts(self.backbone, self.class_names, self.n_ctx, self.class_token_position)
        else:
            parts = [class_features(self.backbone, c, self.task_templates[name]) for name, c in self.tasks.items()]
            self.text = torch.cat(parts)  # (sum_t C_t, E)
        ends = list(accumulate(len(names) for names in self.tasks.values()))
        self.columns = [slice(a, b) for a, b in pairwise([0, *ends])]  # of each task in the logits

    def _parameters(self):
        own = {"ctx": self.ctx, "ctx_vision": self.ctx_vision}
        coupling = {} if self.coupling is None else {f"coupling.{n}": p for n, p in self.coupling.named_parameters()}
        return {name: tensor for name, tensor in own.items() if tensor is not None} | coupling

    def coupled_prompts(self):
        """ctx' (M, D) or None, and P' (J, M, Dv) or None: what the towers get; differentiable."""
        ctx, visual = self.ctx, self.ctx_vision
        if self.coupling is not None:
            ctx, visual = self.coupling(ctx, visual.flatten(0, 1))
            visual = visual.unflatten(0, (self.depth, self.n_ctx))
        return ctx, visual

    def _features(self, x, visual):
        """(b, E) of what `encoder` makes of images, with visual prompts (J, M, Dv) where there are some."""
        if visual is None:
            return x
        first, *deep = dropped(visual, self.dropout, self.draw) if self.training else visual
        return encode_prompted(self.backbone, x, first, dict(enumerate(deep, start=1)), before_ln_pre=False)

    def _loss(self, groups):
        """groups: [(task number, what the encoder makes of its images, labels (b_t,)), ...] of one batch."""
        ctx, visual = self.coupled_prompts()
        features = self._features(torch.cat([x for _, x, _ in groups]), visual)
        text = self.text if ctx is None else self.prompts.encode(ctx)
        logits = self.backbone.logit_scale * features @ text.to(features).T  # (b, sum_t C_t)
        if self.label_per_task:
            allowed = torch.zeros_like(logits, dtype=torch.bool)
            rows = torch.split(allowed, [len(own) for _, _, own in groups])
            for (t, _, _), part in zip(groups, rows, strict=True):
                part[:, self.columns[t]] = True
            logits = logits.masked_fill(~allowed, -torch.inf)
        labels = torch.cat([own + self.columns[t].start for t, _, own in groups])
        return F.cross_entropy(logits, labels)

    @torch.no_grad()
    def _mean_accuracy(self, held_out):
        """Mean over tasks {name: (inputs, labels)} of the accuracy among the task's own classes, in [0, 1]."""
        self.training = False
        self._freeze()
        scores = []
        for name, (x, labels) in held_out.items():
            own = self._logits(x)[:, self.columns[list(self.tasks).index(name)]].argmax(dim=-1)
            scores.append((own.cpu() == labels).double().mean().item())
        self.training = True
        return sum(scores) / len(scores)

    @torch.no_grad()
    def _freeze(self):
        ctx, self.visual = self.coupled_prompts()
        if ctx is not None:
            self.text = self.prompts.encode(ctx)  # (sum_t C_t, E)

    def _logits(self, x):
        features = torch.cat([self._features(part, self.visual) for part in x.split(TEST_BATCH)])
        return self.backbone.logit_scale * features @ self.text.to(features).T

    def for_classes(self, class_names, templates=None):
        """The one prompt on any classes, of a fitted task or not. templates: for hand-written text ("vpt") only."""
        moved = self._moved(class_names, templates)
        name = self.task or "new classes"
        moved.tasks, moved.task, moved._columns = {name: moved.class_names}, name, None
        own = self.task_templates.get(name, self.templates) if templates is None else moved.templates
        moved.templates, moved.task_templates = own, {name: own}
        moved._read_classes()
        moved._freeze()
        return moved

    def learned_parameters(self):
        return {name: tensor.detach() for name, tensor in self._parameters().items()} if self._fitted else {}

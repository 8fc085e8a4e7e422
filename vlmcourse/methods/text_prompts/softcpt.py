"""SoftCPT: Prompt Tuning with Soft Context Sharing for Vision-Language Models, Ding et al., arXiv 2208.13474 (2022); as
"Multi-task prompt tuning with soft context sharing ...", Neurocomputing 603:128290, 2024.

Several few-shot tasks t are learned together. A task's context is computed from its name by a network that all share:

    F_t    = Text([u_1 ... u_m, taskname_t .])            (E,)  not normalised; u (m, D) learned
    V_t    = reshape(F_t P)                               (M, D)  P (E, M D) learned, linear, no bias
    w_tc   = normalise(Text([V_t, name_c .]))             (E,)
    logits = s f W_t^T                                    (B, C_t), softmax over the task's own classes only
    loss   = 1/B sum_t sum_{b in t} CE(logits_b, y_b)     a batch is drawn from the pool of all tasks (equation 8)

The gradient passes the frozen text tower twice: through class prompts, V_t and P, then through the task prompt into u.
Variants by the paper's names, class context and then task context (NATA is the recommended one):
    NATA, NATS              u shared by the tasks (task agnostic), or one per task (task specific)
    CATA, CATS, CSTA, CSTS  class features G_c = Text([c_1 ... c_k, name_c .]) join: V_tc = reshape([G_c ; F_t] P), one
                            context per class, P (2E, M D); c shared by the classes (CA) or one per class (CS)
`meta` has the code's two ablations: "linmean" puts the mean of G_c and F_t into P (E, M D), "lincls" only G_c.

Against the official code (kding1225/softcpt): it registers one optimiser and one schedule under three names (four with
class context), so that every gradient is used three times and the cosine runs three times as fast, up and down again;
`released_trainer=True` does so too, the default is the plain recipe. It always encodes all tasks; here those without an
image in the batch are left out, which changes nothing. Task names are not published; yours are part of the method.
"""

import math

import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.base import MethodCard, register
from vlmcourse.methods.context import ClassPrompts, random_context
from vlmcourse.methods.multitask import MultiTask, by_task


@register
class SoftCPT(MultiTask):
    """n_ctx: M. task_n_ctx: m (4 in the scripts; the parameter counts of the paper's table belong to 8). task_context:
    "agnostic" or "specific". class_context: None, "agnostic" or "specific"; then class_n_ctx: k (0: the name alone).
    meta: "lin", "linmean" or "lincls". class_sample_rate: each step sees, in each task, the classes of the batch and
    this share of the others (to save memory; 0: all). released_trainer: see above. views: see
    augment.TrainingFeatures."""

    card = MethodCard(
        name="softcpt",
        title="Prompt Tuning with Soft Context Sharing for Vision-Language Models",
        venue="Neurocomputing",
        year=2024,
        url="https://arxiv.org/abs/2208.13474",
        family="text prompt",
        setup="few-shot supervised, several tasks together",
        learned="linear meta network (E, M D) and task context (m, D), shared by all tasks",
        idea="Let one small network write every task's context from the task's name, so that tasks teach each other.",
        acts_on="text input",
        needs="inputs",
    )

    def __init__(
        self,
        backbone,
        *,
        n_ctx=16,
        task_n_ctx=4,
        task_context="agnostic",
        class_context=None,
        class_n_ctx=4,
        meta="lin",
        class_token_position="end",
        class_sample_rate=0.0,
        released_trainer=False,
        epochs=50,
        lr=2e-3,
        batch_size=32,
        momentum=0.9,
        weight_decay=5e-4,
        warmup_epochs=1,
        init_std=0.02,
        views=1,
        crop_scale=(0.08, 1.0),
        task_name=None,
        seed=0,
        progress=False,
    ):
        super().__init__(backbone, task_name=task_name, seed=seed, progress=progress)
        least = {
            "n_ctx": 1,
            "task_n_ctx": int(task_context == "specific"),
            "class_n_ctx": int(class_context == "specific"),
        }
        for name, value in (("n_ctx", n_ctx), ("task_n_ctx", task_n_ctx), ("class_n_ctx", class_n_ctx)):
            if not isinstance(value, int) or value < least[name]:
                raise ValueError(f"{name}={value!r} must be a whole number >= {least[name]}")
        for name, value, allowed in (
            ("task_context", task_context, ("agnostic", "specific")),
            ("class_context", class_context, (None, "agnostic", "specific")),
            ("meta", meta, ("lin", "linmean", "lincls") if class_context else ("lin",)),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r} must be one of {allowed} (class_context={class_context!r})")
        if not 0 <= class_sample_rate <= 1:
            raise ValueError(f"class_sample_rate={class_sample_rate!r} must be between 0 (all classes) and 1")
        self.n_ctx, self.task_n_ctx, self.class_n_ctx = n_ctx, task_n_ctx, class_n_ctx
        self.task_context, self.class_context, self.meta = task_context, class_context, meta
        self.class_token_position, self.class_sample_rate = class_token_position, class_sample_rate
        self.init_std, self.views, self.crop_scale = init_std, views, crop_scale
        self.recipe = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "momentum": momentum}
        self.recipe |= {"weight_decay": weight_decay, "warmup_epochs": warmup_epochs}
        self.recipe["repeats"] = 1 if not released_trainer else 4 if class_context else 3

    def _fit_tasks(self, train, val):
        self._start()
        parts = [
            TrainingFeatures(self.backbone, split, views=self.views, crop_scale=self.crop_scale, seed=self.seed + t)
            for t, split in enumerate(train.values())
        ]
        sizes = [len(split) for split in train.values()]
        self.sampler = torch.Generator().manual_seed(self.seed + 2_000_003)

        def loss(indices, step):
            groups = by_task(indices, sizes)
            return self._loss([(t, parts[t](own), parts[t].labels[own]) for t, _, own in groups])

        learned = [p.requires_grad_() for p in self._parameters().values() if p.numel()]
        self.history = training.fit(learned, loss, sum(sizes), seed=self.seed, progress=self.progress, **self.recipe)
        self._freeze()

    def _start(self):
        """Prompts and initial parameters for the tasks in `self.tasks`."""
        T, C, E = len(self.tasks), len(self.class_names), self.backbone.embed_dim
        self.prompts = [
            ClassPrompts(self.backbone, names, self.n_ctx, self.class_token_position) for names in self.tasks.values()
        ]
        self.task_prompts = ClassPrompts(self.backbone, list(self.tasks), self.task_n_ctx)
        shape = (T, self.task_n_ctx) if self.task_context == "specific" else (self.task_n_ctx,)
        self.task_ctx = random_context(self.backbone, *shape, seed=self.seed + 1, std=self.init_std)
        width = 2 * E if self.class_context and self.meta == "lin" else E
        proj = random_context(self.backbone, width, self.n_ctx, seed=self.seed, std=self.init_std)
        self.proj = proj.flatten(1)  # (width, M D)
        if self.class_context:
            self.name_prompts = [ClassPrompts(self.backbone, n, self.class_n_ctx) for n in self.tasks.values()]
            shape = (C, self.class_n_ctx) if self.class_context == "specific" else (self.class_n_ctx,)
            self.class_ctx = random_context(self.backbone, *shape, seed=self.seed + 2, std=self.init_std)

    def _parameters(self):
        """What training changes, by name; a subclass with another meta network names its own."""
        parameters = {"proj": self.proj, "task_ctx": self.task_ctx}
        return parameters | ({"class_ctx": self.class_ctx} if self.class_context else {})

    def task_features(self):
        """(T, E): what the text tower says about the tasks' names behind the task context, not normalised."""
        return self.task_prompts.encode(self.task_ctx, normalise=False)

    def contexts(self, chosen=None):
        """The context of each task (of the `chosen` ones): {number: (M, D), or (C_t, M, D) with class context}."""
        chosen = range(len(self.tasks)) if chosen is None else chosen
        features = self.task_features()  # (T, E)
        return {t: self._context(t, features[t]) for t in chosen}

    def _context(self, t, feature):
        if not self.class_context:
            return (feature.to(self.proj) @ self.proj).reshape(self.n_ctx, -1)
        ctx = self.class_ctx
        if self.class_context == "specific":
            sizes = [len(names) for names in self.tasks.values()]
            ctx = ctx.split(sizes)[t]
        names = self.name_prompts[t].encode(ctx, normalise=False)  # (C_t, E)
        task = feature.expand_as(names)
        joined = {"lin": torch.cat([names, task], -1), "linmean": (names + task) / 2, "lincls": names}[self.meta]
        return (joined.to(self.proj) @ self.proj).reshape(len(names), self.n_ctx, -1)

    def text_features(self):
        """(sum_t C_t, E) L2-normalised class features of all tasks, differentiable in what is learned."""
        return torch.cat([self.prompts[t].encode(ctx) for t, ctx in self.contexts().items()])

    def _loss(self, groups):
        """groups: [(task number, features (b_t, E), labels (b_t,)), ...] of one batch."""
        contexts, total = self.contexts([t for t, _, _ in groups]), 0.0
        for t, features, labels in groups:
            prompts, ctx = self.prompts[t], contexts[t]
            if self.class_sample_rate:
                classes, labels = self._sampled(labels, len(prompts.eot))
                prompts, ctx = prompts.select(classes), ctx if ctx.ndim == 2 else ctx[classes]
            logits = self.backbone.logit_scale * features @ prompts.encode(ctx).T
            total = total + F.cross_entropy(logits, labels, reduction="sum")
        return total / sum(len(labels) for _, _, labels in groups)

    def _sampled(self, labels, n_class):
        """The classes of the batch and a random share of the others; and the labels among these."""
        positive = labels.unique().cpu()
        others = torch.ones(n_class, dtype=torch.bool).index_fill(0, positive, False).nonzero()[:, 0]
        kept = torch.randperm(len(others), generator=self.sampler)[: math.ceil(len(others) * self.class_sample_rate)]
        classes = torch.cat([positive, others[kept]]).to(labels.device)
        return classes, (labels[:, None] == classes).int().argmax(1)

    @torch.no_grad()
    def _freeze(self):
        for name, tensor in self._parameters().items():
            setattr(self, name, tensor.detach())
        self.text = self.text_features()  # (sum_t C_t, E)

    def _logits(self, features):
        return self.backbone.logit_scale * features @ self.text.to(features).T

    def for_task(self, name, class_names=None, templates=None):
        """One of the fitted tasks, or, with class_names and a shared task context, a task that was never fitted: its
        context is then computed from its name."""
        if class_names is None or name in self.tasks:
            moved = super().for_task(name)
            return moved if class_names is None else moved.for_classes(class_names, templates)
        self._require_fit()
        if "specific" in (self.task_context, self.class_context):
            raise ValueError(
                f"name={name!r} was not fitted, and specific contexts exist for fitted tasks and classes only"
            )
        return self._elsewhere(name, class_names, templates)

    def for_classes(self, class_names, templates=None):
        """Other class names in the chosen task; a class-specific context (CS) can only be restricted to its classes."""
        self._require_task("for_classes")
        if self.class_context == "specific":
            return super().for_classes(class_names, templates)
        return self._elsewhere(self.task, class_names, templates)

    def _elsewhere(self, name, class_names, templates):
        moved = self._moved(class_names, templates)
        if self.task_context == "specific":
            moved.task_ctx = self.task_ctx[list(self.tasks).index(name)][None]
        moved.tasks, moved.task, moved._columns = {name: moved.class_names}, name, None
        moved.task_prompts = ClassPrompts(self.backbone, [name], self.task_n_ctx)
        moved.prompts = [ClassPrompts(self.backbone, moved.class_names, self.n_ctx, self.class_token_position)]
        if self.class_context:
            moved.name_prompts = [ClassPrompts(self.backbone, moved.class_names, self.class_n_ctx)]
        moved._freeze()
        return moved

    def learned_parameters(self):
        return {n: p.detach() for n, p in self._parameters().items()} if self._fitted else {}

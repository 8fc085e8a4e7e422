"""UPL: Unsupervised Prompt Learning for Vision-Language Models, Huang, Chu and Wei, 2022, arXiv 2204.03649.

    P = softmax(s f W^T)               (N, C) zero-shot probabilities of an unlabelled pool, W from hand-written text
    y_i = argmax_c P_ic                pseudo-label; confidence q_i = max_c P_ic
    S = union over c of the K images of {i : y_i = c} with the largest q_i         at most K C images
    v_r = CoOp on (x_i, y_i), i in S   r = 1 ... R runs, each with a seed of its own (start, order, crops)
    logits = 1/R sum_r s f W(v_r)^T    (B, C); the mean of logits is a classifier too, with the mean class feature

UPL*: P is the mean of the probabilities of several teachers; the learner stays one model. The pool is the training set
without its labels: `fit` does not look at them (the names of the classes are known). An image can only be chosen under
its own argmax, so at most once. A class that is never predicted gets no images, and still competes in the softmax.
K per class, because confidence differs from class to class: the K C most confident of all images (class_equal=False)
leave some classes empty. The official code can do this too, and can add all images above a threshold.
"""

import torch

from vlmcourse.methods.base import Method, MethodCard, register
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.pseudo_labels import select
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.tasks.split import Split


@register
class UPL(Method):
    """k: images per predicted class. ensemble: R. teachers: backbones that label the pool together (UPL*); None: the
    learner's own. templates: of the zero-shot step; None: those of the split. class_equal, conf_threshold: see select.
    epochs: 50 whatever k is. Other arguments are CoOp's. Run r of R has the seed R * seed + r: 1 to 16 as in the paper.
    """

    card = MethodCard(
        name="upl",
        title="Unsupervised Prompt Learning for Vision-Language Models",
        venue="arXiv",
        year=2022,
        url="https://arxiv.org/abs/2204.03649",
        family="text prompt",
        setup="unsupervised: images of the training set and class names, no labels",
        learned="context vectors (R, M, D) of R runs",
        idea="Zero-shot labels the training set; learn prompts on its most confident images per class.",
        acts_on="text input",
        needs="inputs",
    )

    def __init__(
        self, backbone, *, k=16, ensemble=16, teachers=None, templates=None, class_equal=True, conf_threshold=0.0,
        epochs=50, seed=0, progress=False, **coop,
    ):  # fmt: skip
        super().__init__(backbone, seed=seed, progress=progress)
        if not isinstance(ensemble, int) or isinstance(ensemble, bool) or ensemble < 1:
            raise ValueError(f"ensemble={ensemble!r} must be a whole number >= 1")
        if teachers is not None and not teachers:
            raise ValueError("teachers=() must have at least one backbone, or be None for the learner's own")
        self.k, self.class_equal, self.conf_threshold, self.own_templates = k, class_equal, conf_threshold, templates
        self.teachers = (backbone,) if teachers is None else tuple(teachers)
        seeds = [ensemble * seed + r for r in range(1, ensemble + 1)]
        self.runs = [CoOp(backbone, epochs=epochs, seed=s, progress=progress, **coop) for s in seeds]

    def pool_probabilities(self, pool):
        """(N, C) on the CPU: the teachers' mean zero-shot probability for each image of a split; no label is used."""
        labellers = [ZeroShot(teacher, templates=self.own_templates).fit(pool) for teacher in self.teachers]
        return torch.stack([labeller.probabilities(pool).cpu() for labeller in labellers]).mean(dim=0)

    def _fit(self, train, val):
        probabilities = self.pool_probabilities(train)
        self.selection = select(probabilities, self.k, self.class_equal, self.conf_threshold)
        images, labels = train.images[self.selection.indices], self.selection.labels
        self.chosen = Split(images, labels, train.class_names, train.templates, f"{train.name}/pseudo-labelled")
        self.runs = [run.fit(self.chosen) for run in self.runs]
        histories = [run.history for run in self.runs]
        self.history = {
            name: [sum(v) / len(v) for v in zip(*(h[name] for h in histories))] for name in histories[0]
        }  # the mean over the runs
        self._average()

    def _average(self):
        self.text = torch.stack([run.text for run in self.runs]).mean(dim=0)  # (C, E), not normalised again

    def _logits(self, features):
        return self.backbone.logit_scale * features @ self.text.to(features).T

    def for_classes(self, class_names, templates=None):
        if self.runs[0].csc:  # as in CoOp, these contexts cannot move to other names
            return super().for_classes(class_names, templates)
        moved = self._moved(class_names, templates)
        moved.runs = [run.for_classes(class_names, templates) for run in self.runs]
        moved._average()
        return moved

    def learned_parameters(self):
        return {"ctx": torch.stack([run.ctx for run in self.runs])} if self._fitted else {}

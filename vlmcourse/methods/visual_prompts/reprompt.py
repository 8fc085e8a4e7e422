"""RePrompt: Retrieval-Enhanced Visual Prompt Learning for Few-shot Classification, Rong, Chen, Ou, Chen, Yu, Liu, arXiv
2306.02243. A RECONSTRUCTION: only the abstract could be read, and no official code is known.

What the abstract says: a database is built from the training images (or from others, if there are any); retrieval
enters several stages of a simple prompt-learning baseline; at inference similar samples are consulted. Surveys list it
under visual prompt tuning. "RePrompt: Planning by Automatic Prompt Engineering for LLM Agents" and "RePrompt: Automatic
Prompt Editing to Refine AI-Generative Art" only share its nickname; survey tables that give such a title cite the wrong
paper. The equations below are the course's. They put the three stages of RetroPrompt (NeurIPS 2022, arXiv 2205.14704),
whose abstract is close, on Visual Prompt Tuning:

    store       k_i = normalise(mean over views of the frozen, unprompted feature)     K (N, E), labels y (N,)
    search      q = frozen feature of the input; its k nearest keys, never its own image; w = softmax(tau q . k_j)
    1 prompts   r = sum_j w_j k_j                         (B, E); with summary "keys+texts" also sum_j w_j t_{y_j}
                P_dyn = P + reshape(ReLU(r W1) W2)        W1 (E, h) ~ N(0, 1), W2 (h, J n Dv) zero at the start: VPT
    2 training  loss = mean_i CE_i (1 + beta min(-log p_knn(y_i), 4.6))                p_knn constant, see retrieval.py
    3 answer    p = lambda p_knn + (1 - lambda) softmax(s f W^T)                       lambda searched on validation

Each stage can be switched off: enhance=False, beta=0, mix=0; without all three it is VPT. RetroPrompt's release weighs
the batch's mean CE by the batch's mean NLL, and divides by the batch size once more; here hard examples are weighed one
by one, which is the stated purpose. With one shot no neighbour of the right class is left in training: stage 2 then
only sees the clamp.
"""

import torch
import torch.nn.functional as F

from vlmcourse.methods.augment import raw_views
from vlmcourse.methods.base import Method, MethodCard, full_precision, register
from vlmcourse.methods.cache_model import cache_keys
from vlmcourse.methods.retrieval import FeatureStore, image_ids
from vlmcourse.methods.vision_prompts import encode_prompted
from vlmcourse.methods.visual_prompt_tuning import TEST_BATCH, VisualPromptTuning
from vlmcourse.tasks.base import Split

CLAMP = 4.6  # about -log(0.01): p_knn is 0 where no neighbour has the right class
MIXES = tuple(i / 10 for i in range(10))  # lambda
SUMMARIES = ("keys", "keys+texts")


@register
class RePrompt(VisualPromptTuning):
    """k, tau: neighbours and sharpness of their weights. enhance, beta, mix: the three stages; mix: lambda, None
    searches it on validation (without validation: 0.2). enhanced_layers: J, of those with prompts of their own. hidden:
    h, None for E/16. summary: one of SUMMARIES. store_views: crops averaged into a key, 0 for the test view.
    database: a Split with the same class names to look into, None for the training images.
    The rest as in VisualPromptTuning; n_ctx_vision is n. With `views` other than 1, training queries stay those of the
    unaugmented images."""

    card = MethodCard(
        name="reprompt",
        title="Retrieval-Enhanced Visual Prompt Learning for Few-shot Classification",
        venue="arXiv",
        year=2023,
        url="https://arxiv.org/abs/2306.02243",
        family="visual prompt",
        setup="few-shot supervised",
        learned="visual prompts (J, M, Dv) and a net from retrieved features to changes of them",
        idea="Look up similar labelled images, and let them shape prompts, loss and answer (a reconstruction).",
        acts_on="image tower",
        needs="internals",
    )

    def __init__(
        self,
        backbone,
        *,
        k=16,
        tau=20.0,
        enhance=True,
        beta=0.2,
        mix=None,
        enhanced_layers=1,
        hidden=None,
        summary="keys",
        store_views=0,
        database=None,
        **prompts,
    ):
        super().__init__(backbone, **prompts)
        if not isinstance(k, int) or k < 1:
            raise ValueError(f"k={k!r} must be a whole number >= 1")
        if not 0 < tau < float("inf"):
            raise ValueError(f"tau={tau!r} must be a positive number")
        if not 0 <= beta < float("inf"):
            raise ValueError(f"beta={beta!r} must be a number >= 0")
        if mix is not None and not 0 <= mix <= 1:
            raise ValueError(f"mix={mix!r} must be from 0 to 1, or None to search it on validation")
        if not isinstance(enhanced_layers, int) or not 1 <= enhanced_layers <= self.depth:
            raise ValueError(f"enhanced_layers={enhanced_layers!r} must be from 1 to depth={self.depth}")
        if hidden is not None and (not isinstance(hidden, int) or hidden < 1):
            raise ValueError(f"hidden={hidden!r} must be a whole number >= 1, or None")
        if summary not in SUMMARIES:
            raise ValueError(f"summary={summary!r} must be one of {SUMMARIES}")
        if not isinstance(store_views, int) or store_views < 0:
            raise ValueError(f"store_views={store_views!r} must be a whole number >= 0")
        if database is not None and not isinstance(database, Split):
            raise ValueError(f"database={type(database).__name__} must be a Split, or None for the training images")
        self.k, self.tau, self.enhance, self.beta, self.own_mix = k, tau, enhance, beta, mix
        self.enhanced_layers, self.summary = enhanced_layers, summary
        self.store_views, self.database = store_views, database
        self.hidden = max(1, backbone.embed_dim // 16) if hidden is None else hidden

    def _fit(self, train, val):
        self.mix, self.searched = 0.2 if self.own_mix is None else float(self.own_mix), None
        database = train if self.database is None else self.database
        self.train_ids, ids = (i.to(self.backbone.device) for i in image_ids(train, database))
        self.store = self._store(database, ids)
        self.train_queries = self._queries(self.inputs(train)) if self._retrieves() else None  # (N, E), unaugmented
        super()._fit(train, val)
        if self.own_mix is None and val is not None:
            votes, clip = self._votes_and_scores(self.inputs(val))
            p = torch.stack([mixed(votes, clip, m) for m in MIXES])  # (10, B, C)
            self.searched = (p.argmax(dim=-1).cpu() == val.labels).double().mean(dim=-1).tolist()
            self.mix = MIXES[self.searched.index(max(self.searched))]

    def _retrieves(self):
        """Whether training looks anything up."""
        return self.enhance or self.beta > 0

    def _store(self, database, ids=None):
        if tuple(database.class_names) != tuple(self.class_names):
            raise ValueError(f"database={database.name!r} must have the class names {list(self.class_names)}, in order")
        views = raw_views(self.backbone, database, self.store_views, (0.5, 1.0), self.seed)  # (views, N, E)
        return FeatureStore(cache_keys(full_precision(views)), database.labels, ids)

    def _start(self):
        super()._start()
        E, outputs = self.backbone.embed_dim * (1 + (self.summary == "keys+texts")), self.ctx_vision[0].numel()
        draw = torch.Generator().manual_seed(self.seed + 3_000_003)
        self.W1 = torch.randn(E, self.hidden, generator=draw).to(self.ctx_vision)  # r has length 1
        self.W2 = self.ctx_vision.new_zeros(self.hidden, self.enhanced_layers * outputs)

    def _parameters(self):
        return super()._parameters() | ({"W1": self.W1, "W2": self.W2} if self.enhance else {})

    @torch.no_grad()
    def _queries(self, tokens):
        """(B, E) L2-normalised features of image tokens (B, 1 + P, Dv) without prompts."""
        return torch.cat([encode_prompted(self.backbone, part) for part in tokens.split(TEST_BATCH)])

    def summarise(self, neighbours):
        """r (B, E) or (B, 2E): what the neighbours have in common."""
        r = self.store.average(neighbours, self.store.keys, self.tau)
        if self.summary == "keys":
            return r
        return torch.cat([r, self.store.average(neighbours, self.store_text(), self.tau)], dim=-1)

    def store_text(self):
        """(N, E): the class text of every entry of the store."""
        return self.text[self.store.labels]

    def retrieved_prompts(self, neighbours):
        """(J, B, M, Dv): the prompts of each image, shifted by what its neighbours say."""
        prompts = self.visual_prompts()[:, None].expand(-1, len(neighbours.index), -1, -1)
        if not self.enhance:
            return prompts
        shift = F.relu(self.summarise(neighbours).to(self.W1) @ self.W1) @ self.W2  # (B, J M Dv)
        shift = shift.unflatten(1, (self.enhanced_layers, *prompts.shape[2:])).transpose(0, 1)
        return torch.cat([prompts[: self.enhanced_layers] + shift, prompts[self.enhanced_layers :]])

    def _clip(self, tokens, neighbours):
        """(b, C) logits of the prompted tower. Without stage 1 all images share their prompts."""
        prompts = self.retrieved_prompts(neighbours) if self.enhance else None
        return self._scores(self.image_features(tokens, prompts))

    def _vote(self, neighbours):
        return self.store.vote(neighbours, self.text.shape[0], self.tau)  # (b, C)

    def _loss(self, tokens, labels, indices):
        if not self._retrieves():
            return super()._loss(tokens, labels, indices)
        neighbours = self.store.search(self.train_queries[indices], self.k, exclude=self.train_ids[indices])
        return guided_loss(self._clip(tokens, neighbours), labels, self._vote(neighbours), self.beta)

    def neighbours(self, x):
        """Neighbours of images, or of a Split, in the store; as at test time, nothing is left out."""
        self._require_fit()
        return self.store.search(self._queries(self.inputs(x)), self.k)

    @torch.no_grad()
    def _votes_and_scores(self, tokens):
        rows = []
        for part in tokens.split(TEST_BATCH):
            neighbours = self.store.search(self._queries(part), self.k)
            rows.append((self._vote(neighbours), self._clip(part, neighbours)))
        return tuple(torch.cat(column) for column in zip(*rows, strict=True))

    def _logits(self, tokens):
        if self.mix == 0 and not self.enhance:
            return super()._logits(tokens)
        votes, clip = self._votes_and_scores(tokens)
        return clip if self.mix == 0 else mixed(votes, clip, self.mix).clamp_min(1e-12).log()

    def for_classes(self, class_names, templates=None, database=None):
        """Some of the fitted classes; or others, with a `database` of labelled images of these: prompts and net stay
        what they are, the store is new. ValueError for new classes without one."""
        self._require_fit()
        if database is not None:
            moved = super().for_classes(class_names, templates)
            moved.store = moved._store(database)
            return moved
        if foreign := sorted(set(class_names) - set(self.class_names)):
            raise ValueError(f"class_names has new ones, such as {foreign[0]!r}: give a database= of labelled images")
        return Method.for_classes(self, class_names, templates)


def guided_loss(logits, labels, votes, beta):
    """(loss, its parts): mean of CE_i (1 + beta min(-log p_knn(y_i), 4.6)). logits, votes (B, C), labels (B,)."""
    entropies = F.cross_entropy(logits, labels, reduction="none")  # (B,)
    right = votes.detach().gather(1, labels[:, None])[:, 0]  # (B,) p_knn(y_i)
    surprise = (-right.clamp_min(1e-9).log()).clamp(max=CLAMP)
    loss = (entropies * (1 + beta * surprise)).mean()
    return loss, {"cross_entropy": entropies.mean(), "knn_surprise": surprise.mean()}


def mixed(votes, logits, mix):
    """(B, C) probabilities: mix p_knn + (1 - mix) softmax(logits)."""
    return mix * votes + (1 - mix) * logits.softmax(dim=-1)

"""VCD, also "VisDesc": Visual Classification via Description from Large Language Models, Menon and Vondrick, ICLR 2023,
arXiv 2210.07183.

Every class c has descriptors d_{c,1} ... d_{c,m_c}, short visual phrases. Each becomes a sentence with its own score:

    e_{c,i} = normalise(Text("name_c, which has d_{c,i}"))                            (sum m, E)
    score_c = mean_i <f, e_{c,i}> = <f, mean_i e_{c,i}>      logits = s score          (B, C), s as for zero-shot

The scores <f, e_{c,i}> of the winner explain the decision. The mean vector is *not* normalised again: classes with
diverse descriptors have shorter ones and lower scores. That is the difference to CuPL (cupl.py).

    phrase(d)   "which is d" if d begins with a, an or used; "which d" with has, often, typically, may, can; else "which
                has d". The official test is on characters ("antlers" -> "which is antlers"); whole_words repairs it.

Descriptors: those that ship (descriptions.py), a table, a JSON file, or a function prompt -> replies that is asked as
in the paper, by two worked examples (here our own) and an open list. Controls: gains may come from averaging over many
sentences and not from what they say; `random_descriptors` and `swapped_descriptors` of descriptions.py tell.
"""

from typing import NamedTuple

import torch

from vlmcourse.methods.base import Method, MethodCard, register
from vlmcourse.methods.class_text import readable
from vlmcourse.methods.descriptions import class_index, class_mean, from_source, shipped, text_features
from vlmcourse.methods.language_model import replies

AGGREGATES, PLACES, ROWS = ("mean", "max", "sum"), ("prepend", "append", None), 1024
LINKS = {"which is": ("a", "an", "used"), "which": ("has", "often", "typically", "may", "can")}
EXAMPLES = """Q: What are useful features for telling a teapot apart in a picture?
A: A teapot can be recognised by several visual features:
- round belly
- curved spout on one side
- handle on the other side
- lid with a knob

Q: What are useful features for telling a zebra apart in a picture?
A: A zebra can be recognised by several visual features:
- black and white stripes
- body of a horse
- short upright mane
- four long legs
- tail with a tuft

Q: What are useful features for telling a {} apart in a picture?
A: A {} can be recognised by several visual features:
-"""


class Reason(NamedTuple):
    """Why a class has its score: `score` is the aggregate of `similarities` (m,) of the image with `sentences`."""

    name: str
    score: float
    descriptors: tuple[str, ...]
    sentences: tuple[str, ...]
    similarities: torch.Tensor


@register
class VCD(Method):
    """source: None, a table {class: [descriptors]}, a path or a function. aggregate: "mean" (the paper), "max", "sum".
    name_place: "prepend", "append" (descriptor first), or None: descriptors without the class name. separator: between
    the two; before, after: in front of and behind the whole (official: "." for ImageNet); append uses the separator
    only. modify: False leaves descriptors as they are. A class without descriptors gets one that is empty, as in the
    release. After fit: `descriptors`, `sentences` {class: tuple}, `descriptor_text` (sum m, E)."""

    card = MethodCard(
        name="vcd",
        title="Visual Classification via Description from Large Language Models",
        venue="ICLR",
        year=2023,
        url="https://arxiv.org/abs/2210.07183",
        family="other",
        setup="descriptions of the classes, no images",
        learned="nothing",
        idea="Score a class by its visual attributes, one by one, and the decision explains itself.",
        acts_on="text only",
        needs="outputs",
    )

    def __init__(
        self,
        backbone,
        *,
        source=None,
        aggregate="mean",
        name_place="prepend",
        separator=", ",
        before="",
        after="",
        modify=True,
        whole_words=False,
        seed=0,
        progress=False,
    ):
        super().__init__(backbone, seed=seed, progress=progress)
        for name, value, known in (("aggregate", aggregate, AGGREGATES), ("name_place", name_place, PLACES)):
            if value not in known:
                raise ValueError(f"{name}={value!r} must be one of {known}")
        self.source, self.aggregate, self.name_place = source, aggregate, name_place
        self.separator, self.before, self.after = separator, before, after
        self.modify, self.whole_words = modify, whole_words

    def _fit(self, train, val):
        self._build()

    def _build(self):
        groups = [group or ("",) for group in self._descriptors()]
        told = [tuple(self.sentence(name, d) for d in group) for name, group in zip(self.class_names, groups)]
        self.descriptors = dict(zip(self.class_names, groups, strict=True))
        self.sentences = dict(zip(self.class_names, told, strict=True))
        self.descriptor_text = text_features(self.backbone, [text for group in told for text in group])  # (sum m, E)
        self.index = class_index(groups, self.descriptor_text.device)  # (sum m,)

    def _descriptors(self):
        if self.source is None:
            return shipped(self.class_names, "descriptors")
        if callable(self.source):
            questions = [EXAMPLES.replace("{}", readable(name)) for name in self.class_names]
            return [tuple(d for reply in replies(self.source, q) for d in bullets(reply)) for q in questions]
        return from_source(self.class_names, self.source)

    def sentence(self, name, descriptor):
        """The sentence of one descriptor of a class."""
        told = phrase(descriptor, self.whole_words) if self.modify else descriptor
        if self.name_place == "append":
            return told + self.separator + readable(name)
        return f"{self.before}{readable(name)}{self.separator}{told}{self.after}" if self.name_place else told

    def similarities(self, x):
        """(B, sum m) cosine of every image with every descriptor's sentence, class by class. x: as for logits."""
        self._require_fit()
        return self.inputs(x) @ self.descriptor_text.T

    def _logits(self, features):
        C = len(self.class_names)
        if self.aggregate == "max":
            parts = [part @ self.descriptor_text.T for part in features.split(ROWS)]  # (b, sum m)
            scores = torch.cat([_largest(part, self.index, C) for part in parts])
        else:
            bank = class_mean(self.descriptor_text, self.index, C)  # (C, E), not normalised
            if self.aggregate == "sum":
                bank = bank * torch.bincount(self.index, minlength=C)[:, None]
            scores = features @ bank.T
        return self.backbone.logit_scale * scores

    @torch.no_grad()
    def explain(self, x, k=2, classes=None):
        """For every image its reasons: a list of `Reason` for the k classes of highest score, or for `classes`.

        ValueError for k out of range, or classes that are not among those of the method.
        """
        self._require_fit()
        if classes is not None and (foreign := [name for name in classes if name not in self.class_names]):
            raise ValueError(f"classes: {foreign[0]!r} is not one of {len(self.class_names)} classes here")
        if classes is None and not 1 <= k <= len(self.class_names):
            raise ValueError(f"k={k!r} must be from 1 to {len(self.class_names)}")
        features = self.inputs(x)
        scores = self._logits(features).cpu() / self.backbone.logit_scale.cpu()  # (B, C)
        similarities = (features @ self.descriptor_text.T).cpu()  # (B, sum m)
        if classes is None:
            chosen = scores.topk(k).indices.tolist()
        else:
            chosen = [[self.class_names.index(name) for name in classes]] * len(scores)
        index, names = self.index.cpu(), self.class_names
        return [
            [
                Reason(
                    names[c], scores[i, c].item(), self.descriptors[names[c]], self.sentences[names[c]], s[index == c]
                )
                for c in row
            ]
            for i, (row, s) in enumerate(zip(chosen, similarities, strict=True))
        ]

    def for_classes(self, class_names, templates=None):
        moved = self._moved(class_names, templates)
        moved._build()
        return moved


def _largest(similarities, index, count):
    lowest = similarities.new_full((len(similarities), count), -torch.inf)
    return lowest.scatter_reduce(1, index.expand(len(similarities), -1), similarities, "amax")


def phrase(descriptor, whole_words=False):
    """A descriptor as a relative clause, by the rule above."""
    for link, beginnings in LINKS.items():
        if whole_words and descriptor.split(" ")[0] in beginnings:
            return f"{link} {descriptor}"
        if not whole_words and descriptor.startswith(beginnings):
            return f"{link} {descriptor}"
    return f"which has {descriptor}"


def bullets(reply):
    """The bullet points of a reply. The question ends with "-", so a first line may lack its dash; the release's parser
    loses it then, this one does not."""
    lines = [line.strip() for line in reply.strip().splitlines()]
    return tuple(line.removeprefix("-").strip() for i, line in enumerate(lines) if line and (i == 0 or line[0] == "-"))

"""Class features from hand-written templates (CLIP, Radford et al., ICML 2021, section 3.1.4 "prompt ensembling").

t_{c,k} = normalise(Text(template_k(name_c)))         (C, K, E)
w_c     = normalise(mean_k t_{c,k})                   (C, E)
"""

import torch
import torch.nn.functional as F

from vlmcourse.methods.base import full_precision

GENERAL_TEMPLATES = (  # 34 that fit any picture, for methods that want variety more than the best wording
    "a photo of a {}.", "a picture of a {}.", "an image of the {}.", "a blurry photo of a {}.",
    "a sharp photo of a {}.", "a dark photo of the {}.", "a bright picture of the {}.",
    "a black and white photo of a {}.", "a faded picture of a {}.", "a colourful picture of a {}.",
    "a small picture of a {}.", "a large picture of the {}.", "a close-up of a {}.", "a {} seen from far away.",
    "a photo of one {}.", "a photo of many {}.", "a photo of my {}.", "a photo of a clean {}.", "a photo of an old {}.",
    "a photo of a new {}.", "a strange picture of a {}.", "a simple drawing of a {}.", "a sketch of a {}.",
    "a painting of the {}.", "a cartoon of a {}.", "an icon of a {}.", "a symbol for {}.", "a logo with a {}.",
    "a sticker of a {}.", "a toy {}.", "a {} made of paper.", "a {} in a game.", "a printed picture of a {}.",
    "there is a {} here.",
)  # fmt: skip


def check_templates(templates):
    """The templates as a tuple; a single string counts as one. ValueError unless each has exactly one {}."""
    templates = (templates,) if isinstance(templates, str) else tuple(templates)
    if not templates:
        raise ValueError("templates=() must have at least one sentence with a {} for the class name")
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise ValueError(f"templates: {template!r} must be a sentence with exactly one {{}} for the class name")
    return templates


def readable(name):
    """A class name as the official code bases feed it to the tokenizer: underscores are spaces."""
    return name.replace("_", " ")


@torch.no_grad()
def template_features(backbone, class_names, templates, normalise=True):
    """(C, K, E): the feature of every class name in every template, L2-normalised unless normalise=False."""
    templates = check_templates(templates)
    sentences = [template.replace("{}", readable(name)) for name in class_names for template in templates]
    text = backbone.encode_text(sentences, normalise=normalise).reshape(len(class_names), len(templates), -1)
    return full_precision(text)


def class_features(backbone, class_names, templates):
    """(C, E) L2-normalised: each sentence's feature normalised, averaged over the templates, normalised again."""
    return F.normalize(template_features(backbone, class_names, templates).mean(dim=1), dim=-1)

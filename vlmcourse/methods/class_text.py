"""Class features from hand-written templates (CLIP, Radford et al., ICML 2021, section 3.1.4 "prompt ensembling").

t_{c,k} = normalise(Text(template_k(name_c)))         (C, K, E)
w_c     = normalise(mean_k t_{c,k})                   (C, E)
"""

import torch
import torch.nn.functional as F

from vlmcourse.methods.base import full_precision


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
def class_features(backbone, class_names, templates):
    """(C, E) L2-normalised: each sentence's feature normalised, averaged over the templates, normalised again."""
    templates = check_templates(templates)
    sentences = [template.replace("{}", readable(name)) for name in class_names for template in templates]
    text = backbone.encode_text(sentences).reshape(len(class_names), len(templates), -1)  # (C, K, E)
    return F.normalize(full_precision(text).mean(dim=1), dim=-1)

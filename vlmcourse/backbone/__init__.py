"""A frozen CLIP behind one small interface: loading, encoding, prompting, caching. Names load on first use."""

from importlib import import_module

_EXPORTS = {
    "Backbone": "vlmcourse.backbone.clip",
    "load_backbone": "vlmcourse.backbone.load",
    "image_features": "vlmcourse.backbone.features",
    "random_resized_crops": "vlmcourse.backbone.augment",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it exports {', '.join(__all__)}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""vlmcourse: vision-language models and their transfer, taught with code that runs.

`import vlmcourse` is instant: torch and open_clip are imported when a name below is first used.
"""

from importlib import import_module

__version__ = "0.1.0"

_EXPORTS = {
    "load_backbone": "vlmcourse.backbone.load",
    "get_task": "vlmcourse.tasks.registry",
    "list_tasks": "vlmcourse.tasks.registry",
    "list_methods": "vlmcourse.methods.base",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it exports {', '.join(__all__)}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

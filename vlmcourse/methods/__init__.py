"""The methods: one readable file each, found by walking the package. See `base` for what they share."""

from vlmcourse.methods.base import Method, MethodCard, get_method, list_methods, register

__all__ = ["Method", "MethodCard", "get_method", "list_methods", "register"]

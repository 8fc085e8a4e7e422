"""Errors that the package raises on purpose."""


class DataError(RuntimeError):
    """A file that the course needs is missing or damaged; the message says what to do about it."""

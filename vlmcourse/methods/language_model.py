"""A language model that is asked for texts about classes: any endpoint that speaks the OpenAI protocol, or a function.

A *generator* is a function prompt -> list of replies. `ChatEndpoint` is one: it sends

    POST {url}/chat/completions   {"model", "messages", "n", "temperature", "max_tokens", "stop"}

and keeps every answer on disk, so that a prompt is paid for once and results can be repeated. Nothing in the course
uses the network unless you build one of these and hand it to a method. Many servers on one's own machine speak the
protocol, too. `Remembered` gives the same memory to a function of your own.
"""

import hashlib
import json
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable

from vlmcourse.files import atomic_write, lock
from vlmcourse.paths import cache_dir

Generator = Callable[[str], list[str]]


class Remembered:
    """generate(prompt) -> list of replies, computed once and kept as `texts/<hash>.json` in the cache folder.

    name: whatever the replies depend on besides the prompt (model, temperature, ...); it is part of the hash. Two
    processes that ask the same wait for each other; a damaged file is made again, with a warning.
    """

    def __init__(self, generate: Generator, name: str):
        if not callable(generate):
            raise TypeError(f"generate={generate!r} must be a function: prompt -> list of replies")
        self.generate, self.name = generate, name

    def __call__(self, prompt: str) -> list[str]:
        key = json.dumps([self.name, prompt])
        path = cache_dir() / "texts" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
        with lock(path):
            found = _read(path, key)
            if found is None:
                found = replies(self.generate, prompt)
                atomic_write(path, json.dumps({"key": key, "replies": found}, indent=1).encode())
        return found


class ChatEndpoint:
    """url: as "http://localhost:8000/v1". key: sent as a bearer token, never stored. n: replies for each prompt;
    servers that return fewer are asked again. temperature, max_tokens, n, stop: defaults of CuPL. timeout: seconds.

    Calling it raises ConnectionError if the server cannot be reached or refuses, ValueError for an unreadable answer.
    """

    def __init__(self, url, model, *, key="", temperature=0.99, max_tokens=50, n=10, stop=".", timeout=60.0):
        if not str(url).startswith(("http://", "https://")):
            raise ValueError(f"url={url!r} must start with http:// or https://, as 'http://localhost:8000/v1'")
        if not isinstance(n, int) or n < 1 or not isinstance(max_tokens, int) or max_tokens < 1:
            raise ValueError(f"n={n!r} and max_tokens={max_tokens!r} must be whole numbers >= 1")
        self.url, self._key, self.n, self.timeout = url.rstrip("/") + "/chat/completions", key, n, timeout
        self.settings = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
        if stop is not None:
            self.settings["stop"] = stop
        self._remembered = Remembered(self._ask, json.dumps([self.url, self.n, self.settings], sort_keys=True))

    def __call__(self, prompt: str) -> list[str]:
        """n replies to a prompt, from the cache if they are there."""
        return self._remembered(prompt)

    def _ask(self, prompt: str) -> list[str]:
        found = []
        while len(found) < self.n:
            found += self._request(prompt, self.n - len(found))
        return found[: self.n]

    def _request(self, prompt: str, n: int) -> list[str]:
        body = self.settings | {"messages": [{"role": "user", "content": prompt}], "n": n}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            raise ConnectionError(f"{self.url} refused the request: {error.code} {error.reason}") from error
        except (urllib.error.URLError, TimeoutError) as error:
            raise ConnectionError(f"{self.url} cannot be reached ({error}); is the server running?") from error
        try:
            found = [choice["message"]["content"] for choice in json.loads(content)["choices"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.url} did not answer as the protocol says: {content[:200]!r}") from error
        if not found or not all(isinstance(text, str) for text in found):
            raise ValueError(f"{self.url} answered without a text: {content[:200]!r}")
        return found


def replies(generate: Generator, prompt: str) -> list[str]:
    """generate(prompt), checked: a non-empty list of strings, else ValueError."""
    found = generate(prompt)
    if isinstance(found, str) or not found or not all(isinstance(text, str) for text in found):
        raise ValueError(f"the generator must return a non-empty list of strings, got {found!r} for {prompt[:80]!r}")
    return list(found)


def _read(path, key: str) -> list[str] | None:
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["key"] != key:
            raise ValueError("it belongs to another prompt")
        return record["replies"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"cached replies are damaged and asked for again: {path} ({error})", RuntimeWarning, stacklevel=3)
        return None

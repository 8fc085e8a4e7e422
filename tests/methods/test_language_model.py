"""The generator of texts, against a server on this machine: requests, memory on disk, damage, errors."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from vlmcourse import paths
from vlmcourse.methods.language_model import ChatEndpoint, Remembered


@pytest.fixture
def server():
    """A server that answers at most three replies at once; `seen` collects (path, authorisation, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers.get("Authorization"), body))
            text = body["messages"][0]["content"]
            choices = [{"message": {"content": f"{text} {len(seen)}.{i}"}} for i in range(min(3, body["n"]))]
            answer = {"odd": b"no json", "empty": b'{"choices": []}'}.get(
                text, json.dumps({"choices": choices}).encode()
            )
            self.send_response(403 if text == "forbidden" else 200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments):
            pass

    seen = []
    http = HTTPServer(("127.0.0.1", 0), Handler)
    http.seen, http.url = seen, f"http://127.0.0.1:{http.server_address[1]}/v1/"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield http
    http.shutdown()
    http.server_close()
    thread.join()


def test_the_request_is_the_protocols_and_short_answers_are_completed(server):
    endpoint = ChatEndpoint(server.url, "small", key="secret", n=5)
    found = endpoint("what is a dog")
    assert found == [f"what is a dog {call}" for call in ("1.0", "1.1", "1.2", "2.0", "2.1")]
    path, authorisation, body = server.seen[0]
    assert path == "/v1/chat/completions" and authorisation == "Bearer secret"
    assert body == {
        "model": "small", "messages": [{"role": "user", "content": "what is a dog"}],
        "n": 5, "temperature": 0.99, "max_tokens": 50, "stop": ".",
    }  # fmt: skip
    assert server.seen[1][2]["n"] == 2


def test_an_answer_is_asked_for_once(server):
    first = ChatEndpoint(server.url, "small", n=2)("hello")
    assert ChatEndpoint(server.url, "small", n=2)("hello") == first and len(server.seen) == 1
    others = ({"temperature": 0}, {"n": 1}, {"stop": None}, {"max_tokens": 9})
    for number, other in enumerate(others, start=2):
        ChatEndpoint(server.url, "small", **({"n": 2} | other))("hello")
        assert len(server.seen) == number
    ChatEndpoint(server.url, "small", n=2)("hello you")
    assert len(server.seen) == 6 and "stop" not in server.seen[3][2]
    content = "".join(path.read_text() for path in (paths.cache_dir() / "texts").glob("*.json"))
    assert "secret" not in content and "hello" in content


def test_a_damaged_file_is_made_again(server):
    endpoint = ChatEndpoint(server.url, "small", n=1)
    endpoint("hello")
    (file,) = (paths.cache_dir() / "texts").glob("*.json")
    file.write_text(file.read_text()[:-9])
    with pytest.warns(RuntimeWarning, match="damaged and asked for again"):
        again = endpoint("hello")
    assert again == ["hello 2.0"] and endpoint("hello") == again


def test_a_function_of_ones_own_can_be_remembered():
    calls = []

    def generate(prompt):
        calls.append(prompt)
        return [prompt.upper()]

    assert Remembered(generate, "upper")("a") == Remembered(generate, "upper")("a") == ["A"] and calls == ["a"]
    Remembered(generate, "other")("a")
    assert calls == ["a", "a"]


def test_failures_are_told_and_not_remembered(server):
    endpoint = ChatEndpoint(server.url, "small", n=1)
    with pytest.raises(ConnectionError, match="refused the request: 403"):
        endpoint("forbidden")
    for prompt, message in (("odd", "did not answer as the protocol says"), ("empty", "without a text")):
        with pytest.raises(ValueError, match=message):
            endpoint(prompt)
    assert not list((paths.cache_dir() / "texts").glob("*.json"))
    nobody = ChatEndpoint("http://127.0.0.1:9/v1", "small", timeout=2)
    with pytest.raises(ConnectionError, match="cannot be reached"):
        nobody("hello")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ftp://x", "m"), "url='ftp://x'"),
        (("http://x", "m", {"n": 0}), "n=0"),
        (("http://x", "m", {"n": "2"}), "n='2'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    url, model, *options = arguments
    with pytest.raises(ValueError, match=message):
        ChatEndpoint(url, model, **(options[0] if options else {}))
    with pytest.raises(TypeError, match="generate='x'"):
        Remembered("x", "name")

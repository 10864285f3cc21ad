"""An OpenAI-compatible endpoint on the loopback, which answers as a test says."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], tuple[int, Any]]


class Server(ThreadingHTTPServer):
    """``answer`` gives (status, reply) for a body; ``heard`` are (path, headers, body). ``after`` is said where it is
    busy, ``announced`` bytes where they are not those that come, and ``pause`` seconds lie before each byte."""

    daemon_threads = True
    after, announced, pause = "0", 0, 0.0
    answer: Answer
    heard: list[tuple[str, dict[str, str], dict[str, Any]]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.heard.append((self.path, dict(self.headers), body))
        status, found = self.server.answer(body)
        data = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", self.server.after)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(self.server.announced or len(data)))
        self.end_headers()
        if not self.server.pause:
            self.wfile.write(data)
            return
        with contextlib.suppress(OSError):  # who asked is gone
            for byte in data:
                time.sleep(self.server.pause)
                self.wfile.write(bytes([byte]))

    def log_message(self, *_: Any) -> None:
        return


def said(text: str, **usage: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}], "usage": usage}


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    found = Server(("127.0.0.1", 0), Handler)
    found.heard, found.answer = [], answer
    threading.Thread(target=found.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        found.shutdown()
        found.server_close()

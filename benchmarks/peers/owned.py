"""How much memory this process owns, and the most it owned between two marks; read from /proc, so on Linux alone.

Notable: anonymous pages (RssAnon) are counted. Pages of a mapped file, such as weights that are read, are the system's
to drop and to read again; they stand in the resident peak, which is told beside it.
"""

import re
import threading
from pathlib import Path

EVERY = 0.002  # seconds between two looks


def status(name: str) -> int:
    """Bytes of one line of this process' status."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None, name
    return int(found[1]) * 1024


class Owned:
    """While it is entered, a thread looks on. ``marks`` has what was owned at the start, then, by name, the most since
    the mark before, what is owned at the mark, and the resident peak."""

    def __init__(self) -> None:
        self.marks: dict[str, dict[str, int]] = {}
        self.most = 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Owned":
        self.mark("imports")
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def mark(self, name: str) -> None:
        now = status("RssAnon")
        self.marks[name] = {"most": max(self.most, now), "now": now, "resident": status("VmHWM")}
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the resident peak begins anew
        self.most = now

    def _look(self) -> None:
        while not self.done.wait(EVERY):
            self.most = max(self.most, status("RssAnon"))

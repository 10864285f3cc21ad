"""Cut the passages on which forgetting is measured: assets/general/passages.txt, one passage of whole sentences a line.

    python scripts/make_general_text.py     needs the folder ``shared`` beside the repository

Notable: the books are those that the bundled base was validated on, so that no model of this project has trained on
them. Passages are drawn evenly from all books, by the seed, away from title pages and lists of contents.
"""

import gzip
import json
import random
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOKS = ROOT.parent / "shared" / "data" / "classic_books" / "books_valid.jsonl.gz"
TARGET = ROOT / "src" / "tunesmith" / "assets" / "general" / "passages.txt"
PASSAGES, SHORTEST, LONGEST = 36, 200, 300  # characters, all of them ASCII
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def passages(text: str) -> list[str]:
    """Runs of whole sentences within a paragraph (a line, in these files), in plain letters, none that overlap."""
    found = []
    for paragraph in text.splitlines()[60:-20]:
        if not paragraph[:1].isupper() or not paragraph.isascii():
            continue
        passage = ""
        for sentence in SENTENCE.split(" ".join(paragraph.split())):
            passage = f"{passage} {sentence}".strip()
            if len(passage) >= SHORTEST:
                break
        if SHORTEST <= len(passage) <= LONGEST and not set(passage) & set("*_#[]<>|") and passage[-1] in ".!?":
            found.append(passage)
    return found


def main() -> int:
    with gzip.open(BOOKS, "rt", encoding="utf-8") as lines:
        books = [json.loads(line) for line in lines]
    rng = random.Random(0)
    shelves = [rng.sample(held, len(held)) for book in books if (held := passages(book["text"]))]
    chosen = [shelves[i % len(shelves)][i // len(shelves)] for i in range(PASSAGES)]
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text("\n".join(chosen) + "\n", encoding="ascii")
    sys.stderr.write(f"{len(chosen)} passages of {len(shelves)} books, {TARGET.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

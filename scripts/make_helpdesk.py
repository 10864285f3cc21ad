"""Write the bundled ``helpdesk`` data set: tickets, their JSON answers, and planted flaws with their ground truth.

Notable: standard library only and seeded, so that the files are the same byte for byte everywhere. An honest ticket
that comes out close to an earlier one (Jaccard of word 3-shingles >= 0.5) is drawn again; all duplicates in the file
are thus planted ones, and ``flaws.json`` names each by its line.

    python scripts/make_helpdesk.py [FOLDER]
"""

import json
import random
import re
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import helpdesk_phrases as phrases
import helpdesk_words as bank

FOLDER = Path(__file__).resolve().parent.parent / "src" / "tunesmith" / "assets" / "helpdesk"
SEED = 20260101
HONEST = 1439
EXACT, NEAR, CONTRADICTING, SEVERAL = 20, 25, 10, 120
# How often each intent (in the order of the bank) and each urgency is asked for; unequal, as in life.
INTENT_WEIGHTS = (13, 8, 12, 8, 7, 9, 8, 13, 9, 6, 8, 9)
URGENCY_WEIGHTS = {"low": 25, "normal": 45, "high": 30}
SHORTEST, LONGEST = 8, 80

Shingles = frozenset[tuple[str, ...]]


@dataclass(frozen=True)
class Ticket:
    """One row before it is written. ``flaw`` names what was planted; a copy has its ``origin``."""

    text: str
    intent: str
    urgency: str
    product: str
    customer: str = ""
    flaw: str = ""
    origin: "Ticket | None" = None

    def row(self) -> dict[str, Any]:
        answer = json.dumps({"intent": self.intent, "urgency": self.urgency, "product": self.product})
        turns = {"user": self.text, "assistant": answer}
        messages = [{"role": role, "content": content} for role, content in turns.items()]
        return {"messages": messages, "customer_id": self.customer}


def shingles(text: str) -> Shingles:
    """The word triples of ``text``, lower case, without punctuation.

    >>> sorted(shingles("The router is DEAD!"))
    [('router', 'is', 'dead'), ('the', 'router', 'is')]
    """
    words = re.findall(r"\w+", text.lower())
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def jaccard(a: Shingles, b: Shingles) -> float:
    return len(a & b) / len(a | b) if a or b else 1.0


def expand(template: str, rng: random.Random) -> str:
    """Choose one alternative of each ``[a|b]``, the innermost first.

    >>> expand("[a[b]]c", random.Random(0))
    'abc'
    """
    while match := re.search(r"\[([^\[\]]*)\]", template):
        template = template[: match.start()] + rng.choice(match[1].split("|")) + template[match.end() :]
    return template


class Composer:
    """Puts a ticket together: greeting, situation, ask, product, distractors, cue of urgency, sign-off."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def ticket(self, intent: str, urgency: str, product: str) -> Ticket:
        """A ticket whose words lead to the three given fields."""
        while True:
            text = roughen(self.rng, [self.fill(part, product) for part in self.parts(intent, urgency, product)])
            if SHORTEST <= len(text.split()) <= LONGEST:
                return Ticket(text, intent, urgency, product)

    def parts(self, intent: str, urgency: str, product: str) -> list[str]:
        body = [self.line(phrases.INTENTS[intent])]
        topics = phrases.SITUATIONS_OF.get(intent, "").split()
        if topics and self.chance(0.45):
            body.insert(int(self.chance(0.25)), self.line(phrases.SITUATIONS[self.rng.choice(topics)]))
        if intent in ("technical_fault", "warranty_claim", "refund_request") and self.chance(0.3):
            body.append(f"[{bank.SYMPTOMS[product]}].")
        body = self.mention(body)
        for distractor in self.rng.sample(lines(bank.DISTRACTORS), self.rng.choices((0, 1, 2), (50, 38, 12))[0]):
            body.insert(self.rng.randrange(len(body) + 1), distractor)
        cue = {"high": bank.URGENT, "low": bank.RELAXED}.get(urgency)
        if cue:
            body.insert(0 if self.chance(0.25) else len(body), self.line(cue))
        if self.chance(0.55):
            body.insert(0, self.rng.choice(bank.GREETINGS.split("|")) + ",")
        if self.chance(0.5):
            body.append(self.rng.choice(bank.SIGN_OFFS.split("|")))
        return body

    def mention(self, body: list[str]) -> list[str]:
        """See that the product is named: in the ask, or in a sentence of its own while the ask says "the device"."""
        named = any("{p}" in part for part in body)
        if named and self.chance(0.72):
            return body
        if named and self.chance(0.8):
            body = [part.replace("{p}", self.rng.choice(bank.GENERIC.split("|"))) for part in body]
        about = self.line(bank.ABOUT)
        return [about, *body] if self.chance(0.7) else [*body, about]

    def fill(self, template: str, product: str) -> str:
        text = expand(template, self.rng)
        other = self.rng.choice([name for name in bank.PRODUCTS if name != product])
        while match := re.search(r"\{(\w+)\}", text):
            text = text[: match.start()] + self.slot(match[1], product, other) + text[match.end() :]
        return text

    def slot(self, name: str, product: str, other: str) -> str:
        if name in ("p", "q"):
            return self.rng.choice(bank.PRODUCTS[product if name == "p" else other].split("|"))
        if name == "amount":
            value = self.rng.choice((19, 29, 35, 49, 59, 64, 79, 89, 99, 120, 129, 149, 180, 199, 240, 289, 349))
            return self.rng.choice((f"{value} euros", f"${value}", f"{value} dollars", f"{value},90"))
        if name == "order":
            number = self.rng.randrange(1000, 99999)
            return self.rng.choice(
                (f"order {number}", f"order no. {number}", f"order {self.letter()}-{number}", "my order")
            )
        return self.rng.choice(bank.SLOTS[name].split("|"))

    def letter(self) -> str:
        return self.rng.choice("ABCDEFGH")

    def line(self, block: str) -> str:
        return self.rng.choice(lines(block))

    def chance(self, share: float) -> bool:
        return self.rng.random() < share


def lines(block: str) -> list[str]:
    return block.strip().splitlines()


def roughen(rng: random.Random, parts: list[str]) -> str:
    """Join sentences as a hurried customer would: odd casing, lost punctuation, line breaks, typos."""
    text = parts[0] + "".join(("\n" if rng.random() < 0.08 else " ") + part for part in parts[1:])
    style = rng.choices(("as is", "lower", "upper"), (60, 36, 4))[0]
    text = {"as is": text, "lower": text.lower(), "upper": text.upper()}[style]
    if rng.random() < 0.25:
        text = re.sub(r"[.,](?=\s|$)", "", text)
    elif rng.random() < 0.2:
        text = re.sub(r"[.](?=\s|$)", rng.choice(("!", "!!", "..", " -")), text)
    rate = rng.choices((0.0, 0.03, 0.08), (50, 35, 15))[0]
    return re.sub(r"[A-Za-z]{4,}", lambda match: typo(rng, match[0]) if rng.random() < rate else match[0], text)


def typo(rng: random.Random, word: str) -> str:
    """One slip of the finger inside ``word``: swap, drop, double, or a neighbour key."""
    at = rng.randrange(1, len(word) - 1)
    kind = rng.choice(("swap", "drop", "double", "neighbour"))
    if kind == "swap":
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == "drop":
        return word[:at] + word[at + 1 :]
    if kind == "double":
        return word[:at] + word[at] + word[at:]
    keys = "qwertyuiopasdfghjklzxcvbnm"
    near = keys[(keys.find(word[at].lower()) + 1) % len(keys)]
    return word[:at] + (near.upper() if word[at].isupper() else near) + word[at + 1 :]


def honest_tickets(rng: random.Random, count: int) -> list[Ticket]:
    """``count`` tickets, none close to another."""
    composer, tickets = Composer(rng), list[Ticket]()
    seen: list[Shingles] = []
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    while len(tickets) < count:
        intent = rng.choices(list(phrases.INTENTS), INTENT_WEIGHTS)[0]
        urgency = rng.choices(list(URGENCY_WEIGHTS), list(URGENCY_WEIGHTS.values()))[0]
        ticket = composer.ticket(intent, urgency, rng.choice(list(bank.PRODUCTS)))
        own = shingles(ticket.text)
        neighbours = {index for triple in own for index in holders[triple]}
        if any(jaccard(own, seen[index]) >= 0.5 for index in neighbours):
            continue
        for triple in own:
            holders[triple].append(len(tickets))
        seen.append(own)
        tickets.append(ticket)
    return tickets


def with_customers(rng: random.Random, tickets: list[Ticket]) -> list[Ticket]:
    """Give the first tickets to ``SEVERAL`` customers with 2 to 6 each, every other ticket to a customer of its own."""
    numbers = iter(rng.sample(range(1, 9999), len(tickets)))
    customers: list[str] = []
    for _ in range(SEVERAL):
        customers += [f"C{next(numbers):04d}"] * rng.choices((2, 3, 4, 5, 6), (45, 25, 15, 10, 5))[0]
    customers += [f"C{next(numbers):04d}" for _ in tickets[len(customers) :]]
    return [replace(ticket, customer=customer) for ticket, customer in zip(tickets, customers, strict=True)]


def personal(rng: random.Random, ticket: Ticket, index: int) -> Ticket:
    """Add an e-mail address, a phone or a card number, all from ranges reserved for examples and tests."""
    kind = ("email", "phone", "card")[index % 3]
    name = rng.choice(("jun.keller", "ana_m", "t.byrne", "office", "priya.n", "lukas84", "m.silva"))
    line = rng.randrange(100, 200)
    secret = {
        "email": f"{name}@{rng.choice(('example.org', 'mail.example.com', 'example.net'))}",
        "phone": rng.choice((f"+1 202 555 0{line}", f"(415) 555-0{line}", f"+44 20 7946 0{line}", f"020 7946 0{line}")),
        "card": rng.choice(("4111 1111 1111 1111", "5555 5555 5555 4444", "4242424242424242", "5105-1051-0510-5100")),
    }[kind]
    lead = {"email": "Write to me at", "phone": "You can call me on", "card": "The card I paid with is"}[kind]
    return replace(ticket, text=f"{ticket.text}\n{lead} {secret}", flaw=f"personal {kind}")


def near_copy(rng: random.Random, ticket: Ticket) -> Ticket | None:
    """A copy with a small edit, 3-shingle Jaccard with the original in [0.85, 1); None where the text is too short."""
    words = ticket.text.split(" ")
    at = rng.randrange(len(words))
    edits = (
        [*words, rng.choice(("please", "ok", "again", "now then"))],
        [rng.choice(("well", "so", "ok")), *words],
        [*words[:at], words[at] + "s", *words[at + 1 :]],
        words[1:],
    )
    text = " ".join(rng.choice(edits))
    similar = jaccard(shingles(text), shingles(ticket.text))
    return replace(ticket, text=text, flaw="near duplicate", origin=ticket) if 0.85 <= similar < 1 else None


def contradict(rng: random.Random, ticket: Ticket, index: int) -> Ticket:
    """The same text with another intent, or (every second one) another urgency."""
    changed = replace(ticket, flaw="contradiction", origin=ticket)
    if index % 2:
        return replace(changed, urgency=rng.choice([name for name in URGENCY_WEIGHTS if name != ticket.urgency]))
    return replace(changed, intent=rng.choice([name for name in phrases.INTENTS if name != ticket.intent]))


def planted(rng: random.Random) -> list[Ticket]:
    """All readable rows in file order: honest tickets, some with personal data, and the three kinds of copies."""
    tickets = with_customers(rng, honest_tickets(rng, HONEST))
    rng.shuffle(tickets)
    personal_rows = [index for index, ticket in enumerate(tickets) if len(ticket.text.split()) <= LONGEST - 8][:21]
    for place, index in enumerate(personal_rows):
        tickets[index] = personal(rng, tickets[index], place)
    rest = iter(ticket for ticket in tickets if not ticket.flaw)
    copies = [
        replace(origin, flaw="exact duplicate", origin=origin) for origin, _ in zip(rest, range(EXACT), strict=False)
    ]
    copies += [contradict(rng, origin, index) for index, origin in zip(range(CONTRADICTING), rest, strict=False)]
    close = (near_copy(rng, origin) for origin in rest if len(origin.text.split()) < LONGEST)
    copies += [copy for _, copy in zip(range(NEAR), filter(None, close), strict=False)]
    taken = {ticket.customer for ticket in tickets}
    free = iter([name for name in (f"C{number:04d}" for number in range(1, 9999)) if name not in taken])
    rows = [*tickets, *(replace(copy, customer=next(free)) for copy in copies)]
    rng.shuffle(rows)
    return rows


def malformed(rng: random.Random) -> dict[str, str]:
    """One line of each kind that cannot be read as a conversation."""
    composer = Composer(rng)
    rows = []
    for number in range(9994, 10000):
        ticket = composer.ticket(rng.choice(list(phrases.INTENTS)), "normal", rng.choice(list(bank.PRODUCTS)))
        rows.append(replace(ticket, customer=f"C{number}").row())
    rows[1]["messages"][1]["role"] = "asistant"
    del rows[2]["messages"][1]
    rows[3]["messages"] = rows[3]["messages"][0]["content"]
    rows[4]["messages"][0]["content"] = None
    kinds = ("broken json", "wrong role", "no assistant turn", "messages not a list", "null content", "truncated line")
    written = dict(zip(kinds, (json.dumps(row, ensure_ascii=False) for row in rows), strict=True))
    written["broken json"] = written["broken json"].replace('"customer_id":', '"customer_id"')
    written["truncated line"] = written["truncated line"][:100]  # inside the ticket's text
    return written


def ground_truth(rows: list[Ticket | tuple[str, str]]) -> dict[str, Any]:
    """Where each flaw stands: 1-based line numbers, pairs in rising order."""
    where = {(row.text, row.customer): line for line, row in enumerate(rows, 1) if isinstance(row, Ticket)}
    truth: dict[str, Any] = {"exact_duplicates": [], "near_duplicates": [], "contradictions": []}
    truth |= {"personal_data": [], "malformed": [], "customers_with_several_tickets": {}}
    customers: dict[str, list[int]] = defaultdict(list)
    for line, row in enumerate(rows, 1):
        if not isinstance(row, Ticket):
            truth["malformed"].append({"line": line, "kind": row[0]})
            continue
        customers[row.customer].append(line)
        if row.origin:
            truth[row.flaw.replace(" ", "_") + "s"].append(sorted((line, where[row.origin.text, row.origin.customer])))
        elif row.flaw:
            truth["personal_data"].append({"line": line, "kind": row.flaw.removeprefix("personal ")})
    truth["customers_with_several_tickets"] = {name: at for name, at in sorted(customers.items()) if len(at) > 1}
    return truth


def readme(rows: list[Ticket], truth: dict[str, Any]) -> str:
    """The data card; every count in it is counted from the rows."""
    tables = []
    for field in ("intent", "urgency", "product"):
        counts = Counter(getattr(row, field) for row in rows).most_common()
        tables.append(f"| {field} | rows |\n|---|---|\n" + "".join(f"| {name} | {count} |\n" for name, count in counts))
    words = sorted(len(row.text.split()) for row in rows)
    flaws = "".join(f"| {kind.replace('_', ' ')} | {len(places)} |\n" for kind, places in truth.items())
    return README.format(
        lines=len(rows) + len(truth["malformed"]),
        rows=len(rows),
        shortest=words[0],
        median=words[len(words) // 2],
        longest=words[-1],
        flaws=flaws,
        tables="\n".join(tables),
    )


README = """\
# helpdesk

Customer-service tickets and their triage as a small JSON object, made for trying out a whole fine-tuning run. No
ticket is real: all are composed by `scripts/make_helpdesk.py` from phrase banks written for this project, with typos,
odd casing, sentences that lead astray and planted flaws. Licence: Apache-2.0, or CC0-1.0 at your choice.

`tickets.jsonl` has {lines} lines in OpenAI's chat format plus a `customer_id`; {rows} of them can be read. A ticket has
{shortest} to {longest} words, half of them at most {median}.

## What decides the answer

- `intent` follows from what the customer asks for, not from what happened: who wants money for a broken parcel is a
  `refund_request`.
- `urgency` is `high` where the ticket names a deadline, a standstill or harm, `low` where it says that there is time,
  else `normal`.
- `product` is the one the request is about, by its name, a synonym or a model name. Another may be mentioned too.

{tables}
## Planted flaws

`flaws.json` gives the lines of each. A copy carries a customer number of its own, so grouping by customer does not keep
it with its original.

| flaw | count |
|---|---|
{flaws}
Near duplicates share at least 0.85 of their word 3-shingles (Jaccard) with their original; any two other tickets
share less than half. E-mail addresses, phone numbers and card numbers are taken from ranges reserved for
documentation and tests.
"""


def main(folder: Path = FOLDER) -> None:
    rng = random.Random(SEED)
    rows: list[Ticket | tuple[str, str]] = [*planted(rng)]
    for kind, raw in malformed(rng).items():
        rows.insert(rng.randrange(20, len(rows)), (kind, raw))
    truth = ground_truth(rows)
    written = [json.dumps(row.row(), ensure_ascii=False) if isinstance(row, Ticket) else row[1] for row in rows]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tickets.jsonl").write_text("\n".join(written) + "\n", encoding="utf-8", newline="\n")
    (folder / "flaws.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8", newline="\n")
    card = readme([row for row in rows if isinstance(row, Ticket)], truth)
    (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

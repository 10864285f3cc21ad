"""A loaded model as a completer, an embedder and a classifier (``core.protocols``): what baselines, evaluation and
chat talk to.

Notable: base and tuned are the same object, with the adapter off or on, so both are scored by the same code. Label
likelihoods compute the prompt once and every label after it in one batch. A row's tools are in its prompt, as they
were when it was trained.
"""

from collections.abc import Iterator, Sequence

import torch

from tunesmith.core.batch import TokenRow
from tunesmith.core.example import Example, Message, Place
from tunesmith.core.protocols import Completion, Conversation, Likelihood, Tools
from tunesmith.data.batches import collate, in_order
from tunesmith.data.render import Renderer
from tunesmith.generate.sampler import Draw, sample, stream
from tunesmith.generate.stops import SETTLED
from tunesmith.models.model import Model, pooled

EVAL_TOKENS = 8192
GREEDY = Draw()
NOWHERE = Place(file="prompt", line=1)


class LocalModel:
    """Answers with ``model``, its tokens drawn as ``draw`` says: greedily unless told otherwise."""

    def __init__(self, model: Model, draw: Draw = GREEDY) -> None:
        self.model = model
        self.renderer = Renderer(model.tokenizer)
        self.context = model.card.context - len(model.soft_ids)
        self.labels = model.labels
        self.draw = draw

    def complete(
        self, prompts: Sequence[Conversation], *, max_new_tokens: int, tools: Sequence[Tools] = ()
    ) -> list[Completion]:
        """One completion a prompt; a prompt that leaves no room for an answer gets an empty one, marked ``context``."""
        ids = [self.renderer.prompt_ids(p, own) for p, own in _paired(prompts, tools)]
        fits = [i for i, p in enumerate(ids) if len(p) + max_new_tokens <= self.context]
        sampling = self.draw.until(max_new_tokens, self.renderer.stop_ids())
        answers = sample(self.model, [ids[i] for i in fits], sampling, fits)
        out = [Completion(text="", prompt_tokens=len(p), new_tokens=0, finish="context") for p in ids]
        for i, answer in zip(fits, answers, strict=True):
            text = self.model.tokenizer.decode(answer, skip_special_tokens=True)
            finish = "length" if len(answer) >= max_new_tokens else "stop"
            out[i] = Completion(text=text, prompt_tokens=len(ids[i]), new_tokens=len(answer), finish=finish)
        return out

    def stream(self, prompt: Conversation, *, max_new_tokens: int) -> Iterator[str]:
        """One completion in pieces, as it is written; together they are its text. The last few characters are held
        back until the end, for later tokens may still change them; where there are stops, more, and whole tokens, for
        a stop takes away the token that it begins in."""
        held = SETTLED + max(map(len, self.draw.stops), default=0)
        asked, written, shown, ends = self.renderer.prompt_ids(prompt), list[int](), "", [0]
        for token in stream(self.model, [asked], self.draw.until(max_new_tokens, self.renderer.stop_ids())):
            written = written[: token.kept] if token.id is None else [*written, token.id]
            text = self.model.tokenizer.decode(written, skip_special_tokens=True)
            ends.append(len(text))
            settled = max(0, len(text) - held)
            if self.draw.stops:
                settled = max(end for end in ends if end <= settled)
            ready = text[:settled] if token.finish is None else text
            if len(ready) > len(shown):
                yield ready[len(shown) :]
                shown = ready

    def likelihood(
        self, prompts: Sequence[Conversation], answers: Sequence[str | Message], *, tools: Sequence[Tools] = ()
    ) -> list[Likelihood]:
        """Log-likelihood of each answer (its stop token included) after its prompt; rows are cut at the context."""
        rows: list[TokenRow] = []
        empty: list[int] = []
        for i, ((prompt, own), answer) in enumerate(zip(_paired(prompts, tools), answers, strict=True)):
            row = self._text(answer) if not prompt and isinstance(answer, str) else self._answered(prompt, answer, own)
            kept = TokenRow(row.ids[: self.context], row.weight[: self.context], -1, str(i))
            if kept.trained:
                rows.append(kept)
            else:  # the prompt fills the context: nothing is left to score, and the count of tokens says so
                empty.append(i)
        found = {i: Likelihood(logp=0.0, tokens=0) for i in empty}
        with torch.no_grad():
            for batch in in_order(rows, budget=EVAL_TOKENS, pad_id=0):
                logp_BT = self.model.token_logp(batch).cpu()
                for name, logp_T, weight_T in zip(batch.example_ids, logp_BT, batch.weight_BT, strict=True):
                    found[int(name)] = Likelihood(logp=float(logp_T.double().sum()), tokens=int((weight_T > 0).sum()))
        return [found[i] for i in range(len(prompts))]

    def label_logp(
        self, prompts: Sequence[Conversation], labels: Sequence[str], *, tools: Sequence[Tools] = ()
    ) -> list[list[float]]:
        """Log-likelihood of each label after each prompt: ``len(prompts)`` rows, ``len(labels)`` columns."""
        return [self._labels_after(p, labels, own) for p, own in _paired(prompts, tools)]

    @torch.no_grad()
    def _labels_after(self, prompt: Conversation, labels: Sequence[str], tools: Tools) -> list[float]:
        """The prompt is computed once; its cache is then repeated for a batch of all labels."""
        from transformers import DynamicCache

        model, device = self.model, self.model.device
        shared = self.renderer.prompt_ids(prompt, tools)
        rows = [self._answered(prompt, label, tools) for label in labels]
        if any(row.ids[: len(shared)] != tuple(shared) or len(row.ids) > self.context for row in rows):
            return [x.logp for x in self.likelihood([prompt] * len(labels), labels, tools=[tools] * len(labels))]
        cache = DynamicCache(config=model.network.config)
        tails = [TokenRow(row.ids[len(shared) - 1 :], row.weight[len(shared) - 1 :]) for row in rows]
        batch = collate(tails, pad_id=0).to(device)
        before = [*model.soft_ids, *shared[:-1]]
        if before:
            model.backbone(input_ids=torch.tensor([before], device=device), past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(len(labels))
        logits_BTV = model.network(input_ids=batch.ids_BT, past_key_values=cache, use_cache=True).logits
        logp_BTV = logits_BTV.float().log_softmax(-1)
        logp_BT = logp_BTV.gather(-1, batch.target_BT[..., None])[..., 0]
        return [float(x) for x in (logp_BT * (batch.weight_BT > 0)).double().sum(-1)]

    def _answered(self, prompt: Conversation, answer: str | Message, tools: Tools) -> TokenRow:
        """Prompt and answer as one row in which the answer (and its stop token) alone has weight."""
        asked = tuple(m.model_copy(update={"weight": 0.0}) for m in prompt)
        turn = Message(role="assistant", content=answer) if isinstance(answer, str) else answer
        row = Example(place=NOWHERE, messages=(*asked, turn.model_copy(update={"weight": 1.0})), tools=tuple(tools))
        return self.renderer.rows(row).rows[0]

    def _text(self, text: str) -> TokenRow:
        """A plain text, every token of which has weight."""
        ids = [i for row in self.renderer.rows(Example(place=NOWHERE, text=text)).rows for i in row.ids]
        return TokenRow(tuple(ids), (1.0,) * len(ids))

    def count_tokens(self, prompt: Conversation, *, tools: Tools = ()) -> int:
        return len(self.renderer.prompt_ids(prompt, tools))

    def _encoded(self, texts: Sequence[str]) -> list[TokenRow]:
        size = self.context
        examples = [Example(place=NOWHERE, text=t) for t in texts]
        ids = [tuple(self.renderer.classify_ids(e)[:size]) for e in examples]
        return [TokenRow(row, (0.0,) * len(row), -1, str(i)) for i, row in enumerate(ids)]

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Unit vectors: mean-pooled last hidden states."""
        found: dict[int, list[float]] = {}
        for batch in in_order(self._encoded(texts), budget=EVAL_TOKENS, pad_id=self.model.tokenizer.pad_token_id or 0):
            hidden_ND = self.model.hidden(batch.ids_BT, batch.length_B)
            pooled_BD = pooled(hidden_ND, batch.length_B.to(self.model.device), "mean")
            vectors_BD = torch.nn.functional.normalize(pooled_BD, dim=-1)
            found |= {int(n): v for n, v in zip(batch.example_ids, vectors_BD.tolist(), strict=True)}
        return [found[i] for i in range(len(texts))]

    @torch.no_grad()
    def class_logp(self, rows: Sequence[TokenRow]) -> list[list[float]]:
        """Log-probability of each class of the head for each rendered row."""
        named = [TokenRow(r.ids, r.weight, r.label, str(i)) for i, r in enumerate(rows)]
        found: dict[int, list[float]] = {}
        for batch in in_order(named, budget=EVAL_TOKENS, pad_id=self.model.tokenizer.pad_token_id or 0):
            logp_BC = self.model.class_logp(batch)
            found |= {int(n): v for n, v in zip(batch.example_ids, logp_BC.float().tolist(), strict=True)}
        return [found[i] for i in range(len(rows))]

    def classify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """(label, its log-probability) for each text, by the head."""
        out = []
        for logp in self.class_logp(self._encoded(texts)):
            best = max(range(len(logp)), key=logp.__getitem__)
            out.append((self.labels[best], logp[best]))
        return out


def _paired(prompts: Sequence[Conversation], tools: Sequence[Tools]) -> list[tuple[Conversation, Tools]]:
    """Each prompt with its tools; ``tools`` may be empty when no prompt has any."""
    return list(zip(prompts, tools or [()] * len(prompts), strict=True))

"""A policy and its critic as one thing that is trained: two adapters on one base, two forward passes, one step.

Notable: the loop knows neither; it asks for log-probabilities with values and gets both. What is saved and sampled is
the policy. The critic's weights are named ``critic.`` in checkpoints.
"""

from collections.abc import Callable, Collection

from torch import Tensor, nn

from tunesmith.core.batch import Batch
from tunesmith.models.model import Model
from tunesmith.models.schedule import Schedule

CRITIC = "critic."


class ActorCritic:
    """``rates`` and ``schedule`` are the policy's; the critic learns at the policy's rate."""

    def __init__(self, policy: Model, critic: Model) -> None:
        self.policy, self.critic = policy, critic

    @property
    def rates(self) -> dict[str, float]:
        return self.policy.rates | {f"{CRITIC}{n}": rate for n, rate in self.critic.rates.items()}

    @property
    def schedule(self) -> Schedule:
        return self.policy.schedule

    @property
    def device(self) -> str:
        return self.policy.device

    @property
    def may_rest(self) -> Collection[str]:
        return {*self.policy.may_rest, *(f"{CRITIC}{n}" for n in self.critic.may_rest)}

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        return self.policy.trainable() + [(f"{CRITIC}{n}", p) for n, p in self.critic.trainable()]

    def token_logp_value(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-probability and value [B, T] of each target whose weight is not zero; zero elsewhere."""
        return self.policy.token_logp(batch), self.critic.token_score(batch)

    def train(self, mode: bool = True) -> None:
        self.policy.train(mode)
        self.critic.train(mode)

    def refresh(self) -> None:
        self.policy.refresh()
        self.critic.refresh()

    def on_gradient(self, then: Callable[[nn.Parameter], None]) -> None:
        self.policy.on_gradient(then)
        self.critic.on_gradient(then)

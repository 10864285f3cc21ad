"""Networks that score a policy's answers, in plan and run alike."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.flows.conftest import MakeRecipe

from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.core.report import Report
from tunesmith.flows.networks import TO_COME
from tunesmith.flows.plan import plan, plans
from tunesmith.flows.prepare import prepare
from tunesmith.records.folder import RunFolder

Finished = Callable[[str], str]
RULES = {"rules": {"token_f1": 1.0}}


def policy(make_recipe: MakeRecipe, reward: dict[str, Any], **groups: Any) -> Any:
    train = {"batch_tokens": "auto"} | groups.pop("train", {})
    asked = {"objective": "grpo", "reward": reward, "train": train, "evaluate": {"max_new_tokens": 6}}
    return make_recipe(**asked, rollout={"prompts": 8, "answers": 4}, **groups)


def parts(make_recipe: MakeRecipe, reward: dict[str, Any], **groups: Any) -> dict[str, int]:
    """What stands in memory for ``reward`` beside what stands there for rules, by the plan; so does the run."""
    asked, plain = policy(make_recipe, reward, **groups), policy(make_recipe, RULES, **groups)
    found, without = plan(asked), plan(plain)
    more = {name: size for name, size in found.memory.items() if name not in without.memory}
    planned, ruled = (prepare(one).plan.peak_bytes or 0 for one in (asked, plain))
    assert planned - ruled == found.peak_bytes - without.peak_bytes == sum(more.values())
    assert found.assumed == without.assumed
    return more


def report(run: str) -> Report:
    return Report.load(RunFolder(Path(run)).report)


def test_rules_alone_hold_nothing(make_recipe: MakeRecipe) -> None:
    assert not {"reward model", "judge"} & plan(policy(make_recipe, RULES)).memory.keys()


def test_a_reward_model_on_the_same_base_is_an_adapter(make_recipe: MakeRecipe, finished: Finished) -> None:
    run = finished("reward")
    assert parts(make_recipe, {"model": run}) == {"reward model": 4 * report(run).plan.trainable}


def test_a_reward_model_on_another_base_is_a_network_of_its_own(make_recipe: MakeRecipe, finished: Finished) -> None:
    run = finished("classifier")
    held = 4 * (report(run).card.parameters + report(run).plan.trainable)
    assert parts(make_recipe, {"model": run, "label": "fee"})["reward model"] == pytest.approx(held, rel=0.02)
    asked = plan(policy(make_recipe, {"model": run, "label": "fee"}))
    assert not asked.time or "reward" in asked.time


def test_a_judge_is_held_too(make_recipe: MakeRecipe, finished: Finished) -> None:
    judge = finished("judge")
    assert parts(make_recipe, RULES | {"judge": judge}) == {"judge": 4 * report(judge).plan.trainable}


def test_in_another_precision_the_same_base_is_held_twice(make_recipe: MakeRecipe, finished: Finished) -> None:
    run = finished("reward")
    found = parts(make_recipe, {"model": run}, train={"precision": "bfloat16"})
    assert found == {"reward model": 4 * (report(run).card.parameters + report(run).plan.trainable)}


def test_a_stage_to_come_is_taken_to_be_as_its_recipe_says(make_recipe: MakeRecipe, finished: Finished) -> None:
    asked = policy(make_recipe, {"model": TO_COME})
    own = 4 * report(finished("reward")).plan.trainable
    alone = plan(asked)
    assert alone.memory["reward model"] == own
    assert "reward.model: the run of an earlier stage, taken to leave what method lora trains on llama." in (
        alone.assumed
    )
    same = make_recipe("preferred", objective="reward")
    assert plans([same, asked])[-1].memory["reward model"] == own
    other = make_recipe("preferred", model="bert", objective="reward", method={"name": "full"})
    found = plans([other, asked])[-1]
    assert found.memory["reward model"] == pytest.approx(4 * report(finished("classifier")).card.parameters, rel=0.02)
    assert any("method full trains on bert" in told for told in found.assumed)


def test_what_is_no_finished_run_is_told(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"reward\.model: .*nowhere is no folder"):
        plan(policy(make_recipe, {"model": str(tmp_path / "nowhere")}))
    with pytest.raises(ModelError, match=r"no report\.json"):
        plan(policy(make_recipe, RULES | {"judge": str(tmp_path)}))


def test_a_run_is_read_without_torch(make_recipe: MakeRecipe, finished: Finished) -> None:
    asked = policy(make_recipe, {"model": finished("reward")})
    code = (
        "import sys\n"
        "from tunesmith.core.recipe import Recipe\n"
        "from tunesmith.flows.plan import plan\n"
        f"assert plan(Recipe.model_validate_json({asked.model_dump_json()!r})).memory['reward model']\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr

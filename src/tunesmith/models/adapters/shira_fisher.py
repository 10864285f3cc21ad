"""SHiRA on the weights whose Fisher value over some training rows is largest (Sung et al., 2021); by PEFT."""

from tunesmith.models.adapters.shira import scored

PART = scored("shira_fisher", "fisher")

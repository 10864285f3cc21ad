"""SHiRA (Bhardwaj et al., 2024) on the weights whose gradient over some training rows is largest; by PEFT."""

from tunesmith.models.adapters.shira import scored

PART = scored("shira_gradient", "gradient")

"""Sampling plans: which document is draw number i of a run, and why. A pure function, balanced over clusters."""

from dataforge.plans.allocation import draws_per_cluster
from dataforge.plans.preview import summary_lines
from dataforge.plans.samplers import samplers
from dataforge.plans.sampling_plan import SamplingPlan

__all__ = ["SamplingPlan", "draws_per_cluster", "samplers", "summary_lines"]

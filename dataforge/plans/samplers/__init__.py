"""Ways to share a budget of draws over clusters, one method a file, registered by name."""

from dataforge.plans.samplers import clusterclip, proportional, temperature, uniform
from dataforge.plans.samplers.sampler import Mixture, Sampler, Schedule, mixture_of, samplers

__all__ = [
    "Mixture",
    "Sampler",
    "Schedule",
    "clusterclip",
    "mixture_of",
    "proportional",
    "samplers",
    "temperature",
    "uniform",
]

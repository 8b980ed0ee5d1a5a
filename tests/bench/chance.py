"""What numbers say when the machine is noisy: medians, and ratios within a round."""

import random
from statistics import median

RESAMPLES = 2000
ECHO_MAX, ECHO_MIN = 1.03, 0.97
"""A run in which two copies of one program differ by more has measured something else."""


def ratio(ours, theirs):
    """The median of the paired ratios, and where it lies with 95 % by bootstrap: `(median, low, high)`."""
    ratios = [mine / other for mine, other in zip(ours, theirs)]
    chance = random.Random(1)
    medians = sorted(median(chance.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return median(ratios), medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1]


def shown(interval):
    middle, low, high = interval
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"

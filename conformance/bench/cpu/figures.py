"""What is made of times: medians, percentiles, spreads, and how far a ratio can be trusted. Standard library only."""

import math
import statistics


def percentile(values, share):
    """The value that `share` of all do not exceed; of `share` 0.95, a run that was really seen."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def summary(rounds):
    """Of one engine: a list of times for each round. The figure is the median of the rounds' medians."""
    medians = [statistics.median(times) for times in rounds]
    every = [time for times in rounds for time in times]
    return {
        "median_ms": statistics.median(medians), "p95_ms": percentile(every, 0.95), "min_ms": min(every),
        "spread": max(medians) / min(medians) - 1, "runs": len(every), "rounds": len(rounds), "medians_ms": medians,
    }


def sign_interval(values, confidence=0.95):
    """An interval that holds the median of what the values are drawn from, by the signs of their differences from it.

    Nothing is assumed of their distribution: of n independent values, the number below the true median is binomial (n, 1/2), so the interval
    from the k-th least to the k-th largest misses it with twice the chance that fewer than k lie below. The largest k that keeps the
    confidence; None where even all values are too few, which is below six at 95 %. Gives (low, high, confidence kept).
    """
    ordered, count = sorted(values), len(values)
    miss, best = 0.0, None
    for k in range(1, count // 2 + 1):
        miss += 2 * math.comb(count, k - 1) / 2**count
        if 1 - miss < confidence:
            break
        best = (ordered[k - 1], ordered[count - k], 1 - miss)
    return best


def paired(ours, peer):
    """Ours by the peer's, round by round: what slows a round down slows both. Below one is faster."""
    ratios = [a / b for a, b in zip(ours, peer)]
    interval = sign_interval(ratios)
    return {
        "ratio": statistics.median(ratios), "low": interval and interval[0], "high": interval and interval[1],
        "confidence": interval and interval[2], "rounds": len(ratios), "ratios": ratios,
    }


def least_ms(facts, limits, integer, cache_bytes):
    """The time that a row cannot go below by the multiplications that its layers are written with and the weights that it has to read.

    Winograd's and Strassen's ways need fewer multiplications, so that a row can be above 100 %. Weights that fit into the last cache need not
    be read from memory in each run.
    """
    peak = limits["i8_gops"] if integer else limits["f32_gflops"]
    arithmetic = facts["operations"] / peak / 1e6
    stored = facts["weight_bytes"] // 4 if integer else facts["weight_bytes"]
    memory = max(0, stored - cache_bytes) / limits["read_gbs"] / 1e6
    return (arithmetic, "arithmetic") if arithmetic >= memory else (memory, "memory")

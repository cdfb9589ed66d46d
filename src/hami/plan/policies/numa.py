"""Take the lowest NUMA node first."""

from hami.plan.policies.candidate import Candidate, CardPolicy


def key(candidate: Candidate) -> float:
    return candidate.card.numa


POLICY = CardPolicy("numa", key)

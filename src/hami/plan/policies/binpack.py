"""Fill the fullest card that still fits, so that others stay whole."""

from hami.plan.policies.candidate import Candidate, CardPolicy


def key(candidate: Candidate) -> float:
    return -candidate.score


POLICY = CardPolicy("binpack", key)

"""Take the emptiest card, so that neighbours disturb each other least."""

from hami.plan.policies.candidate import Candidate, CardPolicy


def key(candidate: Candidate) -> float:
    return candidate.score


POLICY = CardPolicy("spread", key)

"""A pod's annotations -> how nodes and cards are chosen for it, and doubts about what is written.

Words nobody knows count for nothing and are told to their author by the webhook;
weights that cannot be read are a fault, as in HAMi.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from hami.model.ask import NodePolicy, Weights
from hami.model.errors import Malformed
from hami.wire import annotations as keys

NODE_POLICIES = tuple(policy.value for policy in NodePolicy)
CARD_POLICIES = ("binpack", "spread", "numa", "mutex", "topology-aware")
KEYS = (keys.NODE_POLICY, keys.CARD_POLICY, keys.SCORING_WEIGHTS)
_WEIGHTS_FORM = "three whole numbers, one of them above 0, as in slot=1,core=1,memory=1"


def node_policy(annotations: Mapping[str, str], default: NodePolicy) -> NodePolicy:
    """The pod's node policy, or `default`."""
    word = annotations.get(keys.NODE_POLICY, "").strip()
    return NodePolicy(word) if word in NODE_POLICIES else default


def card_policy(annotations: Mapping[str, str], default: tuple[str, ...]) -> tuple[str, ...]:
    """The pod's chain of card policies, known words only, each once; or `default`."""
    known = dict.fromkeys(word for word in keys.words(annotations.get(keys.CARD_POLICY)) if word in CARD_POLICIES)
    return tuple(known) or default


def weights(annotations: Mapping[str, str]) -> Weights:
    """The pod's scoring weights: ``slot=1,core=1,memory=3`` in any order. Raises `Malformed`."""
    text = annotations.get(keys.SCORING_WEIGHTS)
    if text is None:
        return Weights()
    path = f"metadata.annotations[{keys.SCORING_WEIGHTS}]"
    given: dict[str, int] = {}
    for entry in text.split(","):
        key, _, number = (part.strip() for part in entry.partition("="))
        if key in given or not (number.isascii() and number.isdigit() and len(number) <= 9):
            raise Malformed(path, text, _WEIGHTS_FORM)
        given[key] = int(number)
    if given.keys() != {"slot", "core", "memory"} or not any(given.values()):
        raise Malformed(path, text, _WEIGHTS_FORM)
    return Weights(**given)


def doubts(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """Warnings about policy words and ``hami.io/`` keys that count for nothing."""
    node = annotations.get(keys.NODE_POLICY, "").strip()
    unknown = [(keys.NODE_POLICY, node, NODE_POLICIES)] if node and node not in NODE_POLICIES else []
    unknown += [
        (keys.CARD_POLICY, word, CARD_POLICIES)
        for word in keys.words(annotations.get(keys.CARD_POLICY))
        if word not in CARD_POLICIES
    ]
    misspelt = [key for key in annotations if key.startswith("hami.io/") and key not in KEYS and _meant(key)]
    return (
        *(f"metadata.annotations[{key}]: {_short(word)} counts for nothing: known are {', '.join(known)}"
          for key, word, known in unknown),
        *(f"metadata.annotations[{key[:80]}] counts for nothing: did you mean {_meant(key)[0]}?" for key in misspelt),
    )  # fmt: skip


def _meant(key: str) -> Sequence[str]:
    return get_close_matches(key, KEYS, 1, 0.85)


def _short(word: str) -> str:
    return repr(word if len(word) <= 40 else f"{word[:39]}…")

"""Which Xids say that a card is broken, and not merely a program on it.

Xids are the driver's error numbers. An administrator may move single ones with
the same variables as for NVIDIA's plugin and HAMi's. Pure.
"""

from collections.abc import Mapping

from msgspec import Struct

from hami.model.errors import Malformed

APPLICATION_FAULTS = frozenset({13, 31, 43, 45, 68, 109})
"""A program's own doing: illegal accesses, page faults, resets of its channel."""
DISABLE = "DP_DISABLE_HEALTHCHECKS"
ENABLE = "DP_ENABLE_HEALTHCHECKS"
NAMES: Mapping[int, str] = {
    48: "double-bit ECC error",
    62: "internal micro-controller halt",
    63: "row remapping",
    64: "row remapping failed",
    74: "NVLink error",
    79: "the card has fallen off the bus",
    92: "high rate of single-bit ECC errors",
    94: "contained ECC error",
    95: "uncontained ECC error",
    119: "GSP does not answer",
    120: "GSP error",
    140: "unrecovered ECC error",
    143: "GPU initialisation failed",
}


class XidRules(Struct, frozen=True):
    """Enabling wins over disabling, and both win over the built-in list."""

    disabled: frozenset[int] = APPLICATION_FAULTS
    all_disabled: bool = False
    enabled: frozenset[int] = frozenset()
    all_enabled: bool = False

    @property
    def off(self) -> bool:
        """Nothing is watched for."""
        return self.all_disabled and not self.all_enabled and not self.enabled

    def matters(self, xid: int) -> bool:
        """Whether the card counts as broken."""
        if self.all_enabled or xid in self.enabled:
            return True
        return not self.all_disabled and xid not in self.disabled


def rules(environment: Mapping[str, str]) -> XidRules:
    """From ``DP_DISABLE_HEALTHCHECKS`` (all, xids, or numbers) and ``DP_ENABLE_HEALTHCHECKS`` (all, or numbers).

    Raises Malformed for what is neither: HAMi skips it, and with it the number that was meant.
    """
    disabled = _words(environment.get(DISABLE, ""))
    enabled = _words(environment.get(ENABLE, ""))
    return XidRules(
        disabled=APPLICATION_FAULTS | _numbers(DISABLE, disabled - {"all", "xids"}, "all, xids, or Xids"),
        all_disabled=bool(disabled & {"all", "xids"}),
        enabled=_numbers(ENABLE, enabled - {"all"}, "all, or Xids"),
        all_enabled="all" in enabled,
    )


def describe(xid: int) -> str:
    """``Xid 79 (the card has fallen off the bus)``."""
    return f"Xid {xid} ({NAMES[xid]})" if xid in NAMES else f"Xid {xid}"


def _words(text: str) -> set[str]:
    return {word.strip().lower() for word in text.split(",") if word.strip()}


def _numbers(variable: str, words: set[str], allowed: str) -> frozenset[int]:
    for word in words:
        if not word.isdecimal():
            raise Malformed(variable, word, f"a comma list of {allowed}")
    return frozenset(map(int, words))

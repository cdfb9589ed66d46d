"""What the asker does who follows a fix: the ask as it is then."""

from msgspec.structs import replace

from hami.model.ask import Ask, CardRules
from hami.plan.advice.changes import accepting, each, with_cards, with_cores, with_memory, with_percent
from hami.plan.advice.fixes import Change, Fix


def applied(fix: Fix, ask: Ask) -> Ask:  # noqa: PLR0911 - a return a change
    """The ask after a change of the asker's; the same where others would have to act."""
    most = fix.value or 0
    match fix.change:
        case Change.LESS_MEMORY if fix.text.endswith("MiB a card"):
            return each(ask, lambda one: with_memory(one, most))
        case Change.LESS_MEMORY:
            return each(ask, lambda one: with_percent(one, most))
        case Change.LESS_CORES:
            return each(ask, lambda one: with_cores(one, most))
        case Change.LESS_OF_BOTH:
            cap = with_memory if "MiB" in fix.text else with_percent
            return each(ask, lambda one: cap(with_cores(one, fix.cores or 0), most))
        case Change.FEWER_CARDS:
            return each(ask, lambda one: with_cards(one, most))
        case Change.OTHER_TYPE:
            return accepting(ask, fix.model or "")
        case Change.ANY_NUMA:
            return each(ask, lambda one: replace(one, rules=replace(one.rules, numa_bind=False)))
        case Change.NO_RULES:
            return each(ask, lambda one: replace(one, rules=CardRules(numa_bind=one.rules.numa_bind)))
        case _:
            return ask

"""The node policy `pack`: place each pod where the room that is lost to others like it is least worth.

`demand` learns what is asked, `prices` says what a residue of a card is worth under that demand, `scale` tabulates it,
`worth` adds up what a node is worth, `chooser` compares nodes before and after, and `shown` says so. docs/adr/0008 has
the reasons.
"""

from hami.plan.pack.chooser import Pack
from hami.plan.pack.shown import Worth

__all__ = ["Pack", "Worth"]

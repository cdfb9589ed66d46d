"""`hami lab`: the lab from a shell."""

from hami.lab.commands import command

__all__ = ["command"]

"""`python -m hami` is `hami`."""

from hami.cli.main import main

main()

"""Mutation testing: what may be changed (`change`), which test runs what (`cover`), what happens then (`trial`)."""

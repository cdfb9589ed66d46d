"""HAMi: slices of accelerators on Kubernetes."""

__version__ = "0.1.0"
"""The one version string: package metadata, `hami version`, logs and `hami_build_info` take it from here."""

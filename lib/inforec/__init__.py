"""inforec: recommendation as distribution matching."""

__version__ = "0.1.0"

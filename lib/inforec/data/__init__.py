"""Data sets: what exists, how it is fetched, and :func:`load`."""

from inforec.data.dataset import Dataset, Knowledge, load

__all__ = ["Dataset", "Knowledge", "load"]

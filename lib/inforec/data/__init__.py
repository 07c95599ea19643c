"""Data sets: what exists, how it is fetched, :func:`load` and :func:`load_impressions`."""

from inforec.data.dataset import Dataset, Knowledge, load
from inforec.data.impressions import Clicks, load_impressions

__all__ = ["Clicks", "Dataset", "Knowledge", "load", "load_impressions"]

"""Data sets: what exists, how it is fetched, and how it is read.

:func:`load` reads interactions, :func:`load_ratings` ratings and :func:`load_impressions` labelled
rows.
"""

from inforec.data.dataset import Dataset, Knowledge, load
from inforec.data.impressions import Clicks, load_impressions
from inforec.data.ratings import Ratings, load_ratings

__all__ = [
    "Clicks",
    "Dataset",
    "Knowledge",
    "Ratings",
    "load",
    "load_impressions",
    "load_ratings",
]

"""The models, by family. REGISTRY maps each name to its class."""

from inforec.models.base import DotProduct, Ranker, Recommender
from inforec.models.collaborative.ease import EASE
from inforec.models.collaborative.itemknn import ItemKNN
from inforec.models.collaborative.mf import MF
from inforec.models.collaborative.popularity import Popularity
from inforec.models.graph.lightgcn import LightGCN

REGISTRY: dict[str, type[Recommender]] = {
    # collaborative
    "popularity": Popularity,
    "itemknn": ItemKNN,
    "ease": EASE,
    "mf": MF,
    # graph
    "lightgcn": LightGCN,
}

__all__ = ["REGISTRY", "DotProduct", "Ranker", "Recommender"]

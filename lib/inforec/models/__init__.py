"""The models, by family. REGISTRY maps each name to its class."""

from inforec.models.autoencoder.cdae import CDAE
from inforec.models.autoencoder.dae import DAE
from inforec.models.autoencoder.multvae import MultVAE
from inforec.models.base import DotProduct, Ranker, Recommender
from inforec.models.collaborative.ease import EASE
from inforec.models.collaborative.itemknn import ItemKNN
from inforec.models.collaborative.mf import MF
from inforec.models.collaborative.popularity import Popularity
from inforec.models.contrastive.cgi import CGI
from inforec.models.contrastive.directau import DirectAU
from inforec.models.contrastive.sgl import SGL
from inforec.models.contrastive.simgcl import SimGCL
from inforec.models.contrastive.xsimgcl import XSimGCL
from inforec.models.graph.lightgcn import LightGCN
from inforec.models.graph.ngcf import NGCF

REGISTRY: dict[str, type[Recommender]] = {
    # collaborative
    "popularity": Popularity,
    "itemknn": ItemKNN,
    "ease": EASE,
    "mf": MF,
    # graph
    "lightgcn": LightGCN,
    "ngcf": NGCF,
    # contrastive
    "sgl": SGL,
    "simgcl": SimGCL,
    "xsimgcl": XSimGCL,
    "directau": DirectAU,
    "cgi": CGI,
    # autoencoder
    "dae": DAE,
    "cdae": CDAE,
    "multvae": MultVAE,
}

__all__ = ["REGISTRY", "DotProduct", "Ranker", "Recommender"]

"""The models, by family. REGISTRY maps each name to its class."""

from inforec.models.autoencoder.autorec import AutoRec
from inforec.models.autoencoder.cdae import CDAE
from inforec.models.autoencoder.dae import DAE
from inforec.models.autoencoder.multvae import MultVAE
from inforec.models.base import ClickModel, DotProduct, Ranker, RatingModel, Recommender
from inforec.models.collaborative.biasedmf import BiasedMF
from inforec.models.collaborative.ease import EASE
from inforec.models.collaborative.itemknn import ItemKNN
from inforec.models.collaborative.mf import MF
from inforec.models.collaborative.popularity import Popularity
from inforec.models.context.bst import BST
from inforec.models.context.deepfm import DeepFM
from inforec.models.context.din import DIN
from inforec.models.context.ffm import FFM
from inforec.models.context.fm import FM
from inforec.models.context.lr import LR
from inforec.models.context.nfm import NFM
from inforec.models.context.poly2 import Poly2
from inforec.models.context.widedeep import WideDeep
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
    # context: one logit for each row of fields
    "lr": LR,
    "poly2": Poly2,
    "fm": FM,
    "ffm": FFM,
    "nfm": NFM,
    "widedeep": WideDeep,
    "deepfm": DeepFM,
    "din": DIN,
    "bst": BST,
    # ratings: one rating for each user and item
    "biasedmf": BiasedMF,
    "autorec": AutoRec,
}

__all__ = ["REGISTRY", "ClickModel", "DotProduct", "Ranker", "RatingModel", "Recommender"]

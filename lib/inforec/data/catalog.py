"""What data sets there are: what each is, its terms, where it comes from and how it is checked."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """One place a data set can come from.

    Args:
        kind: "local" (a folder of that name inside one of the folders on ``INFOREC_DATA``),
            "wheel" (a Python package that pip downloads and nobody installs) or "archive" (a file
            at the publisher's address).
        adapter: which function of :mod:`inforec.data.prepare` reads it.
        files: file name -> SHA-256 of what is read.
        address: the requirement for pip, or the URL; empty for "local".
        size: bytes of a download, for its progress bar.
    """

    kind: str
    adapter: str
    files: Mapping[str, str]
    address: str = ""
    size: int = 0


@dataclass(frozen=True)
class Entry:
    """One data set.

    Args:
        name: what :func:`inforec.data.load` takes.
        title: one line.
        description: a few sentences.
        licence: the publisher's terms.
        publisher: the address where the publisher describes the data.
        sources: in the order in which they are tried.
        counts: what the prepared folder must hold, or it is rejected: users, items, interactions,
            and where they apply train, test, triples.
        splits: the values of ``split`` that the data allow.
        side: the side information there is.
        companion: another data set whose titles and categories are joined on the original item
            ids if it can be had.
    """

    name: str
    title: str
    description: str
    licence: str
    publisher: str
    sources: tuple[Source, ...]
    counts: Mapping[str, int]
    splits: tuple[str, ...]
    side: tuple[str, ...] = ()
    category_kind: str = "categories"
    companion: str | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)


_MOVIELENS = (
    "GroupLens terms: research use; no commercial use and no redistribution without separate "
    "permission; cite Harper and Konstan (2015)."
)
_AMAZON = "Amazon reviews 2014, J. McAuley (UCSD): research use, no explicit licence."
_YELP = "Yelp Dataset Terms of Use: academic and non-commercial use, redistribution restricted."
_IRB = "https://github.com/Tiny-Snow/IR-Benchmark-Dataset"
_IRB_TEXT = (
    "IR-Benchmark form, 10-core, with the split that the softmax-loss papers PSL and SL@K report "
    "on. There is no validation set: part of the training data is held out."
)

_S3REC_TEXT = (
    " 5-core, in the order of time, in the files of S3-Rec that CL4SRec and DuoRec use too. An "
    "item's categories are its attributes, which have numbers and no names; those that fewer than "
    "one item in a hundred carries are left out."
)


def _given(name, title, licence, publisher, files, counts, text=_IRB_TEXT, **more):
    names = ("train.parquet", "test.parquet", "users.parquet", "items.parquet")
    source = Source("local", "given_split", dict(zip(names, files, strict=True)))
    users, items, train, test = counts
    return Entry(
        name=name,
        title=title,
        description=text,
        licence=licence,
        publisher=publisher,
        sources=(source,),
        counts={
            "users": users,
            "items": items,
            "interactions": train + test,
            "train": train,
            "test": test,
        },
        splits=("given", "random"),
        **more,
    )


def _sequences(name, title, licence, files, counts, text, **more):
    names = ("sequences.parquet", "item_attributes.parquet")
    source = Source("local", "attributed_sequences", dict(zip(names, files, strict=True)))
    return Entry(
        name=name,
        title=title,
        description=text + _S3REC_TEXT,
        licence=licence,
        publisher="https://github.com/RUCAIBox/CIKM2020-S3Rec",
        sources=(source,),
        counts=dict(zip(("users", "items", "interactions"), counts, strict=True)),
        splits=("leave_one_out", "random"),
        side=("attributes",),
        category_kind="attributes",
        **more,
    )


_ENTRIES = (
    Entry(
        name="ctr-frappe",
        title="Frappe, app usage in context, labelled rows",
        description=(
            "Which app a person used, with time of day, weekday, weather, place and more; two "
            "sampled negatives a positive. Two of the three files of NFM and AFM: their validation "
            "file is the training data here, as their training file was not to be had."
        ),
        licence="L. Baltrunas et al. (2015): research use.",
        publisher="https://github.com/hexiangnan/neural_factorization_machine",
        sources=(
            Source(
                "local",
                "labelled",
                {
                    "labelled_validation.parquet": (
                        "6b91d595ec013ed941a90501e445f11fdff8674747dd258bf93b34ccd10b99cc"
                    ),
                    "labelled_test.parquet": (
                        "5561f5c7ccd0a12cbfad799201862a40bda081570395923a13ca49d0bd2db0d9"
                    ),
                },
            ),
        ),
        counts={
            "users": 913,
            "items": 4082,
            "interactions": 86_582,
            "train": 57_722,
            "test": 28_860,
        },
        splits=("labelled rows",),
        side=("context",),
        notes=("Read by load_impressions, not by load.",),
    ),
    Entry(
        name="ml-100k",
        title="MovieLens-100K with a Freebase knowledge graph",
        description=(
            "Ratings of 1 to 5 given to films between September 1997 and April 1998, with titles, "
            "years, genres, users' age, gender and occupation, and a knowledge graph whose films "
            "were linked by KB4Rec."
        ),
        licence=_MOVIELENS + " Knowledge graph: Freebase (CC BY), links KB4Rec (RUCAIBox).",
        publisher="https://grouplens.org/datasets/movielens/100k/",
        sources=(
            Source(
                "local",
                "movielens_100k_parquet",
                {
                    "ratings.parquet": (
                        "cb98a99ef5a812fbed64b5a2621bb79cd0f25a568194261fbe5251af4fbb492b"
                    ),
                    "items.parquet": (
                        "1369ec08e9c96598b2f1aaece4c0570eb9c382d8095644ab6d89311782fed706"
                    ),
                    "users.parquet": (
                        "bb054afb5acbd848ecb1dd1054557a9a526784f794e589cade94938969aaea4c"
                    ),
                    "kg.parquet": (
                        "1aa6501f2bbe1699c897a5d2ee875b402234877652ca9c3856beeba80431f237"
                    ),
                    "link.parquet": (
                        "a3c6c78753a135fae2ba74ebf23f272c72c5aabdb1a0f2dace75a4f39bb39581"
                    ),
                },
            ),
            Source(
                "wheel",
                "movielens_100k_recbole",
                {
                    "recbole-1.2.1-py3-none-any.whl": (
                        "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
                    )
                },
                "recbole==1.2.1",
                2_130_151,
            ),
            # GroupLens publishes md5 0e33842e24a9c977be4e0107933c0723 for the same file.
            Source(
                "archive",
                "movielens_100k_grouplens",
                {
                    "ml-100k.zip": (
                        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
                    )
                },
                "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
                4_924_029,
            ),
        ),
        counts={"users": 943, "items": 1682, "interactions": 100_000, "triples": 91_631},
        splits=("random", "leave_one_out", "temporal"),
        side=("ratings", "timestamps", "titles", "genres", "users", "knowledge graph"),
        category_kind="genres",
        notes=("The publisher's archive carries no knowledge graph.",),
    ),
    Entry(
        name="ml-1m",
        title="MovieLens-1M",
        description=(
            "Ratings of 1 to 5 given to films by users who joined MovieLens in 2000, with titles, "
            "years, genres, and users' age band, gender and occupation."
        ),
        licence=_MOVIELENS,
        publisher="https://grouplens.org/datasets/movielens/1m/",
        sources=(
            Source(
                "local",
                "movielens_1m_parquet",
                {
                    "ratings.parquet": (
                        "9daa0b9b875dacabf698eb5aa7af87bbda31f04c9ec1663ce5171fe6dc5b93e8"
                    ),
                    "items.parquet": (
                        "e08c100a9e482c9cda13da8fa33c3407333d3142572d9c5d5df71fc1235aab40"
                    ),
                    "users.parquet": (
                        "ed50476056814254c3e67398b2aa2df602aedc1cb29996b1a6c74ec49483cf63"
                    ),
                },
            ),
            # GroupLens publishes md5 c4d9eecfca2ab87c1945afe126590906 for the same file.
            Source(
                "archive",
                "movielens_1m_grouplens",
                {"ml-1m.zip": ("a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20")},
                "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
                5_917_549,
            ),
        ),
        counts={"users": 6040, "items": 3706, "interactions": 1_000_209},
        splits=("random", "leave_one_out", "temporal"),
        side=("ratings", "timestamps", "titles", "genres", "users"),
        category_kind="genres",
        notes=(
            "A local folder holds the place of each rating in its user's history, and timestamps "
            "for part of the rows only: there, split 'temporal' is not to be had.",
        ),
    ),
    _given(
        "gowalla",
        "Gowalla check-ins, NGCF / LightGCN split",
        "SNAP loc-gowalla (Cho, Myers and Leskovec 2011): no explicit licence.",
        "https://github.com/gusye1234/LightGCN-PyTorch",
        (
            "9a21f4311c05ec816240e443aec53c1cc71f2cd9fcbed593d5e3e22148b9e94c",
            "89fad3eb0cc5a7673e7dc061e76d8e35a10f74ad698f0c506aa3457e8550912b",
            "73612561fa310826e243a721092427c98735adb91b50ccae328816ba7b7e67ed",
            "413efc71f089012f8508e0a8cc0490b4d252c92c358642a887923b0e9175b463",
        ),
        (29_858, 40_981, 810_128, 217_242),
        "Places that users checked in at, 10-core, in the split of NGCF and LightGCN: 80 % train, "
        "20 % test within each user, no validation set.",
    ),
    _given(
        "irb-electronic",
        "Amazon Electronics 2014, IR-Benchmark random split",
        _AMAZON,
        _IRB,
        (
            "21d64deb78726839bcb08d19cb20d419ab41dc43df9297acfe8ce553342e5fe6",
            "ae7092d3d815b101855dc6b6d183ff5dec3c1b416d2283fe97b5512ebb0eea9f",
            "069a6eb2a69c82b77fa07fca0fa1c84ae659bdbef874e85af0efef84fac5cebe",
            "78df562c06023e924504a5b6ca8b97a69c93d264cf35375984aaeb134f8ae6bd",
        ),
        (13_455, 8_360, 182_398, 52_123),
    ),
    _given(
        "irb-health",
        "Amazon Health 2014, IR-Benchmark random split",
        _AMAZON,
        _IRB,
        (
            "384ccf5704f77d704e66ed101f6693e9123816dce3d06492ba78a3cc70379fda",
            "55b8a2b1f56040e4adb8c5d033dd0ad4681cdc96d09fa726e20416b896427fc5",
            "d44fab1b1fe9c015b74f77e466b63f16e9f79560d5f7656230bb2fb734acd54e",
            "cfc776cc8685ef19b9f415ea7a1b701060e0237b17329bae509f6eb73ed79693",
        ),
        (1_974, 1_200, 37_784, 10_405),
    ),
    _given(
        "irb-ml-100k",
        "MovieLens-100K, IR-Benchmark random split",
        _MOVIELENS,
        _IRB,
        (
            "8e5e1ac6b8db39d8344ce8bf6dad75322e45066f1cf9daca9fec5778beb5d703",
            "5b81ff1abe55a803bb54199bbb554956c54fdd345b83a044a9f98a16a9bb451a",
            "464ef0c3250ec46cb9679a51ebf7a24928e6f6935c7eb890f5c4ab96f8d49a41",
            "9b25fb20fea1354db12c974e04c46aacbf7c6ca81837b817136848aa4db3ce52",
        ),
        (939, 1_016, 63_944, 16_449),
        side=("titles", "genres"),
        category_kind="genres",
        companion="ml-100k",
    ),
    _given(
        "irb-ml-1m",
        "MovieLens-1M, IR-Benchmark random split",
        _MOVIELENS,
        _IRB,
        (
            "99db1069f256fe553a336fd9fcdda93349ad7fb884195e1c68af3f13e2f5585a",
            "d245930ed1e1b1eb0e5a9c5e20ac93a04dfc53f12784ba80460f1df07c7c84f8",
            "f8842d1faaa67fb6aec838c9bfe27b52c64f76c337e1922944c5813b679a5a18",
            "5a1ab120ca0d3055ffbfcfcc510772a6994dc52521c77b52426ecb26a218fc4a",
        ),
        (6_033, 3_123, 665_133, 169_316),
        side=("titles", "genres"),
        category_kind="genres",
        companion="ml-1m",
    ),
    _given(
        "irb-ml-1m-temporal",
        "MovieLens-1M, IR-Benchmark temporal split",
        _MOVIELENS,
        _IRB,
        (
            "a2ce0e58153b382e9a070d00ec725240cc609e985eb741ec7af585c0922e2102",
            "1cb04897bfb7276925f9c621095278843fd7b22504fa9bbf01822273bbdf2c9a",
            "f8842d1faaa67fb6aec838c9bfe27b52c64f76c337e1922944c5813b679a5a18",
            "5a1ab120ca0d3055ffbfcfcc510772a6994dc52521c77b52426ecb26a218fc4a",
        ),
        (4_032, 3_116, 500_669, 43_821),
        side=("titles", "genres"),
        category_kind="genres",
        companion="ml-1m",
    ),
    _given(
        "irb-movie",
        "Amazon Movies 2014, IR-Benchmark random split",
        _AMAZON,
        _IRB,
        (
            "8d661692f36a6b08135df6117d50bc9b0f79428f2f9f31258ddf20d69ce7e04c",
            "69d000bb95eaaea13f267b662091a20f5f08d7d8e7f4419f773ec360ae97cb1d",
            "a9c42aab1833d4f35ff0111fec7dbaa6ef22fd0ba88170a92daff2e99a21e60e",
            "6a486786711716be64e3304bf43a2e723800f0abece812df4ed653dda9529a50",
        ),
        (26_968, 18_563, 599_903, 163_054),
    ),
    _sequences(
        "seq-beauty",
        "Amazon Beauty 2014, S3-Rec sequences with item attributes",
        _AMAZON,
        (
            "a248efea3e3f590be299fd6e9b5e74b87f30e43434f021750dcf3d9c45d5b47a",
            "f6adafcaec9fd7e9f5bac3d9f91935ca5fe315dfdc89ca7a77d01ff323260a59",
        ),
        (22_363, 12_101, 198_502),
        "Beauty products that users reviewed, one after the other.",
        notes=("Categories and brands are numbered together: nothing says which is which.",),
    ),
    _sequences(
        "seq-yelp",
        "Yelp 2019, S3-Rec sequences with item attributes",
        _YELP,
        (
            "52980b31bf31318e5172f9711b4e59e337cf981b42be5bb42e9a412fddb788a8",
            "0550fa5a293eb15721e97bf5c26dd3686877de862edb10c5f3cccefc4ade56b8",
        ),
        (30_431, 20_033, 304_524),
        "Businesses that users reviewed in 2019, one after the other. Of a user's several reviews "
        "of one business the first is kept.",
        notes=(
            "The published files have 316,354 rows, of which 11,830 repeat a user and a business. "
            "Without them 1,370 users have fewer than five interactions.",
        ),
    ),
    _given(
        "yelp2018",
        "Yelp2018, LightGCN / SGL / SimGCL split",
        _YELP,
        "https://github.com/gusye1234/LightGCN-PyTorch",
        (
            "1c09758f6f4968d78bf0d4728ad70a01611228a43878cb5df6ddb2e6c699c1bb",
            "1dafaa227dc486f98bd1ee2b44735867bce5cb391ec4da2ba44565467c9786bd",
            "9a4972bcb469c89c95407f7207d7438bd6a87111374ec635063edd318094100b",
            "06a3dd7c4328589b606dfd795480ae84270a766e27fc176231dbdcfe4012fc55",
        ),
        (31_668, 38_048, 1_237_259, 324_147),
        "Businesses that users reviewed, 10-core, in the split of LightGCN: 80 % train, 20 % test "
        "within each user, no validation set.",
    ),
)

CATALOG: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def find(name: str) -> Entry:
    """The entry of that name; ValueError with the nearest names if there is none."""
    if name in CATALOG:
        return CATALOG[name]
    near = difflib.get_close_matches(name, CATALOG, n=3, cutoff=0.4)
    hint = "; the nearest are: " + ", ".join(near) if near else ""
    raise ValueError(f"unknown data set {name!r}{hint}; known are: " + ", ".join(CATALOG))

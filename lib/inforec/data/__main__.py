"""``python -m inforec.data``: lists the data sets; ``fetch NAME...`` fetches."""

from __future__ import annotations

import argparse
import sys

from inforec.data.catalog import CATALOG, find
from inforec.data.fetch import cache_folder, fetch, where


def listing() -> str:
    """One block a data set: name, counts, terms, and where it would come from."""
    lines = [f"{'name':<20} {'users':>8} {'items':>8} {'interactions':>13}  from"]
    for entry in CATALOG.values():
        counts = entry.counts
        lines.append(
            f"{entry.name:<20} {counts['users']:>8,} {counts['items']:>8,} "
            f"{counts['interactions']:>13,}  {where(entry)}"
        )
        lines.append(f"    {entry.title}. {entry.licence}")
        lines.append(f"    splits: {', '.join(entry.splits)}; {entry.publisher}")
        lines.extend(f"    {note}" for note in entry.notes)
    lines.append(f"Fetched data sets lie in {cache_folder()}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m inforec.data", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="list the data sets (the default)")
    fetching = commands.add_parser("fetch", help="fetch data sets by name")
    fetching.add_argument("name", nargs="+")
    chosen = parser.parse_args(arguments)
    if chosen.command != "fetch":
        print(listing())
        return 0
    try:
        for name in chosen.name:
            find(name)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        for name in chosen.name:
            print(f"{name}: {fetch(name)}")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

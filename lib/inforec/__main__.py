"""One run from the command line, alone, under torchrun, or as a job of a cluster.

python -m inforec '{"model": "lightgcn", "alpha": 0.2}' --results results/exp
torchrun --nproc-per-node 2 -m inforec '{"model": "mf"}' --results results/exp
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from inforec.experiment import RunConfig, run
from inforec.train import processes


def main() -> None:
    parser = argparse.ArgumentParser("python -m inforec", description=__doc__.splitlines()[0])
    parser.add_argument("config", help="fields of RunConfig that are not at their default, as JSON")
    parser.add_argument("--results", type=Path, required=True, help="the folder of the study")
    given = parser.parse_args()
    try:
        config = RunConfig(**json.loads(given.config))
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    record = run(config, results=given.results, progress=False)
    if processes()[1] > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    print(record.run_id, json.dumps(record.test))


if __name__ == "__main__":
    main()

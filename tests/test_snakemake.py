"""A grid as a workflow: on two cores, and on a Slurm of one node that the test starts.

Each ends in the records of the same runs made one after the other in one process.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import inforec
from inforec import results
from inforec.experiment import RunConfig, run

CHECKOUT = Path(inforec.__file__).parents[2]
WORKFLOW = CHECKOUT / "workflow"
FIXED = {"model": "mf", "options": {"dim": 4}, "device": "cpu", "epochs": 2, "k": 5}
FIXED |= {"min_rating": 0, "min_interactions": 3, "batch_size": 35}
GRID = {"alpha": [0.0, 0.5], "seed": [0, 1]}

pytestmark = pytest.mark.slow


@pytest.fixture
def grid(tmp_path, tiny_folder):
    """A working folder with the file of a grid of four runs."""
    pytest.importorskip("snakemake", reason="the extra `workflow` is not installed")
    fixed = {**FIXED, "dataset": str(tiny_folder)}
    text = json.dumps({"study": "tiny", "fixed": fixed, "grid": GRID, "mem_mb": 500})
    (tmp_path / "grid.yaml").write_text(text)  # JSON is YAML
    return tmp_path


def snakemake(grid, *arguments, **environment):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(CHECKOUT / "lib"), os.environ.get("PYTHONPATH")])
        ),
        "INFOREC_RESULTS": str(grid / "results"),
        **environment,
    }
    command = [sys.executable, "-m", "snakemake", "--snakefile", WORKFLOW / "Snakefile"]
    command += ["--configfile", grid / "grid.yaml", *arguments]
    # A Snakemake that waits for a job which Slurm has lost may not end by itself.
    return subprocess.run(
        ["timeout", "-k", "5", "900", *map(str, command)],
        cwd=grid,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def configs(grid):
    fixed = json.loads((grid / "grid.yaml").read_text())["fixed"]
    return [
        RunConfig(**fixed, alpha=alpha, seed=seed)
        for alpha in GRID["alpha"]
        for seed in GRID["seed"]
    ]


def check_records(grid):
    """The records of the workflow are those of one process, but for their date and cost."""
    found = {record.run_id: record for record in results.load(grid / "results" / "tiny")}
    assert len(found) == 4
    for config in configs(grid):
        wanted = run(config, progress=False)
        record = found[wanted.run_id]
        assert record.valid == pytest.approx(wanted.valid, nan_ok=True)
        assert record.test == pytest.approx(wanted.test, nan_ok=True)
        assert record.law == pytest.approx(wanted.law, nan_ok=True)
        losses = [entry["loss"] for entry in record.history]
        assert losses == pytest.approx([entry["loss"] for entry in wanted.history])


def test_a_grid_on_two_cores_ends_in_the_records_of_one_process(grid):
    answer = snakemake(grid, "--cores", "2")
    assert answer.returncode == 0, answer.stderr[-3000:]
    check_records(grid)
    again = snakemake(grid, "--cores", "2")
    assert again.returncode == 0 and "Nothing to be done" in again.stdout + again.stderr


def test_a_run_that_fails_is_said_and_the_others_are_made(grid):
    settings = json.loads((grid / "grid.yaml").read_text())
    settings["grid"]["learning_rate"] = [0.01, 1e30]  # a loss that is not finite
    settings["grid"]["seed"] = [0]
    (grid / "grid.yaml").write_text(json.dumps(settings))
    answer = snakemake(grid, "--cores", "2")
    assert answer.returncode == 1
    assert "NonFiniteLossError" in answer.stderr
    found = results.load(grid / "results" / "tiny")
    assert [record.config["learning_rate"] for record in found] == [0.01, 0.01]


@pytest.mark.filterwarnings("default")
def test_the_grid_in_the_repository_is_that_of_the_book(monkeypatch):
    pytest.importorskip("snakemake", reason="the extra `workflow` is not installed")
    yaml = pytest.importorskip("yaml")
    given = yaml.safe_load((WORKFLOW / "first-grid.yaml").read_text())
    assert given["study"] == "first-grid"
    records = results.load(CHECKOUT / "results" / "first-grid")
    base = RunConfig(**given["fixed"]).to_dict()
    names = set(given["grid"])
    same = [
        r
        for r in records
        if {n: v for n, v in r.config.items() if n not in names}
        == {n: v for n, v in base.items() if n not in names}
    ]
    for name, values in given["grid"].items():
        assert sorted({r.config[name] for r in same}) == sorted(values)
    assert len(same) == 5 * 8 * 3


SLURM_CONF = """
ClusterName=tiny
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
StateSaveLocation={state}/ctld
SlurmdSpoolDir={state}/d
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AuthInfo=socket={state}/munge.socket
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
NodeName={host} CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm(tmp_path):
    """A Slurm of this machine as its only node; /etc/slurm/slurm.conf is restored afterwards."""
    missing = [
        name
        for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun")
        if not shutil.which(name)
    ]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here (Debian: munge slurmctld slurmd slurm-client)")
    if os.geteuid():
        pytest.skip("starting Slurm's daemons needs root")
    if subprocess.run(["pgrep", "-x", "slurmctld"], capture_output=True).returncode == 0:
        pytest.skip("a Slurm runs here already, and is left alone")
    state, conf = tmp_path / "slurm", Path("/etc/slurm/slurm.conf")
    for folder in ("ctld", "d"):
        (state / folder).mkdir(parents=True)
    before = conf.read_text() if conf.exists() else None
    conf.parent.mkdir(exist_ok=True)
    conf.write_text(SLURM_CONF.format(host=socket.gethostname().split(".")[0], state=state))
    (state / "key").write_bytes(os.urandom(128))
    (state / "key").chmod(0o600)
    munge = ["munged", "--foreground", "--force", f"--socket={state}/munge.socket"]
    files = {"key": "key", "pid": "munge.pid", "log": "munge.log", "seed": "seed"}
    munge += [f"--{kind}-file={state}/{name}" for kind, name in files.items()]
    daemons = []
    try:
        for command in ([*munge], ["slurmctld", "-D"], ["slurmd", "-D"]):
            daemons.append(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
        deadline = time.monotonic() + 60
        while (
            "idle"
            not in subprocess.run(
                ["sinfo", "-h", "-o", "%T"], capture_output=True, text=True
            ).stdout
        ):
            assert time.monotonic() < deadline, (state / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.5)
        yield
    finally:
        subprocess.run(["scancel", "--user", "root"], capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(20)
        conf.write_text(before) if before is not None else conf.unlink()


def test_a_grid_on_slurm_ends_in_the_records_of_one_process(grid, slurm):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="no Slurm plugin of Snakemake")
    answer = snakemake(
        grid,
        *("--workflow-profile", WORKFLOW / "profiles" / "slurm"),
        # One node without accounting: sacct has nothing to say.
        *("--slurm-status-command", "squeue", "--latency-wait", "10"),
        *("--slurm-init-seconds-before-status-checks", "5"),
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert "SLURM" in answer.stderr.upper()
    check_records(grid)

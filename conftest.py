"""Tests and the kernels of notebooks write their records to a folder of their own."""

import os
import shutil
import tempfile


def pytest_configure(config):
    config.inforec_results = tempfile.mkdtemp(prefix="inforec-results-")
    os.environ["INFOREC_RESULTS"] = config.inforec_results


def pytest_unconfigure(config):
    shutil.rmtree(config.inforec_results, ignore_errors=True)

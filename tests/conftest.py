"Options and markers: slow tests on request, cuda tests where there is a GPU; what tests share"

import os

import pytest

# before torch is imported: the processes share the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
pytest.register_assert_rewrite("helpers")

MARKERS = {
    "slow": "minutes on a CPU; runs with --run-slow",
    "cuda": "needs a GPU; skipped without one",
}
# the files that take longest begin first, so that no process is left alone with one at the end
FIRST = "tests/study/", "tests/test_site.py", "tests/test_notebooks.py"


def has_gpu():
    import torch

    return torch.cuda.is_available()


def pytest_addoption(parser):
    parser.addoption(
        "--run-slow", action="store_true", help="also run slow tests and the notebooks' slow cells"
    )


def pytest_configure(config):
    for name, text in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {text}")
    if config.option.durations is None:
        config.option.durations = 25


def pytest_collection_modifyitems(items):
    def turn(item):
        found = [i for i, start in enumerate(FIRST) if item.nodeid.startswith(start)]
        return found[0] if found else len(FIRST)

    items.sort(key=turn)


def pytest_xdist_make_scheduler(config, log):
    "A file's tests share a process and its fixtures; each notebook may go wherever there is time"
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return nodeid if "test_notebooks.py" in nodeid else super()._split_scope(nodeid)

    if config.getvalue("dist") == "loadfile":
        return Files(config, log)


def pytest_runtest_setup(item):
    if item.get_closest_marker("slow") and not item.config.getoption("--run-slow"):
        pytest.skip("slow: add --run-slow")
    if item.get_closest_marker("cuda") and not has_gpu():
        pytest.skip("no GPU")


@pytest.fixture(scope="session")
def forced_flags(request):
    """Notebook flags whose cells run all the same: `slow` on request, `cuda` on request where there
    is a GPU"""
    if not request.config.getoption("--run-slow"):
        return []
    return ["slow", "cuda"] if has_gpu() else ["slow"]


@pytest.fixture(autouse=True)
def same_figures():
    """A test, or a notebook or command that it runs, may choose a plot style: not for those that
    come after it"""
    import matplotlib

    with matplotlib.rc_context():
        yield

"""The source archive and the wheel, installed where fairseq is and this checkout is not."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, TINY, TRAINING

PACKAGE = Path("fairseq_seqkd")
OFFLINE = ["--quiet", "--no-deps", "--no-index", "--no-cache-dir"]
# Folders that a user or a tool makes in a checkout; see .gitignore.
MADE = {"__pycache__", "build", "dist", "work", "outputs", "checkpoints"}


def run(*command, folder):
    """The output of a command in a folder, where this checkout is not on Python's path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_of(folder):
    """The relative paths of a checkout's files, without those that are made."""
    paths = [path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {str(path) for path in paths if not MADE & set(path.parts)}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The unpacked source archive; its making leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    make = ["setup.py", "--quiet", "egg_info", "--egg-base", folder, "sdist", "--dist-dir"]
    run(sys.executable, *make, folder, folder=ROOT)
    (path,) = folder.glob("*.tar.gz")
    run("tar", "-xzf", path, folder=folder)
    return folder / path.name[: -len(".tar.gz")]


@pytest.fixture(scope="module")
def wheel(archive):
    """The wheel built from the source archive."""
    build = [sys.executable, "-m", "pip", "wheel", *OFFLINE, "--no-build-isolation"]
    run(*build, "--wheel-dir", archive.parent, archive, folder=archive.parent)
    (path,) = archive.parent.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new environment with the wheel; the other packages are those of this Python.

    A path in a ``.pth`` file gives modules, and not the links that an editable installation
    has beside them.
    """
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    where = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", vars=where))
    packages = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (site_packages / "others.pth").write_text("\n".join(sorted(packages)))
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install"]
    run(*pip, *OFFLINE, wheel, folder=folder)
    return folder


def test_the_source_archive_has_every_file_of_the_checkout(archive):
    folders = (PACKAGE, ".ci", "docs", "examples", "tests")
    expected = set().union(*map(files_of, folders))
    expected |= {path.name for path in ROOT.iterdir() if path.suffix in (".md", ".py", ".toml")}
    expected |= {"LICENSE", "Makefile", ".gitignore"}
    assert len(expected) > 200
    assert expected - {str(p.relative_to(archive)) for p in archive.rglob("*")} == set()


def test_the_wheel_has_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    assert names == files_of(PACKAGE)


def test_fairseq_train_with_the_installed_wheel(environment, data, teacher, tmp_path):
    python = environment / "bin" / "python"
    command = environment / "bin" / "fairseq-seqkd"
    user_dir = Path(run(command, "user-dir", folder=tmp_path).strip())
    assert environment in user_dir.parents
    loss = ["--task", "translation", "--criterion", "word_kd", "--teacher-path", teacher]
    train = [python, "-m", "fairseq_cli.train", data, "--user-dir", user_dir]
    output = run(
        *[*train, *TRAINING, *TINY, *loss, "--max-update", 2, "--save-dir", "student"],
        folder=tmp_path,
    )
    assert "kd_loss" in output and (tmp_path / "student" / "checkpoint_last.pt").exists()

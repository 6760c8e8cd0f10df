from setuptools import find_packages, setup
from setuptools.command.sdist import sdist


class SourceArchive(sdist):
    """An sdist with all that the repository has: tests, docs, examples, Makefile."""

    def make_distribution(self):
        for folder in (".ci", "docs", "examples", "tests"):
            self.filelist.graft(folder)
        self.filelist.extend(["Makefile", "CHANGELOG.md", "CONTRIBUTING.md", ".gitignore"])
        self.filelist.global_exclude("*.py[cod]")
        super().make_distribution()


setup(
    name="fairseq-seqkd",
    version="0.1.0",
    description="Distil a large sequence model into a small fast one: a fairseq plug-in",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="MIT",
    classifiers=[f"Programming Language :: Python :: 3.{minor}" for minor in range(8, 14)],
    python_requires=">=3.8",
    packages=find_packages(include=["fairseq_seqkd", "fairseq_seqkd.*"]),
    package_data={
        "fairseq_seqkd.evaluate": ["*.j2"],
        "fairseq_seqkd.cli.help": ["*.txt"],
    },
    cmdclass={"sdist": SourceArchive},
    install_requires=[
        # Upstream fairseq does not import on Python 3.11 and later.
        'fairseq>=0.12.2; python_version < "3.11"',
        'fairseq-fixed>=0.12.3.1; python_version >= "3.11"',
        "torch>=1.12",
        # Upstream fairseq uses names that numpy 1.24 removed.
        'numpy<1.24; python_version < "3.11"',
        'numpy; python_version >= "3.11"',
        "sacrebleu>=2.0",
        "safetensors",
        "sentencepiece",
        "tabulate",
        "tqdm",
    ],
    extras_require={
        "ctranslate2": ["ctranslate2"],
        "moses": ["sacremoses"],
        "subword-nmt": ["subword-nmt"],
        "report": ["jinja2", "matplotlib>=3.7"],
        "zstd": ["zstandard"],
        "dev": [
            *("hypothesis", "jinja2", "matplotlib", "pytest", "pytest-xdist", "ruff"),
            *("sacremoses", "subword-nmt", "zstandard"),
        ],
    },
    entry_points={"console_scripts": ["fairseq-seqkd = fairseq_seqkd.cli.main:main"]},
)

"""Write archives with the layout of the published data sets and the sentences of synthetic.py.

    python archives.py FOLDER

A recipe with SMOKE=1 downloads them from file://FOLDER, so that all of its steps run without a
network.
"""

import gzip
import io
import sys
import tarfile
import tempfile
import zipfile
from html import escape
from pathlib import Path

from synthetic import write_corpus

LANGUAGES = {"src": "de", "tgt": "en"}
SIZES = {"train": 400, "valid": 8, "test": 4}


def text_of(sizes, seed=1):
    """{(split, "src" or "tgt"): lines} of the synthetic corpus."""
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(folder, sizes, seed)
        return {
            tuple(path.name.split(".")): path.read_text(encoding="utf-8").splitlines()
            for path in Path(folder).iterdir()
        }


def plain(lines):
    return "".join(line + "\n" for line in lines)


def segments(lines):
    """The markup of the evaluation campaigns' test sets."""
    rows = (f'<seg id="{i}"> {escape(line)} </seg>' for i, line in enumerate(lines, 1))
    return "<doc>\n" + plain(rows) + "</doc>\n"


def write_tar(path, files):
    """Write a .tgz of {name: text}."""
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            data = text.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def iwslt14(folder, text):
    """Write de-en.tgz: training text between lines of tags, and the test sets as XML."""
    files = {}
    for side, language in (("src", "de"), ("tgt", "en")):
        tagged = ["<url>u</url>", "<title>A talk</title>", *text["train", side]]
        files[f"de-en/train.tags.de-en.{language}"] = plain(tagged)
        for i, name in enumerate(("dev2010", "tst2010", "tst2011", "tst2012")):
            some = text["test", side][i::4]
            files[f"de-en/IWSLT14.TED.{name}.de-en.{language}.xml"] = segments(some)
    write_tar(folder / "de-en.tgz", files)


def wmt14(folder, text):
    """Write three training corpora, newstest2013 as text and newstest2014 as SGML."""
    corpora = {
        "training-parallel-europarl-v7": "training/europarl-v7",
        "training-parallel-commoncrawl": "commoncrawl",
        "training-parallel-nc-v9": "training/news-commentary-v9",
    }
    sides = (("src", "en", "src"), ("tgt", "de", "ref"))
    for i, (archive, name) in enumerate(corpora.items()):
        parts = {f"{name}.de-en.{x}": plain(text["train", side][i::3]) for side, x, _ in sides}
        write_tar(folder / f"{archive}.tgz", parts)
    dev = {f"dev/newstest2013.{x}": plain(text["valid", side]) for side, x, _ in sides}
    write_tar(folder / "dev.tgz", dev)
    test = {
        f"test-full/newstest2014-deen-{role}.{x}.sgm": segments(text["test", side])
        for side, x, role in sides
    }
    write_tar(folder / "test-full.tgz", test)


def wikitext(folder, text):
    """Write wikitext-103-v1.zip from the target side."""
    with zipfile.ZipFile(folder / "wikitext-103-v1.zip", "w") as archive:
        for split in ("train", "valid", "test"):
            lines = plain(f" {line} " for line in text[split, "tgt"])
            archive.writestr(f"wikitext-103/wiki.{split}.tokens", lines)


def multi30k(folder, text):
    """Write one compressed file per split and language, and captions of task 2 in task2."""
    names = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
    for (split, side), lines in text.items():
        write_gzip(folder / f"{names[split]}.{LANGUAGES[side]}.gz", lines)
    other = text_of(SIZES, seed=2)
    for side, language in LANGUAGES.items():
        write_gzip(folder / f"test_2018_flickr.{language}.gz", other["test", side])
        for i in range(5):
            captions = other["train", side][i::5] + text["train", side][:1]
            write_gzip(folder / "task2" / f"train.{i + 1}.{language}.gz", captions)


def write_gzip(path, lines):
    path.parent.mkdir(exist_ok=True)
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(plain(lines).encode())


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    text = text_of(SIZES)
    for write in (iwslt14, wmt14, wikitext, multi30k):
        write(folder, text)

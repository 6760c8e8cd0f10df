"""Nothing in the shell scripts that macOS lacks: it has bash 3.2 and BSD's tools."""

import re

import pytest
from conftest import ROOT

SCRIPTS = sorted(
    path
    for pattern in ("*.sh", "*.sbatch")
    for path in ROOT.glob(f"**/{pattern}")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
) + [ROOT / ".ci" / "run"]
# {script: what is allowed there}: CI runs on Debian, and sha256 looks which program there is.
ALLOWED = {"run": ["apt-get"], "lib.sh": ["command -v sha256sum"]}
# {reason: pattern}
MISSING = {
    "associative arrays are of bash 4": r"(declare|local|typeset) +-\w*A",
    "namerefs are of bash 4.3": r"(declare|local|typeset) +-\w*n",
    "printf into a date is of bash 4.2": r"printf.*%\(",
    "${name,,} and ${name^^} are of bash 4": r"\$\{\w+(\[[^]]*\])?(,|\^)",
    "${name@Q} is of bash 4.4": r"\$\{\w+(\[[^]]*\])?@[A-Za-z]\}",
    "negative indices and lengths are of bash 4.2": r"\$\{\w+(\[-|\[@\]: -|:\d+:-)",
    "[[ -v name ]] is of bash 4.2": r"\[\[? +-v ",
    "mapfile and readarray are of bash 4": r"\b(mapfile|readarray)\b",
    "wait -n is of bash 4.3: wait_any of lib.sh": r"\bwait +-n\b",
    "|& and &>> are of bash 4": r"\|&|&>>",
    "coproc is of bash 4": r"^\s*coproc\b",
    ";& is of bash 4": r";;?&",
    "EPOCHSECONDS and the like are of bash 5": r"\$\{?(EPOCH|SRANDOM)",
    "shopt -s globstar and lastpipe are of bash 4": r"shopt .*(globstar|lastpipe)",
    "{01..10} and {1..9..2} are of bash 4": r"\{\d+\.\.\d+\.\.\d+\}|\{0\d+\.\.",
    "macOS has shasum: sha256 of lib.sh": r"\b(sha\d+sum|md5sum)\b",
    "nproc is of GNU: getconf _NPROCESSORS_ONLN": r"\bnproc\b(?!-)",
    "sort -V is of GNU": r"\bsort\b[^|]* (-\w*V|--version-sort)",
    "sed -i takes an argument on macOS": r"\bsed\b[^|]* (-\w*i\b|--in-place)",
    "sed -r is of GNU: sed -E": r"\bsed\b[^|]* -\w*r\b",
    "a label of sed ends at the end of a line": r"\bsed\b.*[;' ][bt] *\w+ *;",
    "grep -P is of GNU": r"\bgrep\b[^|]* -\w*P",
    "readlink -f and realpath are of GNU": r"\b(readlink +-\w*f|realpath)\b",
    "date -d and date --... are of GNU": r"\bdate\b +(-\w*d|--|-I|\+\S*%N)",
    "stat -c is of GNU": r"\bstat\b +(-\w*c|--)",
    "head -n -1 is of GNU": r"\bhead\b[^|]* -n *-\d",
    "cp -t, mv -t and cp --... are of GNU": r"\b(cp|mv|ln|rm|mkdir) +(-\w*t\b|--\w)",
    "du -b and df -B are of GNU": r"\b(du +-\w*b|df +-\w*B)",
    "xargs -d and -r are of GNU": r"\bxargs\b[^|]* -\w*[dr]\b",
    "find -printf is of GNU": r"\bfind\b[^|]* -printf",
    "these are of GNU": r"(^|[|;&(] *)(tac|shuf|timeout|numfmt|setsid|taskset|numactl|zcat) ",
    "/proc is of Linux": r"/proc/",
    "apt-get": r"\bapt-get\b",
}
ARRAYS = 'an empty array under set -u is unset before bash 4.4: ${name[@]+"${name[@]}"}'


def code_of(script):
    """Numbered lines without comments and without Python in here-documents."""
    text = re.sub(
        r"(<<'(\w+)'\n)(.*?)(\n\2\n)",
        lambda match: match[1] + "\n" * match[3].count("\n") + match[4],
        script.read_text(),
        flags=re.DOTALL,
    )
    return [(n, re.sub(r"(^|\s)#.*", "", line)) for n, line in enumerate(text.split("\n"), 1)]


def unguarded_arrays(lines):
    """The lines that expand an array that may be empty."""
    text = "\n".join(line for _, line in lines)
    names = set(re.findall(r"\b(\w+)=\(\)", text))
    for number, line in lines:
        for name in names:
            plain = re.sub(rf"\$\{{{name}\[@\]\+\"\$\{{{name}\[@\][^}}]*\}}\"\}}", "", line)
            if re.search(rf"\$\{{{name}\[[@*]\]", plain):
                yield number, line


def findings(script):
    lines = code_of(script)
    for number, line in lines:
        for reason, pattern in MISSING.items():
            if re.search(pattern, line):
                yield f"{script.name}:{number}: {reason}: {line.strip()}"
    for number, line in unguarded_arrays(lines):
        yield f"{script.name}:{number}: {ARRAYS}: {line.strip()}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_portable(script):
    allowed = ALLOWED.get(script.name, [])
    found = [line for line in findings(script) if not any(one in line for one in allowed)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        *["declare -A seen", "local -n name=$1", "echo ${name,,}", 'x="${x^^}"', "${a[-1]}"],
        *["readarray -t lines <file", "wait -n || failed=1", "make |& tee log", "x &>> log"],
        *["sha256sum --check sums", "echo x | md5sum", "cores=$(nproc)", "sort -V list"],
        *["sort -rV list", "sed -i s/a/b/ file", "sed -nr 's/a/b/p'", "sed -n 's/x//; t a; d'"],
        *["readlink -f file", "realpath .", "date -d yesterday", "date +%s%N", "stat -c %s x"],
        *["head -n -1 x", "xargs -r rm", "grep -oP x", "cat x | tac ", "cat /proc/cpuinfo"],
        *['a=()\nf "${a[@]}"', 'local a=()\nfor x in "${a[*]}"; do', "du -sb x"],
        *["printf '%(%s)T'", "[[ -v x ]]", "timeout 3 x", "shopt -s globstar", "cp -rt x y"],
    ],
)
def test_what_is_missing_is_found(tmp_path, line):
    (tmp_path / "script.sh").write_text(line + "\n")
    assert list(findings(tmp_path / "script.sh"))


@pytest.mark.parametrize(
    "line",
    [
        *['a=()\nf ${a[@]+"${a[@]}"}', 'a=()\nf ${a[@]+"${a[@]:1:1}"}', 'a=(x)\nf "${a[@]}"'],
        *[
            "# sort -V",
            "python - <<'END'\nopen('/proc/x')\nEND",
            "echo ${name##*/} ${name%%:*}",
        ],
        *["sed -n '1p; / valid on /p'", "sort -rn", "getconf _NPROCESSORS_ONLN", "wait $pid"],
        *["torchrun --nproc_per_node 8", "cp -r a b", "echo ${x:-1} ${#a[@]}", "head -n 3 x"],
    ],
)
def test_what_is_there_is_not_found(tmp_path, line):
    (tmp_path / "script.sh").write_text(line + "\n")
    assert list(findings(tmp_path / "script.sh")) == []

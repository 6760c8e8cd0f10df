"""Processes that are killed at random moments, and started again."""

import random
import time

import pytest
from conftest import files, load_split
from processes import ended_well, start_command

KILLS = 20


def start(*arguments):
    return start_command("generate", *arguments)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("engine", ["fairseq", "ctranslate2"])
def test_a_store_is_the_same_after_any_number_of_kills(
    data, teacher, tmp_path, processes, engine
):
    pytest.importorskip("ctranslate2" if engine == "ctranslate2" else "fairseq")
    moments = random.Random(processes)
    common = [data, "--teacher-path", teacher, "--engine", engine, "--threads", 1]

    def command(root, rank):
        worker = ["--num-shards", processes, "--shard-id", rank] if processes > 1 else []
        return [*common, "--pseudo-targets", root, *worker]

    assert ended_well(start("--help"))  # the first one has to import everything
    begin = time.monotonic()
    assert ended_well(start(*common, "--pseudo-targets", tmp_path / "unbroken"))
    longest = time.monotonic() - begin
    expected = files(tmp_path / "unbroken")
    assert len(load_split(tmp_path / "unbroken" / "best").dataset) == 160

    kills, stores = 0, 0
    while kills < KILLS:
        stores += 1
        root = tmp_path / f"broken-{stores}"
        running = {}
        while not (root / "best").exists():
            for rank in set(range(processes)) - set(running):
                running[rank] = start(*command(root, rank))
            if kills < KILLS:
                time.sleep(moments.uniform(0, longest / processes))
                rank = moments.choice(sorted(running))
                running[rank].kill()
                kills += not ended_well(running.pop(rank))
            else:
                assert all([ended_well(running.pop(rank)) for rank in sorted(running)])
        assert all([ended_well(child) for child in running.values()])
        assert ended_well(start(*command(root, 0)))  # nothing is left to do
        assert files(root) == expected

"""Show where a running command is, from what it appends to its log.

    python watch.py LOG COMMAND...      until it is killed, or its parent process has ended

Of fairseq-train it shows the updates done, the best validation BLEU so far, and the time left;
of any other command its last progress bar. On a terminal it is one line that moves, in a file a
line every half minute. Nothing is shown in the first ten seconds.
"""

import os
import re
import signal
import sys
import time

QUIET = 10  # seconds
TAIL = 200_000  # bytes of the log's end that are looked at
_UPDATES = re.compile(r"num_updates[=: '\"]+(\d+)")
_BLEU = re.compile(r"\| valid on .*?\bbleu ([\d.]+)")
_BAR = re.compile(r"(\d+)%\|[^\r\n]*\[([\d:]+)<([\d:]+)")


class Progress:
    """Where a command is.

    Args:
        command: its words; ``--max-update N`` tells the length of a training
        begin: when it began, in seconds
    """

    def __init__(self, command, begin):
        self.updates = None
        if "--max-update" in command:
            self.updates = int(command[command.index("--max-update") + 1])
        self.begin = begin
        self.first = None  # (time, updates) at the first look that had some

    def describe(self, text, now):
        """One line about the end of a log; empty if there is nothing to tell.

        Args:
            text: the end of the log since the command began
            now: the time, in seconds
        """
        if self.updates is not None:
            return self._training(text, now)
        bars = _BAR.findall(text)
        if not bars:
            return ""
        percent, _, left = bars[-1]
        return f"{percent} %, {left} left"

    def _training(self, text, now):
        updates = [int(number) for number in _UPDATES.findall(text)]
        if not updates:
            return ""
        done = updates[-1]
        parts = [f"{done} of {self.updates} updates"]
        bleu = [float(value) for value in _BLEU.findall(text)]
        if bleu:
            parts.append(f"best validation BLEU {max(bleu):.1f}")
        left = self._seconds_left(done, now)
        if left is not None:
            parts.append(f"{clock(left)} left")
        return ", ".join(parts)

    def _seconds_left(self, done, now):
        """Estimated from the updates since the first look: a resumed training begins later."""
        if self.first is None:
            self.first = now, done
        before, first_done = self.first
        if done <= first_done:
            return None
        return (self.updates - done) * (now - before) / (done - first_done)


def clock(seconds):
    """Minutes and seconds, as 2:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def end_of(path, begin):
    """The end of a file, from position ``begin`` on."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - TAIL))
        return file.read().decode("utf-8", errors="replace")


def watch(path, command, stream=sys.stdout):
    """Show the progress of a command that appends to the file at ``path``."""
    parent, begin, moves = os.getppid(), time.time(), stream.isatty()
    position = os.path.getsize(path)
    progress = Progress(command, begin)
    shown = ""
    while os.getppid() == parent:
        time.sleep(1 if moves else 30)
        now = time.time()
        line = progress.describe(end_of(path, position), now) if now - begin > QUIET else ""
        if line and line != shown:
            shown = line
            text = f"  {clock(now - begin)}: {line}"
            stream.write(f"\r\033[K{text}" if moves else text + "\n")
            stream.flush()


def end(*_):
    """Leave the terminal's line clean."""
    if sys.stdout.isatty():
        sys.stdout.write("\r\033[K")
        sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    watch(sys.argv[1], sys.argv[2:])

"""Coverage-guided fuzzing of parsers by atheris: ``python tests/fuzz [--seconds N] [--corpus DIRECTORY] [TARGET ...]``.

Each target runs in a process of its own, and says how many inputs it executed. The exit code is 1 when one found
something; the input is left in the corpus's ``findings/`` and belongs into ``regressions/`` once it is mended. Without
atheris nothing is done, which is said, with exit code 0.
"""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
_NAMES = ("dockerfile", "reference", "ignore", "expand")


def main(words: list[str]) -> int:
    """Fuzz all targets, one after another."""
    parser = argparse.ArgumentParser(prog="tests/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="for each target (default 10)")
    parser.add_argument("--corpus", type=Path, default=HERE.parents[1] / "build" / "fuzz", help="what was learned")
    parser.add_argument("targets", nargs="*", default=list(_NAMES), help=f"of {', '.join(_NAMES)}")
    options = parser.parse_args(words)
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not there for this Python and machine: parsers are not fuzzed", flush=True)
        return 0
    return max(_run(name, options.seconds, options.corpus) for name in options.targets)


def _run(name: str, seconds: int, above: Path) -> int:
    print(f"== fuzz {name}", flush=True)
    corpus, findings = above / name, above / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    limits = ["-max_len=4096", "-timeout=10", "-rss_limit_mb=1024"]
    words = [sys.executable, str(HERE / "child.py"), name, f"-max_total_time={seconds}", *limits]
    words += ["-verbosity=0", "-print_final_stats=1", f"-artifact_prefix={findings}/{name}-", str(corpus)]
    # The child ends as libFuzzer does; a Python that hangs in C is not asked twice.
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    for line in done.stdout.splitlines():
        if (done.returncode and "Instrumenting" not in line) or "number_of_executed_units" in line:
            print(line, flush=True)
    return int(done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""One target under libFuzzer: ``child.py TARGET [options of libFuzzer] CORPUS``. It ends as libFuzzer ends."""

import sys
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parent)]
_FUZZED = ["layerfs.build", "layerfs.reference", "layerfs.variables", "layerfs.imageconfig"]
with atheris.instrument_imports(include=_FUZZED):
    from targets import SEEDS, TARGETS, WORDS, regressions

_, name, *words = sys.argv
_corpus = Path(words[-1])
for _number, _seed in enumerate((*SEEDS[name], *(path.read_bytes() for path in regressions(name)))):
    (_corpus / f"seed-{_number}").write_bytes(_seed)
_dictionary = _corpus.parent / f"{name}.dict"
_dictionary.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in WORDS[name]))
atheris.Setup([sys.argv[0], f"-dict={_dictionary}", *words], TARGETS[name])
atheris.Fuzz()
